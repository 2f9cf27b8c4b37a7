"""The audit: recompute everything that is derived and name every mismatch.

Each check is one SQL statement that returns a row for each mismatch, so that what it costs in memory does not grow with
the books. An empty result is clean books. Checks that look at one transaction at a time can be run over the recent ones
alone: in their SQL `[[column]]` stands for "this transaction is among those".
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text

from farebox_collector.ledger.credit_checks import CREDIT_CHECKS
from farebox_collector.ledger.tables import TOKEN_COLUMNS, transactions

_IN_WINDOW = re.compile(r"\[\[([a-z._]+)\]\]")


class Check(NamedTuple):
    """One thing that must hold."""

    name: str
    meaning: str
    mismatches: str
    """SQL that returns (what, expected, found) for each mismatch."""

    @property
    def can_be_recent(self) -> bool:
        """Whether it can be run over some transactions alone."""
        return "[[" in self.mismatches

    def sql(self, window: "Window | None") -> str:
        """The statement over all transactions, or over those in a window."""
        chosen = "1 = 1" if window is None else r"\1 > :after AND \1 <= :upto"
        return _IN_WINDOW.sub(chosen, self.mismatches)


class Window(NamedTuple):
    """The transactions with after < id <= upto."""

    after: int
    upto: int


class Mismatch(NamedTuple):
    """Something in the books that contradicts something else in them."""

    check: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.check}: {self.what}: expected {self.expected}, found {self.found}"


class _Side(NamedTuple):
    """How a kind of leg reads from usage records: `{}` is where a correction's `_before` or `_after` goes."""

    kind: str
    account: str
    event: str
    rule: str
    amount: str

    def of_records(self) -> str:
        """The columns of this side, as records have them now."""
        return self._columns("", "1")

    def of_corrections(self, suffix: str, sign: str) -> str:
        """The columns of this side, as corrections `c` of records `r` had them."""
        return self._columns(suffix, sign)

    def _columns(self, suffix: str, sign: str) -> str:
        account, rule, amount = (part.format(suffix) for part in (self.account, self.rule, self.amount))
        return f"{account} AS account, {self.event} AS event, {rule} AS rule, {sign} * {amount} AS charged, {sign}"


def _records_against_legs(side: _Side) -> str:
    """What a transaction's records sum to against its legs, in both directions: nothing without its counterpart.

    What a transaction first posted for a record is what the record says now, less all that corrections made of it; the
    transaction of a correction posts what it changed.
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
            SELECT p.transaction_id, a.name, p.event, coalesce(p.rule_version_id, 0), 0, 0, -p.amount_nano, p.records
            FROM postings p JOIN accounts a ON a.id = p.account_id JOIN transactions t ON t.id = p.transaction_id
            WHERE t.kind IN ('usage', 'correction') AND a.kind = '{side.kind}' AND [[p.transaction_id]]
        ) both_sides
        GROUP BY transaction_id, account, event, rule
        HAVING sum(charged) <> sum(posted) OR sum(records) <> sum(legs)
    """


_CHARGES = _Side("wallet", "r.wallet", "r.event", "coalesce(rule_version_id{}, 0)", "charge_nanocredits{}")
_COSTS = _Side("provider", "provider{0} || '/' || model{0}", "''", "0", "cost_nanousd{}")


_TOTALLED = ("cost_nanousd", "charge_nanocredits", *TOKEN_COLUMNS)


def _records_against_totals() -> str:
    """The running totals against the records they sum up, a tenant and verdict."""
    columns = ", ".join(_TOTALLED)
    records = ", ".join(f"coalesce({name}, 0) AS {name}" for name in _TOTALLED)
    figures = " OR ".join(f"sum(side * {name}) <> 0" for name in ("requests", *_TOTALLED))
    return f"""
        SELECT 'tenant ' || tenant_id || ', ' || verdict,
               sum(records) || ' records', sum(records - side * requests) || ' requests, off by '
               || sum(side * cost_nanousd) || ' nanousd and ' || sum(side * charge_nanocredits) || ' nanocredits'
        FROM (
            SELECT tenant_id, verdict, 1 AS side, 1 AS records, 1 AS requests, {records}
            FROM usage_records
            UNION ALL
            SELECT tenant_id, verdict, 2 * reversed - 1, 0, requests, {columns} FROM usage_totals
        ) both_sides
        GROUP BY tenant_id, verdict HAVING {figures}
    """


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
        "balances",
        "every balance is the sum of its account's postings",
        "SELECT a.kind || ' ' || a.name, coalesce(sum(p.amount_nano), 0), a.balance_nano"
        " FROM accounts a LEFT JOIN postings p ON p.account_id = a.id"
        " GROUP BY a.id, a.kind, a.name, a.balance_nano HAVING coalesce(sum(p.amount_nano), 0) <> a.balance_nano",
    ),
    Check(
        "spent",
        "what a wallet has spent is what usage took from it",
        "SELECT 'wallet ' || a.name, coalesce(-sum(p.amount_nano), 0), a.spent_nano FROM accounts a"
        " LEFT JOIN (SELECT p.account_id, p.amount_nano FROM postings p JOIN transactions t"
        " ON t.id = p.transaction_id WHERE t.kind IN ('usage', 'correction')) p ON p.account_id = a.id"
        " WHERE a.kind = 'wallet'"
        " GROUP BY a.id, a.name, a.spent_nano HAVING coalesce(-sum(p.amount_nano), 0) <> a.spent_nano",
    ),
    Check(
        "calls",
        "every wallet has paid for as many calls as there are charged records of it",
        "SELECT 'wallet ' || a.name, coalesce(u.calls, 0), a.charged_calls FROM accounts a LEFT JOIN"
        " (SELECT tenant_id, wallet, count(*) AS calls FROM usage_records WHERE verdict = 'charged'"
        " GROUP BY tenant_id, wallet) u ON u.tenant_id = a.tenant_id AND u.wallet = a.name"
        " WHERE a.kind = 'wallet' AND coalesce(u.calls, 0) <> a.charged_calls",
    ),
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
        "corrections",
        "a record says what its newest correction made of it",
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
    *(Check(*check) for check in CREDIT_CHECKS),
    Check("totals", "running totals are the sums of the records", _records_against_totals()),
)


def audit(
    connection: Connection,
    progress: Callable[[int, int], None] = lambda done, total: None,
    window: Window | None = None,
) -> Iterator[Mismatch]:
    """Yield every mismatch in the books, or in the transactions of a window. `progress` is told (done, in all)."""
    checks = [check for check in CHECKS if window is None or check.can_be_recent]
    for done, check in enumerate(checks):
        progress(done, len(checks))
        for what, expected, found in connection.execute(text(check.sql(window)), window._asdict() if window else {}):
            yield Mismatch(check.name, str(what), str(expected), str(found))
    progress(len(checks), len(checks))


def last_transaction(connection: Connection, before_ns: int) -> int:
    """The newest transaction that was recorded before a moment; 0 if there is none."""
    newest = select(func.coalesce(func.max(transactions.c.id), 0)).where(transactions.c.recorded_at_ns < before_ns)
    return int(connection.execute(newest).scalar_one())
