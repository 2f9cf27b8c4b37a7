"""The audit: recompute everything that is derived and report every mismatch.

Each check of single transactions is one SQL statement that returns a row per mismatch. It runs over one range of
transactions after another (`[[column]]` in its SQL means "this transaction is in the range"), so that neither the time
in one snapshot nor memory grows with the books. Accounts and totals have modules of their own. No mismatches means that
the books are clean.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text

from farebox_collector.ledger.access.audit_log_chain import (
    CHAIN_CHECKS,
    Verified,
    compare_chains,
    not_noted,
)
from farebox_collector.ledger.audit.block_checks import BLOCK_CHECKS, blocks_of, compare_block
from farebox_collector.ledger.audit.bridge_checks import BRIDGE_CHECKS, compare_bridges
from farebox_collector.ledger.audit.checkpoints import CHUNK as _ACCOUNTS
from farebox_collector.ledger.audit.checkpoints import (
    Standing,
    accounts_after,
    standings,
    touched_accounts,
)
from farebox_collector.ledger.audit.credit_checks import CREDIT_CHECKS
from farebox_collector.ledger.audit.day_checks import DAY_CHECKS, compare_day, days_of
from farebox_collector.ledger.audit.lot_times import LOT_TIME_CHECKS, compare_lot_times
from farebox_collector.ledger.audit.payment_checks import PAYMENT_CHECKS, RETURN_CHECKS, compare_returns
from farebox_collector.ledger.audit.total_checks import compare_totals
from farebox_collector.ledger.credits.lot_rollups import LOT_DAY_CHECKS, compare_lot_days
from farebox_collector.ledger.journal.money_rollups import MONEY_CHECKS, compare_money_days
from farebox_collector.ledger.journal.posting_index import INDEX_CHECKS
from farebox_collector.ledger.storage.throttle import Pause, no_pause
from farebox_collector.ledger.tables.books import (
    accounts,
    postings,
    transactions,
    usage_records,
)
from farebox_collector.ledger.usage.claims import FIRST_SLOT
from farebox_collector.ledger.usage.cost_rollups import COST_CHECKS, compare_cost_days
from farebox_collector.ledger.usage.span_index import SPAN_INDEX_CHECKS
from farebox_collector.model.mismatches import Mismatch, Window

_IN_WINDOW = re.compile(r"\[\[([a-z._]+)\]\]")
_ROWS = 20_000
"""Approximate number of records, or postings, per range."""

Snapshot = Callable[[], AbstractContextManager[Connection]]
"""Opens a consistent snapshot of the books; each step of an audit reads one."""
Progress = Callable[[int, int], None]
"""Receives (done, in all)."""
Found = Callable[[Sequence[Standing], int], None]
"""Receives verified accounts, and up to which transaction."""


class Check(NamedTuple):
    """One invariant of the books."""

    name: str
    meaning: str
    mismatches: str = ""
    """SQL that returns (what, expected, found) for each mismatch; none if a module checks it in Python."""

    @property
    def by_transaction(self) -> bool:
        """Return whether it checks transactions one by one."""
        return "[[" in self.mismatches

    def run(self, connection: Connection, window: Window) -> Iterator[Mismatch]:
        """Yield every mismatch, or every one in a window."""
        statement = text(_IN_WINDOW.sub(window.condition, self.mismatches))
        bounds = {"after": window.after, "upto": window.upto} if self.by_transaction else {}
        for what, expected, found in connection.execute(statement, bounds):
            yield Mismatch(self.name, str(what), str(expected), str(found))


class _Side(NamedTuple):
    """How a kind of leg reads from usage records: `{}` is where a correction's `_before` or `_after` goes."""

    kind: str
    account: str
    event: str
    rule: str
    amount: str

    def of_records(self) -> str:
        """Return the columns of this side, as records have them now."""
        return self._columns("", "1")

    def of_corrections(self, suffix: str, sign: str) -> str:
        """Return the columns of this side, as corrections `c` of records `r` had them."""
        return self._columns(suffix, sign)

    def _columns(self, suffix: str, sign: str) -> str:
        account, rule, amount = (part.format(suffix) for part in (self.account, self.rule, self.amount))
        return f"{account} AS account, {self.event} AS event, {rule} AS rule, {sign} * {amount} AS charged, {sign}"


def _records_against_legs(side: _Side) -> str:
    """Return SQL that compares the sums of a transaction's records with its legs, in both directions.

    The first posting of a record equals its current amount less all its corrections; the transaction of a correction
    posts the change. Retired records count through the sums of their legs.
    """
    corrected = " UNION ALL ".join(
        f"""
            SELECT r.transaction_id, {side.of_corrections(suffix, sign)} AS records, 0 AS posted, 0 AS legs
            FROM usage_records r JOIN corrections c ON c.tenant_id = r.tenant_id AND c.usage_record_id = r.id
            WHERE r.corrections > 0 AND c.verdict{suffix} = 'charged' AND [[r.transaction_id]]
            UNION ALL
            SELECT c.transaction_id, {side.of_corrections(suffix, f"-({sign})")}, 0, 0
            FROM corrections c JOIN usage_records r ON r.id = c.usage_record_id
            WHERE c.verdict{suffix} = 'charged' AND [[c.transaction_id]]
        """
        for suffix, sign in (("_before", "1"), ("_after", "-1"))
    )
    return f"""
        SELECT 'transaction ' || coalesce(transaction_id, 0) || ', ' || account,
               sum(charged) || ' in ' || sum(records), sum(posted) || ' in ' || sum(legs)
        FROM (
            SELECT r.transaction_id, {side.of_records()} AS records, 0 AS posted, 0 AS legs
            FROM usage_records r WHERE r.verdict = 'charged' AND [[r.transaction_id]]
            UNION ALL {corrected}
            UNION ALL
            SELECT l.transaction_id, a.name, l.event, l.rule_version_id, l.amount_nano, l.records, 0, 0
            FROM retired_legs l JOIN accounts a ON a.id = l.account_id
            WHERE a.kind = '{side.kind}' AND [[l.transaction_id]]
            UNION ALL
            SELECT p.transaction_id, a.name, p.event, coalesce(p.rule_version_id, 0), 0, 0, -p.amount_nano, p.records
            FROM postings p JOIN accounts a ON a.id = p.account_id JOIN transactions t ON t.id = p.transaction_id
            WHERE t.kind IN ('usage', 'correction') AND a.kind = '{side.kind}' AND [[p.transaction_id]]
        ) both_sides
        GROUP BY transaction_id, account, event, rule
        HAVING sum(charged) <> sum(posted) OR sum(records) <> sum(legs)
    """


_CHARGES = _Side("wallet", "r.wallet", "r.event", "coalesce(rule_version_id{}, 0)", "charge_nanocredits{}")
_COSTS = _Side("provider", "provider{0} || '/' || model{0}", "''", "0", "cost_nanousd{}")


CHECKS = (
    Check(
        "legs",
        "the legs of every transaction sum to zero in each commodity",
        "SELECT 'transaction ' || transaction_id || ' in ' || commodity, 0, sum(amount_nano)"
        " FROM postings WHERE [[transaction_id]] GROUP BY transaction_id, commodity HAVING sum(amount_nano) <> 0",
    ),
    Check(
        "commodities",
        "every leg is in the commodity of its account",
        "SELECT 'posting ' || p.id, a.commodity, p.commodity"
        " FROM postings p JOIN accounts a ON a.id = p.account_id WHERE a.commodity <> p.commodity"
        " AND [[p.transaction_id]]",
    ),
    Check(
        "origins",
        "every leg has an existing account and transaction",
        "SELECT 'posting ' || p.id, 'account ' || p.account_id || ', transaction ' || p.transaction_id,"
        " CASE WHEN a.id IS NULL THEN 'no account' ELSE 'an account' END ||"
        " CASE WHEN t.id IS NULL THEN ', no transaction' ELSE ', a transaction' END"
        " FROM postings p LEFT JOIN accounts a ON a.id = p.account_id LEFT JOIN transactions t"
        " ON t.id = p.transaction_id WHERE (a.id IS NULL OR t.id IS NULL) AND [[p.transaction_id]]",
    ),
    Check("balances", "every balance is the sum of its account's postings"),
    Check("spent", "the spent credits of a wallet are what usage took from it"),
    Check("calls", "the calls of every account are those that the legs of its charged records sum up"),
    Check(
        "charges",
        "charged records sum to the CREDIT legs of their transaction",
        _records_against_legs(_CHARGES),
    ),
    Check(
        "costs",
        "charged records sum to the USD legs of their transaction",
        _records_against_legs(_COSTS),
    ),
    Check(
        "verdicts",
        "a record has a cost, a charge, prices and a rule if it was charged, and none of them if not",
        "SELECT 'usage record ' || id, CASE verdict WHEN 'charged' THEN 'amounts' ELSE 'no amounts' END, verdict"
        " FROM usage_records WHERE [[transaction_id]] AND CASE verdict WHEN 'charged' THEN"
        " cost_nanousd IS NULL OR charge_nanocredits IS NULL OR price_version_ids = '' OR rule_version_id IS NULL"
        " ELSE cost_nanousd IS NOT NULL OR charge_nanocredits IS NOT NULL OR call_key IS NOT NULL END",
    ),
    Check(
        "claims",
        "a record charged for a call with a response id has claimed the call",
        "SELECT 'usage record ' || r.id, 'a claim', 'none' FROM usage_records r LEFT JOIN call_claims c"
        f" ON c.tenant_id = r.tenant_id AND c.slot = {FIRST_SLOT} AND c.call_key = r.call_key"
        " AND c.usage_record_id = r.id WHERE r.call_key IS NOT NULL AND c.slot IS NULL AND [[r.transaction_id]]",
    ),
    Check(
        "corrections",
        "a record has the values of its newest correction",
        "SELECT 'usage record ' || r.id, r.corrections || ' corrections, ' || coalesce(c.verdict_after, 'none'),"
        " (SELECT count(*) FROM corrections n WHERE n.tenant_id = r.tenant_id AND n.usage_record_id = r.id)"
        " || ' corrections, ' || r.verdict FROM usage_records r LEFT JOIN corrections c ON c.tenant_id = r.tenant_id"
        " AND c.usage_record_id = r.id AND c.number = r.corrections WHERE r.corrections > 0 AND [[r.transaction_id]]"
        " AND (c.id IS NULL OR c.verdict_after <> r.verdict"
        " OR coalesce(c.cost_nanousd_after, 0) <> coalesce(r.cost_nanousd, 0)"
        " OR coalesce(c.charge_nanocredits_after, 0) <> coalesce(r.charge_nanocredits, 0)"
        " OR r.corrections <> (SELECT count(*) FROM corrections n WHERE n.tenant_id = r.tenant_id"
        " AND n.usage_record_id = r.id))",
    ),
    Check(
        "retired",
        "every retired record has a tombstone, which makes a repeated span a duplicate",
        "SELECT 'tenant ' || tenant_id, sum(records), sum(spans) FROM ("
        " SELECT tenant_id, requests AS records, 0 AS spans FROM retired_totals UNION ALL"
        " SELECT tenant_id, 0, count(*) FROM retired_spans GROUP BY tenant_id"
        ") both_sides GROUP BY tenant_id HAVING sum(records) <> sum(spans)",
    ),
    *(Check(*check) for check in (*INDEX_CHECKS, *SPAN_INDEX_CHECKS)),
    *(Check(*check) for check in CREDIT_CHECKS),
    *(Check(*check) for check in DAY_CHECKS),
    *(Check(*check) for check in BLOCK_CHECKS),
    *(Check(*check) for check in MONEY_CHECKS),
    *(Check(*check) for check in PAYMENT_CHECKS),
    *(Check(*check) for check in RETURN_CHECKS),
    *(Check(*check) for check in LOT_TIME_CHECKS),
    *(Check(*check) for check in LOT_DAY_CHECKS),
    *(Check(*check) for check in BRIDGE_CHECKS),
    *(Check(*check) for check in COST_CHECKS),
    *(Check(*check) for check in CHAIN_CHECKS),
    Check("totals", "running totals are the sums of the records"),
    Check("intake", "every span received by the books has a verdict, and the kept ones are the records"),
)


_EVERYTHING = Window(0, 0, inside=False)


def audit(
    connection: Connection, progress: Progress = lambda done, total: None, pause: Pause = no_pause
) -> Iterator[Mismatch]:
    """Yield every mismatch in the books, as they are in the snapshot of this connection."""
    return audit_all(lambda: nullcontext(connection), 0, progress, pause=pause)


def audit_all(
    snapshot: Snapshot,
    settled_upto: int,
    progress: Progress = lambda done, total: None,
    confirm: Found = lambda standing, upto: None,
    pause: Pause = no_pause,
    verified: Verified = not_noted,
) -> Iterator[Mismatch]:
    """Yield every mismatch in the books. `confirm` receives accounts, whose checkpoints may move to `settled_upto`.

    `verified` receives the verified end of each chain of the audit log. `pause` is called between pieces; an
    exception that it raises ends the audit.
    """
    with snapshot() as connection:
        newest, last_account, last_record = (
            int(connection.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one())
            for table in (transactions, accounts, usage_records)
        )
    total = newest + last_account + last_record
    window = Window(0, 0)
    while window.upto < newest:
        with snapshot() as connection:
            window = _next_window(connection, window.upto, newest)
            yield from _audit_transactions(connection, window)
        progress(window.upto, total)
        pause()
    with snapshot() as connection:
        # Rows that name a missing transaction, and rows added in the meantime.
        yield from _audit_transactions(connection, Window(0, newest, inside=False))
    account_id = 0
    while True:
        with snapshot() as connection:
            chunk = accounts_after(connection, account_id)
            if not chunk:
                break
            yield from _audit_accounts(connection, chunk, settled_upto, confirm, from_scratch=True)
        account_id = chunk[-1]
        progress(newest + min(account_id, last_account), total)
        pause()
    for check in CHECKS:
        if check.mismatches and not check.by_transaction:
            with snapshot() as connection:
                yield from check.run(connection, _EVERYTHING)
            pause()
    yield from _audit_days(snapshot, pause)

    def read_so_far(read: int) -> None:
        progress(newest + last_account + read, total + read)
        pause()

    with snapshot() as connection:
        yield from compare_money_days(connection)
    pause()
    with snapshot() as connection:
        yield from compare_cost_days(connection)
    pause()
    with snapshot() as connection:
        yield from compare_chains(connection, verified)
    pause()
    with snapshot() as connection:
        yield from compare_returns(connection)
    pause()
    for compare in (compare_lot_times, compare_lot_days, compare_bridges):
        with snapshot() as connection:
            yield from compare(connection)
        pause()
    with snapshot() as connection:
        yield from compare_totals(connection, read_so_far)
    progress(total, total)


def audit_recent(
    snapshot: Snapshot, after: int, upto: int, confirm: Found, verified: Verified = not_noted
) -> Iterator[Mismatch]:
    """Yield every mismatch in the transactions with after < id <= upto, and in the accounts that they touched.

    `verified` receives the verified end of each chain of the audit log.
    """
    with snapshot() as connection:
        yield from compare_chains(connection, verified, from_scratch=False)
    window = Window(after, after)
    while window.upto < upto:
        with snapshot() as connection:
            window = _next_window(connection, window.upto, upto)
            yield from _audit_transactions(connection, window)
            touched = touched_accounts(connection, window)
            for start in range(0, len(touched), _ACCOUNTS):
                chunk = touched[start : start + _ACCOUNTS]
                yield from _audit_accounts(connection, chunk, upto, confirm, from_scratch=False)


def _audit_days(snapshot: Snapshot, pause: Pause) -> Iterator[Mismatch]:
    for periods_of, compare in ((days_of, compare_day), (blocks_of, compare_block)):
        with snapshot() as connection:
            periods = periods_of(connection)
        for tenant_id, period in periods:
            with snapshot() as connection:
                yield from compare(connection, tenant_id, period)
            pause()


def _audit_transactions(connection: Connection, window: Window) -> Iterator[Mismatch]:
    for check in CHECKS:
        if check.by_transaction:
            yield from check.run(connection, window)


def _audit_accounts(
    connection: Connection, account_ids: Sequence[int], upto: int, confirm: Found, *, from_scratch: bool
) -> Iterator[Mismatch]:
    clean = []
    for standing in standings(connection, account_ids, upto, from_scratch=from_scratch):
        mismatches = list(standing.mismatches())
        yield from mismatches
        if not mismatches:
            clean.append(standing)
    confirm(clean, upto)


def _next_window(connection: Connection, after: int, upto: int) -> Window:
    """Return the next transactions with about `_ROWS` rows, at least one transaction."""
    ends = [upto]
    for table in (usage_records, postings):
        column = table.c.transaction_id
        following = select(column).where(column > after, column <= upto).order_by(column).offset(_ROWS).limit(1)
        ends += connection.execute(following).scalars()
    return Window(after, min(ends))


def last_transaction(connection: Connection, before_ns: int) -> int:
    """Return the newest transaction recorded before a time; 0 if there is none."""
    newest = select(func.coalesce(func.max(transactions.c.id), 0)).where(transactions.c.recorded_at_ns < before_ns)
    return int(connection.execute(newest).scalar_one())
