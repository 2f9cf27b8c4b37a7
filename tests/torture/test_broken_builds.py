"""Torture is worth what it finds: collectors that were broken on purpose must come out red."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import farebox_collector
import faults_content
import faults_process
from postgres import PostgresServer
from world import Result, World

PRODUCT = Path(farebox_collector.__file__).parent


class Patch(NamedTuple):
    """A source text of a module and what takes its place."""

    module: str
    text: str
    instead: str


# As with a buffer in memory: answered at once, committed a moment later.
ACKNOWLEDGE_FIRST = (
    Patch(
        "pipeline.py",
        "await self._committer.commit(batch)",
        "(asyncio.get_running_loop().call_later("
        "0.2, lambda: asyncio.ensure_future(self._committer.commit(batch))),"
        " [call.verdict for call in read.calls])[1]",
    ),
)
MARK_APART = (
    Patch(
        "ledger/usage.py",
        "    legs = legs_of(_charges(sums.wallets))\n",
        '    connection.exec_driver_sql("COMMIT")\n'
        '    connection.exec_driver_sql("BEGIN")\n'
        "    legs = legs_of(_charges(sums.wallets))\n",
    ),
)
READ_AND_WRITE_BACK = (
    Patch(
        "ledger/journal.py",
        "DO UPDATE SET {bulk.additions('accounts', _ACCOUNT_SUMS)},\"",
        "DO UPDATE SET balance_nano = excluded.balance_nano,"
        " {bulk.additions('accounts', ('spent_nano', 'charged_calls'))},\"",
    ),
    Patch(
        "ledger/journal.py",
        "            commodity,\n            amount,\n",
        "            commodity,\n"
        "            amount + balance(connection, tenant_id, Account(kind, name, commodity)),\n",
    ),
)


def red(
    fault: Callable[[World], Result],
    kind: str,
    patches: tuple[Patch, ...],
    directory: Path,
    postgres: PostgresServer | None = None,
) -> Result:
    """How a build with these patches fares."""
    package = directory / "build/farebox_collector"
    shutil.copytree(PRODUCT, package, ignore=shutil.ignore_patterns("__pycache__"))
    for module, text, instead in patches:
        source = (package / module).read_text(encoding="utf-8")
        assert source.count(text) == 1, f"{module} has changed: break it another way"
        (package / module).write_text(source.replace(text, instead), encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(package.parent), os.environ.get("PYTHONPATH"))))
    world = World(kind, directory, 1, short=True, postgres=postgres, environment={"PYTHONPATH": path})
    try:
        return fault(world)
    finally:
        world.close()


def test_acknowledging_before_the_commit_loses_spans(tmp_path: Path) -> None:
    assert red(faults_process.kill_9, "sqlite", ACKNOWLEDGE_FIRST, tmp_path).lost_spans


def test_a_dedupe_mark_in_a_transaction_of_its_own_leaves_calls_unpaid(tmp_path: Path) -> None:
    # A try that meets a commit of nothing but repeats loses nothing; the full form has seven of them.
    for number in range(7):
        directory = tmp_path / str(number)
        directory.mkdir()
        result = red(faults_process.kill_at_failpoints, "sqlite", MARK_APART, directory)
        if result.off_nano:
            break
    assert result.off_nano
    assert result.audit_mismatches


def test_a_balance_that_is_read_and_written_back_loses_money(tmp_path: Path, postgres: PostgresServer) -> None:
    result = red(faults_content.deposits_among_charges, "postgresql", READ_AND_WRITE_BACK, tmp_path, postgres)
    assert result.off_nano
    assert result.audit_mismatches
