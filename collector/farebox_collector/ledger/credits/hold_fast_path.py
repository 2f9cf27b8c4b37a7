"""Take plain holds on one wallet in one statement and one round trip; PostgreSQL only.

On a busy wallet all transactions wait for its lock, and the one that holds it waits for the network between statements.
Here the lock is held for one statement and its commit. In any other case the statement changes nothing and
`holds.take_holds` decides: too few or expired credits, a known key or action, a policy for the wallet, a hold for a
department, an expired hold of the wallet.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from farebox_collector.ledger.credits.hold_release import HoldState
from farebox_collector.ledger.credits.holds import Held, HoldRequest
from farebox_collector.ledger.credits.policies import EACH
from farebox_collector.ledger.credits.spending import LimitScope
from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.model.money import Commodity

# A statement that waited for the account checks its condition again, on the newest version.
_TAKE = f"""
WITH wanted AS (
    SELECT * FROM unnest(%(keys)s::text[], %(requests)s::text[], %(events)s::text[], %(actions)s::text[],
                         %(amounts)s::bigint[], %(expiries)s::bigint[])
        AS wanted(key, request, event, action_id, amount_nano, expires_at_ns)
), taken AS (
    UPDATE accounts SET held_nano = held_nano + (SELECT sum(amount_nano)::bigint FROM wanted),
           holds_until_ns = greatest(holds_until_ns, (SELECT max(expires_at_ns) FROM wanted))
    WHERE tenant_id = %(tenant_id)s AND kind = '{WALLET}' AND name = %(wallet)s AND commodity = '{Commodity.CREDIT}'
      AND balance_nano - held_nano >= (SELECT sum(amount_nano) FROM wanted)
      AND NOT EXISTS (SELECT 1 FROM lots WHERE tenant_id = %(tenant_id)s AND wallet = %(wallet)s
                      AND remaining_nano > 0 AND expires_at_ns <= %(at_ns)s)
      AND NOT EXISTS (SELECT 1 FROM holds WHERE tenant_id = %(tenant_id)s AND wallet = %(wallet)s
                      AND state = '{HoldState.OPEN}' AND expires_at_ns <= %(at_ns)s)
      AND NOT EXISTS (SELECT 1 FROM spending_policies WHERE tenant_id = %(tenant_id)s
                      AND scope = '{LimitScope.WALLET}' AND name IN (%(wallet)s, '{EACH}'))
      AND NOT EXISTS (SELECT 1 FROM holds WHERE tenant_id = %(tenant_id)s AND idempotency_key = ANY(%(keys)s::text[]))
      AND NOT EXISTS (SELECT 1 FROM holds WHERE tenant_id = %(tenant_id)s AND wallet = %(wallet)s
                      AND action_id = ANY(%(actions)s::text[]))
    RETURNING balance_nano - held_nano AS available_nano
)
INSERT INTO holds (tenant_id, wallet, idempotency_key, request, event, action_id, amount_nano, open_nano, state,
                   created_at_ns, expires_at_ns)
SELECT %(tenant_id)s, %(wallet)s, key, request, event, action_id, amount_nano, amount_nano, '{HoldState.OPEN}',
       %(at_ns)s, expires_at_ns
FROM wanted, taken
RETURNING id, idempotency_key, (SELECT available_nano FROM taken)
"""


def are_plain(wanted: Sequence[HoldRequest]) -> bool:
    """Return whether one statement can take all: one wallet, no user, department or project, no key or action twice."""
    actions = [request.action_id for request in wanted if request.action_id]
    return (
        len({request.wallet for request in wanted}) == 1
        and len({request.idempotency_key for request in wanted}) == len(wanted)
        and len(set(actions)) == len(actions)
        and not any(request.user_id or request.dept or request.project for request in wanted)
    )


def take_plain_holds(
    connection: Connection, tenant_id: int, wanted: Sequence[HoldRequest], at_ns: int
) -> list[Held] | None:
    """Take holds for all plain requests, in order. Return None if any needs individual handling; nothing is held."""
    expiries = [at_ns + request.expires_in_s * 10**9 for request in wanted]
    parameters: dict[str, Any] = {
        "tenant_id": tenant_id,
        "wallet": wanted[0].wallet,
        "at_ns": at_ns,
        "keys": [request.idempotency_key for request in wanted],
        "requests": [request.text() for request in wanted],
        "events": [request.event for request in wanted],
        "actions": [request.action_id or None for request in wanted],
        "amounts": [request.amount_nanocredits for request in wanted],
        "expiries": expiries,
    }
    try:
        rows = connection.exec_driver_sql(_TAKE, parameters).all()
    except IntegrityError:
        return None  # Another replica took one of them concurrently.
    if not rows:
        return None
    ids = {key: hold_id for hold_id, key, _ in rows}
    left = rows[0][2]
    answers = []
    for request, expires_at_ns in zip(reversed(wanted), reversed(expiries), strict=True):
        answers.append(Held(ids[request.idempotency_key], left, expires_at_ns, False))
        left += request.amount_nanocredits
    return answers[::-1]
