"""What the audit looks at in credits; see `audit` for how a check is written."""

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

_HOLDS = """
    SELECT 'wallet ' || name, sum(open), sum(held)
    FROM (
        SELECT tenant_id, name, 0 AS open, held_nano AS held FROM accounts WHERE kind = 'wallet'
        UNION ALL
        SELECT tenant_id, wallet, open_nano, 0 FROM holds WHERE state = 'open'
    ) both_sides
    GROUP BY tenant_id, name HAVING sum(open) <> sum(held)
"""

CREDIT_CHECKS = (
    ("actions", "an action with a floor is charged that, or the sum of its calls' shares where it is more", _ACTIONS),
    ("holds", "what is held of a wallet is the sum of its open holds", _HOLDS),
)
