"""Runs pytest in forks of a process that has imported all but the code under test: each run is seconds shorter.

One JSON line of standard input is a run: {"arguments": […], "timeout": seconds}. The answer is a JSON line with its
status, which is null for a run that took too long.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time

_LIST = "import conftest, sys; print('\\n'.join(n for n, m in sys.modules.items() if getattr(m, '__file__', '')))"


def main() -> None:
    """Import what the tests use of other packages, then run what is asked for."""
    listed = subprocess.run([sys.executable, "-c", _LIST], check=True, capture_output=True, text=True).stdout
    own = {
        name.removesuffix(".py") for part in sys.path[1:] if part.startswith(os.getcwd()) for name in os.listdir(part)
    }
    for name in listed.split():
        if name.partition(".")[0] not in own:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        status = _run(asked["arguments"], asked["timeout"])
        print(json.dumps({"status": status}), flush=True)


def _run(arguments: list[str], timeout: float) -> int | None:
    child = os.fork()
    if not child:
        _test(arguments)
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _test(arguments: list[str]) -> None:
    os.setsid()
    silent = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(silent, number)
    status = 3
    try:
        import pytest

        # Plugins are imported before pytest can rewrite their assertions.
        status = int(pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *arguments]))
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
