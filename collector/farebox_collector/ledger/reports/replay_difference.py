"""Sum the changes of a replay by model and by wallet.

There may be a million wallets, and the largest differences are known only at the end. So the sums are in a temporary
SQLite file, which SQLite deletes with its last connection; memory use is that of its page cache.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from farebox_collector.ledger.usage.corrections import Correction
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict

_MODEL, _WALLET = "model", "wallet"
_CACHE_KIB = 8 * 1024
_SUMS = (
    "records",
    "cost_before_nanousd",
    "cost_after_nanousd",
    "charge_before_nanocredits",
    "charge_after_nanocredits",
)
_ADD = (
    f"INSERT INTO sums (kind, name, {', '.join(_SUMS)}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, name) DO UPDATE"
    f" SET {', '.join(f'{name} = {name} + excluded.{name}' for name in _SUMS)}"
)
_TOTALS = ", ".join(f"coalesce(sum({name}), 0)" for name in _SUMS)
_LARGEST_FIRST = (
    "abs(charge_after_nanocredits - charge_before_nanocredits) DESC,"
    " abs(cost_after_nanousd - cost_before_nanousd) DESC, name"
)


class Difference(NamedTuple):
    """Sums of the changed records of a model or wallet, before and after."""

    name: str
    records: int
    cost_before_nanousd: int
    cost_after_nanousd: int
    charge_before_nanocredits: int
    charge_after_nanocredits: int


class Largest(NamedTuple):
    """The largest differences of a kind, and their total number."""

    shown: list[Difference]
    rest: Difference
    """Sum of the rest; its name states their number."""
    number: int


class DifferenceSums:
    """Sums over corrections. Call `close` when done."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {setting}")
        # STRICT: a sum past 64 bits is an error, not a floating-point number.
        self._database.execute(
            f"CREATE TABLE sums (kind TEXT, name TEXT, {', '.join(f'{name} INTEGER' for name in _SUMS)},"
            " PRIMARY KEY (kind, name)) STRICT, WITHOUT ROWID"
        )

    def close(self) -> None:
        """Delete the sums."""
        self._database.close()

    def add(self, corrections: Iterable[Correction]) -> None:
        """Add the changes of corrections."""
        sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * len(_SUMS))
        for correction in corrections:
            before, after = correction.stored.call, correction.after
            cost_before, charge_before = _money(before, before.verdict)
            cost_after, charge_after = _money(after.call, after.verdict)
            row = (1, cost_before, cost_after, charge_before, charge_after)
            for key in ((_MODEL, _model(before, after.call)), (_WALLET, before.usage.wallet)):
                sums[key] = [a + b for a, b in zip(sums[key], row, strict=True)]
        self._database.execute("BEGIN")
        self._database.executemany(_ADD, [(*key, *figures) for key, figures in sorted(sums.items())])
        self._database.execute("COMMIT")

    def total(self) -> Difference:
        """Return the sums over everything."""
        return Difference("all", *self._database.execute(f"SELECT {_TOTALS} FROM sums WHERE kind = 'model'").fetchone())

    def by_model(self, limit: int) -> Largest:
        """Return the models with the largest differences; `a → b` if the price book now matches another model."""
        return self._largest(_MODEL, limit)

    def by_wallet(self, limit: int) -> Largest:
        """Return the wallets with the largest differences."""
        return self._largest(_WALLET, limit)

    def _largest(self, kind: str, limit: int) -> Largest:
        rows = self._database.execute(
            f"SELECT name, {', '.join(_SUMS)} FROM sums WHERE kind = ? ORDER BY {_LARGEST_FIRST} LIMIT ?", (kind, limit)
        )
        shown = [Difference(*row) for row in rows]
        in_shown = zip(*(row[1:] for row in shown), strict=True) if shown else ((0,),) * len(_SUMS)
        everything = f"SELECT count(*), {_TOTALS} FROM sums WHERE kind = ?"
        number, *totals = self._database.execute(everything, (kind,)).fetchone()
        rest = [total - sum(column) for total, column in zip(totals, in_shown, strict=True)]
        return Largest(shown, Difference(f"{number - len(shown)} others", *rest), number)


def _money(call: PricedUsage, verdict: Verdict) -> tuple[int, int]:
    """Return cost and charge of a call; 0 unless it is charged."""
    if verdict is not Verdict.CHARGED:
        return 0, 0
    return call.cost_nanousd or 0, call.charge_nanocredits or 0


def _model(before: PricedUsage, after: PricedUsage) -> str:
    old, new = f"{before.provider}/{before.model}", f"{after.provider}/{after.model}"
    return old if old == new else f"{old} → {new}"
