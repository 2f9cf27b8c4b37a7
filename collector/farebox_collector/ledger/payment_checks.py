"""What the audit looks at in payments; see `audit` for how a check is written."""

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
    SELECT 'tenant ' || tenant_id || ', ' || kind, sum(told), sum(booked)
    FROM (
        SELECT tenant_id, 'fees' AS kind, fee_nanousd AS told, 0 AS booked FROM payment_fees
        UNION ALL
        SELECT tenant_id, 'refunded', back_nanousd - deferred_nanousd, 0 FROM payment_returns WHERE taken = 1
        UNION ALL
        SELECT tenant_id, kind, 0, balance_nano FROM accounts WHERE kind IN ('fees', 'refunded')
    ) both_sides
    GROUP BY tenant_id, kind HAVING sum(told) <> sum(booked)
"""

PAYMENT_CHECKS = (
    ("top-ups", "a top-up that is paid, and no other, has a lot with its credits and its price", _TOPUPS),
    ("payments", "fees and refunds of used credits are what the payment provider told", _PAYMENTS),
)
