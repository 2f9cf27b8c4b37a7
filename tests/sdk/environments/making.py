"""Environments for clients and instrumentations that cannot be installed beside the project's own.

Each is a folder ``.venv/environments/<name>-<digest>``, made with pip from ``<name>.txt`` with hashes the first time,
and found again until that file changes. The file is resolved from ``<name>.in`` and the SDK's own dependencies with
``uv pip compile``, as the Makefile does for the lock. Farebox itself is imported from this tree.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
REPOSITORY: Final = HERE.parents[2]
KEPT_IN: Final = REPOSITORY / ".venv" / "environments"


def python_of(name: str) -> Path:
    """The Python of the environment of this name, which is made if need be (with the network, in some 15 seconds)."""
    requirements = HERE / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = KEPT_IN / f"{name}-{digest}"
    python = home / "bin" / "python"
    KEPT_IN.mkdir(parents=True, exist_ok=True)
    with (KEPT_IN / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = home / "made"
        if not made.exists():
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
            subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "--python", str(python), "install"),
                    # Most of it is never imported; what is, is compiled then.
                    *("--no-compile", "--quiet", "--disable-pip-version-check"),
                    *("--require-hashes", "--only-binary", ":all:", "--no-deps", "-r", str(requirements)),
                ],
                check=True,
            )
            made.touch()
    return python


def variables() -> dict[str, str]:
    """What a process in such an environment inherits: no settings of telemetry, and Farebox from this tree."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "FAREBOX_", "PYTHON"))}
    return kept | {"PYTHONPATH": str(REPOSITORY / "instrumentation")}
