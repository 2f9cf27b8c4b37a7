"""Audit checks of credits; see `books_audit` for how a check is written."""

SECOND_NS = 10**9

_ACTIONS = """
    SELECT 'tenant ' || tenant_id || ', action ' || action_id,
           CASE WHEN sum(calls) = 0 THEN 0 WHEN sum(share) > max(floor) THEN sum(share) ELSE max(floor) END
           || ' for ' || sum(calls) || ' calls, shares of ' || sum(share),
           sum(charged) || ' for ' || sum(records) || ' calls, shares of ' || sum(shares)
    FROM (
        SELECT tenant_id, wallet, event, action_id, calls, share_nanocredits AS share, floor_nanocredits AS floor,
               0 AS charged, 0 AS records, 0 AS shares
        FROM charged_actions
        UNION ALL
        SELECT tenant_id, wallet, event, action_id, 0, 0, 0, charge_nanocredits, 1, action_share_nanocredits
        FROM usage_records WHERE action_share_nanocredits IS NOT NULL AND verdict = 'charged'
    ) both_sides
    GROUP BY tenant_id, wallet, event, action_id
    HAVING sum(calls) <> sum(records) OR sum(share) <> sum(shares) OR sum(charged) <>
        CASE WHEN sum(calls) = 0 THEN 0 WHEN sum(share) > max(floor) THEN sum(share) ELSE max(floor) END
"""

_FLOOR = """CAST(round(CAST(CASE WHEN u.kind = 'flat' THEN u.flat_credits ELSE u.minimum_credits END AS numeric)
        * 1000000000) AS bigint)"""
# 0 is for actions from before first calls were stored, and for those whose earlier calls could not be corrected.
_FLOORS = f"""
    SELECT 'tenant ' || a.tenant_id || ', action ' || a.action_id,
           max(CASE WHEN r.priced_at_ns = a.first_started_ns THEN {_FLOOR} END) || ' from ' || min(r.priced_at_ns),
           a.floor_nanocredits || ' from ' || a.first_started_ns
    FROM charged_actions a JOIN usage_records r ON r.tenant_id = a.tenant_id AND r.action_id = a.action_id
        AND r.wallet = a.wallet AND r.event = a.event AND r.action_share_nanocredits IS NOT NULL
        AND r.verdict = 'charged'
    JOIN charge_rules u ON u.id = r.rule_version_id
    WHERE a.calls > 0 AND a.first_started_ns > 0
    GROUP BY a.id, a.tenant_id, a.action_id, a.floor_nanocredits, a.first_started_ns
    HAVING min(r.priced_at_ns) <> a.first_started_ns
        OR max(CASE WHEN r.priced_at_ns = a.first_started_ns THEN {_FLOOR} END) <> a.floor_nanocredits
"""

_HOLDS = """
    SELECT 'wallet ' || name, sum(open), sum(held)
    FROM (
        SELECT tenant_id, name, 0 AS open, held_nano AS held FROM accounts WHERE kind = 'wallet'
        UNION ALL
        SELECT tenant_id, wallet, open_nano, 0 FROM holds WHERE state = 'open'
    ) both_sides
    GROUP BY tenant_id, name HAVING sum(open) <> sum(held)
"""

_HOLD_AMOUNTS = """
    SELECT 'hold ' || id, amount_nano || ' less ' || settled_nano, open_nano || ' open, ' || state
    FROM holds
    WHERE state IN ('open', 'settled') AND open_nano <> CASE WHEN settled_nano < 0 THEN amount_nano
            WHEN settled_nano > amount_nano THEN 0 ELSE amount_nano - settled_nano END
        OR state = 'open' AND open_nano = 0 OR state IN ('voided', 'expired') AND open_nano <> 0
"""
# Only where all calls of an action arrived a second or more after its hold, and the hold has not ended. The join reads
# records first, each with its hold: finding records from a hold would read all of them.
_HOLD_CHARGES = f"""
    SELECT 'hold ' || h.id, sum(CASE WHEN r.verdict = 'charged' THEN r.charge_nanocredits ELSE 0 END), h.settled_nano
    FROM usage_records r CROSS JOIN holds h
    LEFT JOIN (SELECT usage_record_id, max(recorded_at_ns) AS newest_ns FROM corrections
        WHERE recorded_at_ns >= (SELECT min(created_at_ns) FROM holds WHERE state = 'open')
        GROUP BY usage_record_id) c ON c.usage_record_id = r.id
    WHERE h.tenant_id = r.tenant_id AND h.wallet = r.wallet AND h.action_id = r.action_id AND h.state = 'open'
        AND r.transaction_id >= (SELECT min(id) FROM transactions WHERE recorded_at_ns >=
            (SELECT min(created_at_ns) FROM holds WHERE state = 'open') - {3600 * SECOND_NS})
    GROUP BY h.id, h.settled_nano, h.created_at_ns, h.expires_at_ns
    HAVING sum(CASE WHEN r.verdict = 'charged' THEN r.charge_nanocredits ELSE 0 END) <> h.settled_nano
        AND min(r.received_at_ns) > h.created_at_ns + {SECOND_NS}
        AND max(r.received_at_ns) < h.expires_at_ns - {SECOND_NS}
        AND coalesce(max(c.newest_ns), 0) < h.expires_at_ns - {SECOND_NS}
"""

_SPENDERS = """
    SELECT scope || ' ' || name || CASE WHEN user_id <> '' THEN ', user ' || user_id ELSE '' END, sum(open), sum(held)
    FROM (
        SELECT tenant_id, scope, name, user_id, 0 AS open, held_nano AS held FROM spenders
        UNION ALL
        SELECT tenant_id, 'dept', dept, '', open_nano, 0 FROM holds WHERE state = 'open' AND dept <> ''
        UNION ALL
        SELECT tenant_id, 'project', project, '', open_nano, 0 FROM holds WHERE state = 'open' AND project <> ''
        UNION ALL
        SELECT tenant_id, 'user', wallet, user_id, open_nano, 0 FROM holds WHERE state = 'open' AND user_id <> ''
    ) both_sides
    GROUP BY tenant_id, scope, name, user_id HAVING sum(open) <> sum(held)
"""

_LOTS = """
    SELECT 'lot ' || l.id, (l.amount_nano + coalesce(sum(m.amount_nano), 0)) || ' left, '
           || coalesce(sum(m.recognised_nanousd), 0) || ' recognised, ' || coalesce(sum(m.returned_nanousd), 0)
           || ' returned', l.remaining_nano || ' left, ' || l.recognised_nanousd || ' recognised, '
           || l.returned_nanousd || ' returned'
    FROM lots l LEFT JOIN lot_moves m ON m.lot_id = l.id
    GROUP BY l.id, l.amount_nano, l.remaining_nano, l.recognised_nanousd, l.returned_nanousd, l.price_nanousd
    HAVING l.remaining_nano <> l.amount_nano + coalesce(sum(m.amount_nano), 0) OR l.remaining_nano < 0
        OR l.recognised_nanousd <> coalesce(sum(m.recognised_nanousd), 0)
        OR l.returned_nanousd <> coalesce(sum(m.returned_nanousd), 0)
        OR (l.remaining_nano = 0 AND l.price_nanousd <> l.recognised_nanousd + l.returned_nanousd)
"""
# Reads postings once, from the first that any wallet has not drawn up. CROSS fixes the order: SQLite would otherwise
# build its own index over all postings.
_DRAWN = """
    SELECT 'wallet ' || a.name, a.drawn_balance_nano || ', then ' || coalesce(m.moved, 0),
           (coalesce(l.remaining, 0) - a.overdraft_nano) || ', then ' || (a.balance_nano - a.drawn_balance_nano)
    FROM accounts a LEFT JOIN (SELECT tenant_id, wallet, sum(remaining_nano) AS remaining FROM lots
        GROUP BY tenant_id, wallet) l ON l.tenant_id = a.tenant_id AND l.wallet = a.name
    LEFT JOIN (
        SELECT w.id, sum(p.amount_nano) AS moved, sum(CASE WHEN w.drawn_posting_id = 0 AND EXISTS
               (SELECT 1 FROM transactions t WHERE t.id = p.transaction_id AND t.kind = 'deposit')
               THEN 0 ELSE p.amount_nano END) AS since
        FROM postings p CROSS JOIN accounts w
        WHERE p.id > (SELECT min(drawn_posting_id) FROM accounts WHERE kind = 'wallet')
            AND w.id = p.account_id AND w.kind = 'wallet' AND p.id > w.drawn_posting_id
        GROUP BY w.id
    ) m ON m.id = a.id
    WHERE a.kind = 'wallet' AND (coalesce(l.remaining, 0) - a.overdraft_nano <> a.drawn_balance_nano
        OR a.balance_nano - a.drawn_balance_nano <> coalesce(m.since, 0))
"""
_DEFERRED = """
    SELECT 'tenant ' || tenant_id, -sum(owed), sum(deferred)
    FROM (
        SELECT tenant_id, price_nanousd - recognised_nanousd - returned_nanousd AS owed, 0 AS deferred FROM lots
        UNION ALL
        SELECT tenant_id, 0, balance_nano FROM accounts WHERE kind = 'deferred'
    ) both_sides
    GROUP BY tenant_id HAVING sum(owed) + sum(deferred) <> 0
"""

CREDIT_CHECKS = (
    ("actions", "an action with a floor is charged the larger of its floor and the sum of its calls' shares", _ACTIONS),
    ("floors", "the floor of an action is set by the rule of the call that started first", _FLOORS),
    ("holds", "the held credits of a wallet are the sum of its open holds", _HOLDS),
    ("hold amounts", "an open hold is its amount less the net charge of its action", _HOLD_AMOUNTS),
    ("hold charges", "the settled amount of an open hold is the charge of its action's calls", _HOLD_CHARGES),
    ("spenders", "the held credits of users, departments and projects are the sum of their open holds", _SPENDERS),
    ("lots", "the rest of a lot is its amount plus its moves; the price of an empty lot is revenue or returned", _LOTS),
    (
        "drawn",
        "a wallet's balance is the rest of its lots less overdraft, plus movements since the last draw",
        _DRAWN,
    ),
    ("deferred", "deferred revenue is the price of unused credits", _DEFERRED),
)
