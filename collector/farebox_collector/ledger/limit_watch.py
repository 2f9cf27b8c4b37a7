"""Telling who passed a limit, once for each limit and period: by a hold at once, by usage within a minute."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, literal, select, true

from farebox_collector.ledger.day_tables import wallet_days
from farebox_collector.ledger.limit_tables import spending_days, spending_policies
from farebox_collector.ledger.limits import LimitReached, Period
from farebox_collector.ledger.policies import EACH, Policy, policies_in_force, policies_of, terms_of
from farebox_collector.ledger.spending import LimitScope, Spent, Subject, days_of_month, spent_of
from farebox_collector.ledger.webhooks import Message, enqueue
from farebox_collector.moments import format_ns
from farebox_collector.money import format_nano

LIMIT_PASSED = "limit.passed"
_MOST_WATCHED = 2_000
"""Most who are looked at together, of those for whom a policy of `*` may hold: who spent most."""
_MONTH, _DAY = len("2026-01"), len("2026-01-01")


def tell_of_limits(connection: Connection, tenant_id: int, passed: Iterable[LimitReached], at_ns: int) -> None:
    """Put into the outbox who passed which limit; what was told before in its period is not told again."""
    messages = {message.key: message for message in (_message(one, at_ns) for one in passed)}
    if messages:
        enqueue(connection, tenant_id, list(messages.values()), at_ns)


def _message(passed: LimitReached, at_ns: int) -> Message:
    subject = passed.subject
    period = format_ns(at_ns)[: _DAY if passed.period == "day" else _MONTH]
    data = {
        "scope": subject.scope,
        "name": subject.name,
        "user": subject.user_id,
        "limit": "soft" if passed.soft else "hard",
        "period": period,
        "limit_credits": format_nano(passed.limit_nano),
        "used_credits": format_nano(passed.limit_nano - passed.left_nano),
        "policy_id": str(passed.policy_id),
    }
    key = f"{passed.policy_id}/{data['limit']}/{period}/{subject.scope}/{subject.name}/{subject.user_id}"
    return Message(LIMIT_PASSED, key, data)


def tenants_with_policies(connection: Connection) -> Sequence[int]:
    """Tenants that have ever set a policy."""
    return connection.execute(select(spending_policies.c.tenant_id).distinct()).scalars().all()


def passed_limits(connection: Connection, tenant_id: int, at_ns: int) -> list[LimitReached]:
    """Every limit of a tenant that what was spent is past."""
    rows = policies_in_force(connection, tenant_id, at_ns, limit=_MOST_WATCHED)
    watched = set(_watched(connection, tenant_id, rows, at_ns))
    policies = policies_of(connection, tenant_id, watched, at_ns)
    spent = spent_of(connection, tenant_id, sorted(policies), at_ns)
    return [one for subject, policy in policies.items() for one in _past(subject, policy, spent[subject])]


def _past(subject: Subject, policy: Policy, spent: Spent) -> Iterator[LimitReached]:
    terms = policy.terms
    limits: tuple[tuple[Period, int | None, int, bool], ...] = (
        ("day", terms.day_limit_nano, spent.day, False),
        ("month", terms.month_limit_nano, spent.month, False),
        ("day", terms.soft_day_limit_nano, spent.day, True),
        ("month", terms.soft_month_limit_nano, spent.month, True),
    )
    for period, limit, gone, soft in limits:
        if limit is not None and gone > limit:
            yield LimitReached(policy.id, subject, period, limit, limit - gone, soft)


def _watched(connection: Connection, tenant_id: int, rows: Sequence[Any], at_ns: int) -> Iterator[Subject]:
    """Who may be past a limit: those who are named, and of those who are not whoever spent enough."""
    least: defaultdict[LimitScope, list[int]] = defaultdict(list)
    for row in rows:
        limits = [limit for limit in terms_of(row)[1:] if limit is not None]
        if not limits:
            continue
        if EACH in (row.name, row.user_id):
            least[LimitScope(row.scope)] += limits
        else:
            yield Subject(LimitScope(row.scope), row.name, row.user_id)
    for scope, limits in least.items():
        for name, user_id in connection.execute(_big_spenders(tenant_id, scope, min(limits), at_ns)):
            yield Subject(scope, name, user_id)


def _big_spenders(tenant_id: int, scope: LimitScope, more_than: int, at_ns: int) -> Select[Any]:
    """(name, user) of a scope who spent more than that in the month, most first."""
    names: tuple[Any, Any]
    chosen: ColumnElement[bool]
    if scope is LimitScope.WALLET:
        table, names, chosen = wallet_days.c, (wallet_days.c.wallet, literal("")), true()
    else:
        table, names = spending_days.c, (spending_days.c.name, spending_days.c.user_id)
        chosen = spending_days.c.scope == scope
    spent = func.sum(table.charge_nanocredits)
    return (
        select(*names)
        .where(table.tenant_id == tenant_id, table.day.in_(days_of_month(at_ns)), chosen)
        .group_by(names[0], *names[1:] if scope is not LimitScope.WALLET else ())
        .having(spent > more_than)
        .order_by(spent.desc())
        .limit(_MOST_WATCHED)
    )
