"""Programs of Prometheus, and the code of alerts and dashboards on the path."""

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY / "alerts"), str(REPOSITORY / "dashboards")]


@pytest.fixture(scope="session", autouse=True)
def _prometheus_is_installed() -> None:
    from shutil import which

    missing = [name for name in ("prometheus", "promtool", "prometheus-alertmanager", "amtool") if which(name) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI installs Prometheus and Alertmanager, but there is no {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)}")
