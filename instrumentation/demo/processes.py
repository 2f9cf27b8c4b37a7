"""Start, watch and end the demo's processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

LOGS = Path(".farebox")
END_S = 30


class DemoFailed(Exception):
    """The demo cannot continue; the message tells why."""


class Process:
    """A Python program with arguments; stderr goes to `.farebox/NAME.log`. Leaving the context ends it."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.arguments = arguments
        self._environment = {**os.environ, **(environment or {})}
        LOGS.mkdir(exist_ok=True)
        self._log = LOGS / f"{name}.log"
        self._log.unlink(missing_ok=True)
        self._running = self._start()

    @property
    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return self._running.poll() is not None

    def start_again(self) -> None:
        """Restart an ended process."""
        self._close_output()
        self._running = self._start()

    def read_line(self) -> dict[str, Any]:
        """Wait for the program's line of JSON. Raises DemoFailed if it ends without one."""
        assert self._running.stdout is not None
        line = self._running.stdout.readline()
        if not line:
            raise DemoFailed(f"the {self.name} ended: {self._log.read_text(encoding='utf-8').strip()[-2000:]}")
        return json.loads(line)  # type: ignore[no-any-return]

    def end(self) -> None:
        """Send SIGTERM, and SIGKILL after a timeout."""
        self._running.terminate()
        try:
            self._running.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()

    def _start(self) -> subprocess.Popen[str]:
        with open(self._log, "a", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, *self.arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
                # Only the demo receives Ctrl-C; it then ends the other processes in order.
                start_new_session=True,
            )

    def _close_output(self) -> None:
        assert self._running.stdout is not None
        self._running.stdout.close()

    def __enter__(self) -> Process:
        """Return the running process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self.end()
        self._close_output()
