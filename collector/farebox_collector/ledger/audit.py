"""The audit: recompute everything that is derived and name every mismatch.

Each check is one SQL statement that returns a row for each mismatch, so that what it costs in memory does not grow with
the books. An empty result is clean books.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, text


class Check(NamedTuple):
    """One thing that must hold."""

    name: str
    meaning: str
    mismatches: str
    """SQL that returns (what, expected, found) for each mismatch."""


class Mismatch(NamedTuple):
    """Something in the books that contradicts something else in them."""

    check: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.check}: {self.what}: expected {self.expected}, found {self.found}"


_USAGE_LEGS = """
    SELECT p.transaction_id, a.name AS account, p.event AS event, coalesce(p.rule_version_id, 0) AS rule,
           sum(p.amount_nano) AS amount, sum(p.records) AS records
    FROM postings p JOIN accounts a ON a.id = p.account_id JOIN transactions t ON t.id = p.transaction_id
    WHERE t.kind = 'usage' AND a.kind = '{kind}' GROUP BY 1, 2, 3, 4
"""
_USAGE_SUMS = """
    SELECT transaction_id, {account} AS account, {event} AS event, {rule} AS rule,
           -sum({amount}) AS amount, count(*) AS records
    FROM usage_records WHERE verdict = 'charged' GROUP BY 1, 2, 3, 4
"""


def _records_against_legs(kind: str, account: str, event: str, rule: str, amount: str) -> str:
    """Both directions of a full comparison: records without their leg, and legs without their records."""
    sums = _USAGE_SUMS.format(account=account, event=event, rule=rule, amount=amount)
    legs = _USAGE_LEGS.format(kind=kind)
    key = "USING (transaction_id, account, event, rule)"
    what = "'transaction ' || transaction_id || ', ' || account"
    return f"""
        SELECT {what}, s.amount || ' in ' || s.records, coalesce(l.amount || ' in ' || l.records, 'no leg')
        FROM ({sums}) s LEFT JOIN ({legs}) l {key}
        WHERE l.amount IS NULL OR l.amount <> s.amount OR l.records <> s.records
        UNION ALL
        SELECT {what}, 'no leg', l.amount || ' in ' || l.records
        FROM ({legs}) l LEFT JOIN ({sums}) s {key} WHERE s.amount IS NULL
    """


CHECKS = (
    Check(
        "legs",
        "the legs of every transaction sum to zero in each commodity",
        "SELECT 'transaction ' || transaction_id || ' in ' || commodity, 0, sum(amount_nano)"
        " FROM postings GROUP BY transaction_id, commodity HAVING sum(amount_nano) <> 0",
    ),
    Check(
        "commodities",
        "every leg is in the commodity of its account",
        "SELECT 'posting ' || p.id, a.commodity, p.commodity"
        " FROM postings p JOIN accounts a ON a.id = p.account_id WHERE a.commodity <> p.commodity",
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
        " ON t.id = p.transaction_id WHERE t.kind = 'usage') p ON p.account_id = a.id WHERE a.kind = 'wallet'"
        " GROUP BY a.id, a.name, a.spent_nano HAVING coalesce(-sum(p.amount_nano), 0) <> a.spent_nano",
    ),
    Check(
        "charges",
        "charged records sum to the CREDIT legs of their transaction",
        _records_against_legs("wallet", "wallet", "event", "coalesce(rule_version_id, 0)", "charge_nanocredits"),
    ),
    Check(
        "costs",
        "charged records sum to the USD legs of their transaction",
        _records_against_legs("provider", "provider || '/' || model", "''", "0", "cost_nanousd"),
    ),
    Check(
        "verdicts",
        "a record has a cost, a charge, prices and a rule if and only if it was charged",
        "SELECT 'usage record ' || id, 'amounts iff charged', verdict FROM usage_records"
        " WHERE (verdict = 'charged') <> (cost_nanousd IS NOT NULL AND charge_nanocredits IS NOT NULL"
        " AND price_version_ids <> '' AND rule_version_id IS NOT NULL)",
    ),
    Check(
        "totals",
        "running totals are the sums of the records",
        "SELECT 'tenant ' || tenant_id || ', ' || verdict, figures, total FROM ("
        " SELECT tenant_id, verdict, count(*) || ' requests, ' || coalesce(sum(cost_nanousd), 0) || ' nanousd, '"
        " || coalesce(sum(charge_nanocredits), 0) || ' nanocredits, ' || coalesce(sum(input_tokens), 0) || ' in, '"
        " || coalesce(sum(output_tokens), 0) || ' out' AS figures FROM usage_records GROUP BY tenant_id, verdict) r"
        " LEFT JOIN (SELECT tenant_id, verdict, sum(requests) || ' requests, ' || sum(cost_nanousd) || ' nanousd, '"
        " || sum(charge_nanocredits) || ' nanocredits, ' || sum(input_tokens) || ' in, ' || sum(output_tokens)"
        " || ' out' AS total FROM usage_totals GROUP BY tenant_id, verdict) t USING (tenant_id, verdict)"
        " WHERE coalesce(total, 'none') <> figures",
    ),
)


def audit(
    connection: Connection, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Mismatch]:
    """Yield every mismatch in the books. `progress` is told (checks done, checks in all)."""
    for done, check in enumerate(CHECKS):
        progress(done, len(CHECKS))
        for what, expected, found in connection.execute(text(check.mismatches)):
            yield Mismatch(check.name, str(what), str(expected), str(found))
    progress(len(CHECKS), len(CHECKS))
