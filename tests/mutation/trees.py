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

    def pytest(self, *arguments: str, timeout: float) -> int | None:
        """Run tests over the copy; returns pytest's status, or None where it took longer than `timeout` seconds."""
        shutil.rmtree(self._cache, ignore_errors=True)
        paths = os.pathsep.join(
            str(self.root / part) for part in ("collector", "instrumentation", "tests", "tests/mutation")
        )
        command = [
            str(REPOSITORY / ".venv/bin/python"), "-m", "pytest", "-q", "-o", f"cache_dir={self._cache}", *arguments
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("CI", None)
        with subprocess.Popen(
            command, cwd=self.root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                return process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                return None

    def failed(self) -> list[str]:
        """The tests that failed in the last run."""
        kept = self._cache / "v" / "cache" / "lastfailed"
        return list(json.loads(kept.read_text(encoding="utf-8"))) if kept.exists() else []
