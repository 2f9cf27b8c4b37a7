"""Audit checks of payments; see `books_audit` for how a check is written."""

from collections.abc import Iterator

from sqlalchemy import Connection

from farebox_collector.ledger.payments.refunds import due_now, out_now, topups_with_returns
from farebox_collector.model.mismatches import Mismatch

_TOPUPS = """
    SELECT 'top-up ' || t.key, CASE WHEN t.state = 'paid' THEN t.amount_nano || ' for ' || t.price_nanousd
           ELSE 'no lot, being ' || t.state END,
           coalesce(l.amount_nano || ' for ' || l.price_nanousd, 'no lot')
    FROM topups t LEFT JOIN lots l ON l.id = t.lot_id AND l.tenant_id = t.tenant_id AND l.wallet = t.wallet
        AND l.origin = 'topup'
    WHERE (t.state = 'paid' AND (l.id IS NULL OR l.amount_nano <> t.amount_nano OR l.price_nanousd <> t.price_nanousd))
        OR (t.state <> 'paid' AND t.lot_id IS NOT NULL)
    UNION ALL
    SELECT 'lot ' || l.id, 'a paid top-up', 'none'
    FROM lots l LEFT JOIN topups t ON t.lot_id = l.id LEFT JOIN transactions m ON m.id = l.transaction_id
    WHERE l.origin = 'topup' AND t.id IS NULL
        AND (m.kind IS NULL OR m.kind NOT IN ('refund_failed', 'dispute_won'))
"""
_PAYMENTS = """
    SELECT 'tenant ' || tenant_id || ', ' || kind, sum(stated), sum(booked)
    FROM (
        SELECT tenant_id, 'fees' AS kind, fee_nanousd AS stated, 0 AS booked FROM payment_fees
        UNION ALL
        SELECT tenant_id, 'refunded', back_nanousd, 0 FROM topups
        UNION ALL
        SELECT tenant_id, 'refunded', -out_nanousd, 0 FROM lots
        UNION ALL
        SELECT tenant_id, kind, 0, balance_nano FROM accounts WHERE kind IN ('fees', 'refunded')
    ) both_sides
    GROUP BY tenant_id, kind HAVING sum(stated) <> sum(booked)
"""
_DISPLACED = """
    SELECT 'wallet ' || wallet, sum(displaced_nano) || ' displaced, all paid', sum(lent_nano) || ' lent, overdraft of '
           || max(overdraft)
    FROM (
        SELECT l.tenant_id, l.wallet, l.displaced_nano, l.lent_nano, a.overdraft_nano AS overdraft
        FROM lots l JOIN accounts a ON a.tenant_id = l.tenant_id AND a.kind = 'wallet' AND a.name = l.wallet
        WHERE l.out_nano > 0 OR l.lent_nano > 0
    ) returned
    GROUP BY tenant_id, wallet
    HAVING sum(displaced_nano) < sum(lent_nano) OR sum(displaced_nano) > sum(lent_nano) + max(overdraft)
"""

PAYMENT_CHECKS = (
    ("top-ups", "every paid top-up, and no other, has a lot with its credits and its price", _TOPUPS),
    ("payments", "fees and refunds of used credits are what the payment provider reported", _PAYMENTS),
    ("displaced", "usage displaced by returned payments is paid by other lots, or is overdraft", _DISPLACED),
)
RETURN_CHECKS = (("returns", "what is out of a payment equals a new computation from its standing returns"),)


def compare_returns(connection: Connection) -> Iterator[Mismatch]:
    """Yield mismatches between what is out of a payment and what follows from its stored returns."""
    for topup in topups_with_returns(connection):
        if topup.returned_minor < 0:
            continue  # migrated from an older version, and not recomputed yet
        due, found = due_now(connection, topup), out_now(connection, topup)
        if found != due:
            names = ("minor units returned", "nanocredits", "nano-USD")
            expected, is_now = (
                ", ".join(f"{figure} {name}" for figure, name in zip(side, names, strict=True)) for side in (due, found)
            )
            yield Mismatch("returns", f"top-up {topup.key}", expected, is_now)
