"""Torture is worth what it finds: collectors that were broken on purpose must come out red."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import farebox_collector
import pytest
from postgres import PostgresServer
from torture import faults_content, faults_process
from torture.world import Result, World

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
        "ledger/usage/appending.py",
        "    opened.append(into.transaction,",
        '    connection.exec_driver_sql("COMMIT")\n'
        '    connection.exec_driver_sql("BEGIN")\n'
        '    connection.exec_driver_sql(f"SAVEPOINT {attempt._savepoint}")\n'
        "    opened.append(into.transaction,",
    ),
)
FOLD_TWICE = (
    Patch("ledger/usage/folding.py", "connection.execute(delete(unfolded_batches)", "(delete(unfolded_batches)"),
    Patch("ledger/journal/journal.py", "is_open=0, ", ""),
)
CLAIMS_FORGOTTEN = (Patch("ledger/usage/claims.py", "in (_CLAIM_FIRST, _CLAIM_FURTHER, _CLAIM_BEFORE):", "in ():"),)
READ_AND_WRITE_BACK = (
    Patch(
        "ledger/journal/journal.py",
        "DO UPDATE SET {bulk_insert.additions('accounts', _ACCOUNT_SUMS)},\"",
        "DO UPDATE SET balance_nano = excluded.balance_nano,"
        " {bulk_insert.additions('accounts', ('spent_nano', 'charged_calls'))},\"",
    ),
    Patch(
        "ledger/journal/journal.py",
        "            commodity,\n            amount,\n",
        "            commodity,\n"
        "            amount + balance(connection, tenant_id, Account(kind, name, commodity)),\n",
    ),
)

# The newest return alone says what is out, so that refunds and disputes depend on their order.
LAST_RETURN_DECIDES = (
    Patch(
        "ledger/credits/returned_credits.py",
        "    returned_minor = min(sum(row.amount_minor for row in standing), topup.amount_minor)\n",
        "    returned_minor = min(sum(row.amount_minor for row in standing[-1:]), topup.amount_minor)\n",
    ),
)
HOLDS_IGNORE_CORRECTIONS = (
    Patch("ledger/usage/corrections.py", "    _settle_holds(connection, tenant_id, pending, at_ns)\n", ""),
)
LATE_USAGE_FINDS_NO_LOT = (
    Patch("ledger/credits/lot.py", "moment_ns <= expiry", "moment_ns <= expiry and not self.row.expires_at_ns"),
)


def patched(patches: tuple[Patch, ...], directory: Path) -> dict[str, str]:
    """Make a build with these patches; the environment in which Python finds it."""
    package = directory / "build/farebox_collector"
    shutil.copytree(PRODUCT, package, ignore=shutil.ignore_patterns("__pycache__"))
    for module, text, instead in patches:
        source = (package / module).read_text(encoding="utf-8")
        assert source.count(text) == 1, f"{module} has changed: break it another way"
        (package / module).write_text(source.replace(text, instead), encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(package.parent), os.environ.get("PYTHONPATH"))))}


def red(
    fault: Callable[[World], Result],
    kind: str,
    patches: tuple[Patch, ...],
    directory: Path,
    postgres: PostgresServer | None = None,
) -> Result:
    """How a build with these patches fares."""
    world = World(kind, directory, 1, short=True, postgres=postgres, environment=patched(patches, directory))
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


def test_a_batch_that_is_folded_twice_takes_money(tmp_path: Path) -> None:
    result = red(faults_process.kill_9, "sqlite", FOLD_TWICE, tmp_path)
    assert result.off_nano
    assert result.audit_mismatches


def test_claims_that_stay_in_memory_are_found_missing(tmp_path: Path) -> None:
    assert red(faults_process.kill_9, "sqlite", CLAIMS_FORGOTTEN, tmp_path).audit_mismatches


def test_a_balance_that_is_read_and_written_back_loses_money(tmp_path: Path, postgres: PostgresServer) -> None:
    result = red(faults_content.deposits_among_charges, "postgresql", READ_AND_WRITE_BACK, tmp_path, postgres)
    assert result.off_nano
    assert result.audit_mismatches


TRY_MONEY = """
import sys
sys.path.insert(0, {tests!r})
import farebox_collector
assert farebox_collector.__file__.startswith({build!r}), farebox_collector.__file__
from blank import blank_sqlite
from torture.shop_machine import try_money
try_money(blank_sqlite, {chosen_by}, examples=60, steps=40, shrink=False)
"""


@pytest.mark.parametrize(
    ("patches", "chosen_by"),
    [(LAST_RETURN_DECIDES, 1), (LATE_USAGE_FINDS_NO_LOT, 1), (HOLDS_IGNORE_CORRECTIONS, 1)],
    ids=["order-dependent refunds", "late usage finds no lot", "holds ignore corrections"],
)
def test_the_machine_of_money_finds(patches: tuple[Patch, ...], chosen_by: int, tmp_path: Path) -> None:
    """Broken rules of money turn random histories red, by an assertion of the machine and by nothing else."""
    environment = os.environ | patched(patches, tmp_path)
    facts = {"tests": str(Path(__file__).parents[1]), "build": str(tmp_path), "chosen_by": chosen_by}
    found = subprocess.run(
        [sys.executable, "-c", TRY_MONEY.format(**facts)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert found.returncode, "the machine noticed nothing"
    assert "AssertionError" in found.stderr, found.stderr
    assert "in look" in found.stderr, found.stderr
