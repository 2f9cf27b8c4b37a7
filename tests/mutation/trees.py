"""Copies of the checkout in which code is changed and tests are run."""

import json
import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
WORK = REPOSITORY / ".bench" / "mutate"
SOURCES = Path("collector/farebox_collector")


class Tree:
    """A copy of all files that git knows or would add."""

    def __init__(self, number: int) -> None:
        self.root = WORK / f"tree-{number}"
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            **{"cwd": REPOSITORY, "check": True, "capture_output": True},
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (REPOSITORY / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, self.root / name)
        (self.root / ".venv").symlink_to(REPOSITORY / ".venv")
        self._cache = WORK / f"cache-{number}"
        self._runner: subprocess.Popen[str] | None = None

    def pytest(self, *arguments: str, timeout: float) -> int | None:
        """Run tests over the copy; returns pytest's status, or None where it took longer than `timeout` seconds."""
        shutil.rmtree(self._cache, ignore_errors=True)
        if self._runner is None:
            self._runner = self._start()
        assert self._runner.stdin is not None
        assert self._runner.stdout is not None
        asked = {"arguments": ["-q", "-o", f"cache_dir={self._cache}", *arguments], "timeout": timeout}
        self._runner.stdin.write(json.dumps(asked) + "\n")
        self._runner.stdin.flush()
        status: int | None = json.loads(self._runner.stdout.readline())["status"]
        return status

    def _start(self) -> "subprocess.Popen[str]":
        here = ("collector", "instrumentation", "tests", "tests/ledger", "tests/mutation")
        paths = os.pathsep.join(str(self.root / part) for part in here)
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("CI", None)
        command = [str(REPOSITORY / ".venv/bin/python"), str(self.root / "tests/mutation/preloaded.py")]
        return subprocess.Popen(
            command, cwd=self.root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def failed(self) -> list[str]:
        """The tests that failed in the last run."""
        kept = self._cache / "v" / "cache" / "lastfailed"
        return list(json.loads(kept.read_text(encoding="utf-8"))) if kept.exists() else []
