"""Report exceeded limits once for each limit and period: on a hold at once, on usage within a minute."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, literal, or_, select, tuple_

from farebox_collector.ledger.credits.limits import LimitReached, Period
from farebox_collector.ledger.credits.policies import (
    EACH,
    Policy,
    policies_holding,
    policies_in_force,
    policies_of,
    terms_of,
)
from farebox_collector.ledger.credits.spending import (
    LimitScope,
    Spent,
    Subject,
    days_of_month,
    spent_of,
)
from farebox_collector.ledger.journal.outbox import Message, enqueue
from farebox_collector.ledger.tables.limits import spending_days, spending_policies
from farebox_collector.ledger.tables.rollups import wallet_days
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import format_nano

LIMIT_PASSED = "limit.passed"
_MOST_WATCHED = 2_000
"""Most policies, or spenders, checked in one step."""
_SCOPES = tuple(LimitScope)
_MONTH, _DAY = len("2026-01"), len("2026-01-01")


def report_limits(connection: Connection, tenant_id: int, passed: Iterable[LimitReached], at_ns: int) -> None:
    """Queue a message for each exceeded limit; a repeat within the same period is dropped."""
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
    """Return tenants that have ever set a policy."""
    return connection.execute(select(spending_policies.c.tenant_id).distinct()).scalars().all()


class Place(NamedTuple):
    """Progress of a walk over subjects that may exceed a limit; all before it are checked."""

    scope: int = -1
    """Index in `_SCOPES` of subjects under a `*` policy; -1 while policies that name a subject are checked."""
    policy_id: int = 0
    name: str = ""
    user_id: str = ""


START = Place()
"""The beginning of a walk."""


class Watched(NamedTuple):
    """Exceeded limits found by a step of a walk, and where the next step begins: START once the walk is over."""

    passed: list[LimitReached]
    upto: Place


def passed_limits(
    connection: Connection, tenant_id: int, at_ns: int, after: Place = START, most: int = _MOST_WATCHED
) -> Watched:
    """Find exceeded limits of a tenant: one step of a walk, over at most `most` policies or spenders."""
    if after.scope < 0:
        rows = policies_in_force(connection, tenant_id, at_ns, after.policy_id, most)
        subjects = [
            Subject(LimitScope(row.scope), row.name, row.user_id)
            for row in rows
            if EACH not in (row.name, row.user_id) and any(limit is not None for limit in terms_of(row)[1:])
        ]
        upto = Place(-1, rows[-1].id) if len(rows) == most else Place(0)
        return Watched(_passed(connection, tenant_id, subjects, at_ns), upto)
    scope = _SCOPES[after.scope]
    least = _least_of_each(connection, tenant_id, scope, at_ns)
    if least is not None:
        found = connection.execute(_big_spenders(tenant_id, scope, least, at_ns, after).limit(most)).all()
        subjects = [Subject(scope, name, user_id) for name, user_id in found]
        passed = _passed(connection, tenant_id, subjects, at_ns)
        if len(found) == most:
            return Watched(passed, after._replace(name=found[-1][0], user_id=found[-1][1]))
    else:
        passed = []
    following = after.scope + 1
    return Watched(passed, Place(following) if following < len(_SCOPES) else START)


def _passed(connection: Connection, tenant_id: int, subjects: Iterable[Subject], at_ns: int) -> list[LimitReached]:
    policies = policies_of(connection, tenant_id, subjects, at_ns)
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
    for period, limit, used, soft in limits:
        if limit is not None and used > limit:
            yield LimitReached(policy.id, subject, period, limit, limit - used, soft)


def _least_of_each(connection: Connection, tenant_id: int, scope: LimitScope, at_ns: int) -> int | None:
    """Return the lowest limit of the `*` policies in force for a scope; None if there is none."""
    holding = policies_holding(tenant_id, at_ns).subquery().c
    limits = (
        holding.day_limit_nano,
        holding.month_limit_nano,
        holding.soft_day_limit_nano,
        holding.soft_month_limit_nano,
    )
    of_each = (holding.scope == scope, or_(holding.name == EACH, holding.user_id == EACH))
    row = connection.execute(select(*map(func.min, limits)).where(*of_each)).one()
    return min((int(limit) for limit in row if limit is not None), default=None)


def _big_spenders(tenant_id: int, scope: LimitScope, more_than: int, at_ns: int, after: Place) -> Select[Any]:
    """Return a query of (name, user) of a scope that spent more than that this month, by name, after a place."""
    if scope is LimitScope.WALLET:
        wallet = wallet_days.c
        query = select(wallet.wallet, literal("")).where(wallet.wallet > after.name).group_by(wallet.wallet)
        of_month = (wallet.tenant_id == tenant_id, wallet.day.in_(days_of_month(at_ns)))
        spent = func.sum(wallet.charge_nanocredits)
        return query.where(*of_month).having(spent > more_than).order_by(wallet.wallet)
    table = spending_days.c
    names = (table.name, table.user_id)
    query = select(*names).where(tuple_(*names) > tuple_(after.name, after.user_id)).group_by(*names)
    of_month = (table.tenant_id == tenant_id, table.day.in_(days_of_month(at_ns)))
    spent = func.sum(table.charge_nanocredits)
    return query.where(*of_month, table.scope == scope).having(spent > more_than).order_by(*names)
