"""The demo checks itself when its collector is killed in the middle of it; `make demo ONCE=1` runs it in peace."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from harness import clean_environment

RUN = Path(__file__).parents[2] / "instrumentation/demo/run.py"


def test_the_demo_adds_up_also_when_its_collector_is_killed(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, str(RUN), "--once"],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.kill(_collector_with_records(demo, tmp_path / ".farebox/once.db"), signal.SIGKILL)
    output, _ = demo.communicate(timeout=180)
    assert demo.returncode == 0, output
    steps = [output.index(words) for words in ("was refused before it cost", "topped up at", "agent.run succeeded")]
    assert steps == sorted(steps)
    assert "debits equal the receipts" in output
    assert "restarting it" in output


def _collector_with_records(demo: subprocess.Popen[str], database: Path) -> int:
    """Wait until some calls are in the books; the pid of the collector that put them there."""
    while demo.poll() is None:
        try:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
                (records,) = connection.execute("SELECT count(*) FROM usage_records").fetchone()
        except sqlite3.OperationalError:
            records = 0
        if records:
            return int(database.with_name("once.db.lock").read_text(encoding="ascii"))
        time.sleep(0.02)
    raise AssertionError(demo.communicate()[0])
