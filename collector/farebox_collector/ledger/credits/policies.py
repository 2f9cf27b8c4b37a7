"""Spending policies: append-only versions of what a wallet, user, department or project may spend.

At any moment the newest version valid then is in force. So a version with an end is an exception; after it the version
before is in force again. A version without limits ends a policy. `*` applies to each subject without its own policy.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, func, insert, or_, select

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.access.erased import ERASED, is_erased
from farebox_collector.ledger.credits.spending import LimitScope, Subject
from farebox_collector.ledger.tables.limits import spending_policies
from farebox_collector.model.money import MAX_SUM_NANO, NANO

EACH = "*"
_MOST_NAMED = 300


class BadPolicy(ValueError):
    """An invalid policy; the message states the rule."""


class Terms(NamedTuple):
    """Limits of a policy; None is no limit."""

    hard_stop: bool = True
    """For a wallet: whether holds must not take it below zero."""
    day_limit_nano: int | None = None
    month_limit_nano: int | None = None
    soft_day_limit_nano: int | None = None
    """Exceeding it is reported; the hold is still granted."""
    soft_month_limit_nano: int | None = None


NO_LIMITS = Terms()


class Validity(NamedTuple):
    """Period of a version, half-open; None is from now, and without end."""

    from_ns: int | None = None
    to_ns: int | None = None


class Authorship(NamedTuple):
    """The author of a policy and the reason."""

    author: str
    reason: str


class Policy(NamedTuple):
    """A version in force."""

    id: int
    subject: Subject
    """As set: a name may be `*`."""
    terms: Terms


def set_policy(
    connection: Connection,
    tenant_id: int,
    subject: Subject,
    terms: Terms,
    authorship: Authorship,
    at_ns: int,
    validity: Validity = Validity(),  # noqa: B008  (immutable)
) -> int:
    """Set a policy from now or a later moment on; returns its version. Raises BadPolicy."""
    from_ns = at_ns if validity.from_ns is None else validity.from_ns
    _check(subject, terms)
    if from_ns < at_ns:
        raise BadPolicy("a policy must begin now or later; granted holds stay granted")
    if validity.to_ns is not None and validity.to_ns <= from_ns:
        raise BadPolicy("a policy must end after it begins")
    if subject.scope in (LimitScope.WALLET, LimitScope.USER) and is_erased(connection, tenant_id, subject.name):
        raise BadPolicy(ERASED)
    earlier = policies_of(connection, tenant_id, [subject], at_ns).get(subject)
    row = insert(spending_policies).values(
        tenant_id=tenant_id,
        **subject._asdict(),
        **(terms._asdict() | {"hard_stop": int(terms.hard_stop)}),
        valid_from_ns=from_ns,
        valid_to_ns=validity.to_ns,
        **authorship._asdict(),
        recorded_at_ns=at_ns,
    )
    key = connection.execute(row).inserted_primary_key
    assert key is not None
    after = {**terms._asdict(), "valid_from_ns": from_ns, "valid_to_ns": validity.to_ns, **authorship._asdict()}
    note(
        connection,
        tenant_id,
        "policy.set",
        "/".join(filter(None, subject)),
        at_ns,
        before=None if earlier is None else {"version": earlier.id, **earlier.terms._asdict()},
        after={**after, "version": int(key[0])},
    )
    return int(key[0])


def _check(subject: Subject, terms: Terms) -> None:
    if not subject.name:
        raise BadPolicy("a name is required")
    if (subject.scope is LimitScope.USER) is not bool(subject.user_id):
        raise BadPolicy("a user is required for the scope user and invalid otherwise")
    if not terms.hard_stop and subject.scope is not LimitScope.WALLET:
        raise BadPolicy("only a policy of the scope wallet can let holds go below zero")
    limits = (terms.day_limit_nano, terms.month_limit_nano, terms.soft_day_limit_nano, terms.soft_month_limit_nano)
    if any(limit is not None and not 0 <= limit <= MAX_SUM_NANO for limit in limits):
        raise BadPolicy(f"a limit must be 0 to {MAX_SUM_NANO // NANO:,} credits")


def policies_of(
    connection: Connection, tenant_id: int, subjects: Iterable[Subject], at_ns: int
) -> dict[Subject, Policy]:
    """Return the policy in force for each subject at a moment; subjects without one are left out."""
    wanted = list(subjects)
    holding: dict[Subject, Policy] = {}
    for start in range(0, len(wanted), _MOST_NAMED):
        # Valid versions in the order of setting: the last one of each subject is in force.
        for row in connection.execute(_named(tenant_id, wanted[start : start + _MOST_NAMED], at_ns)):
            policy = _policy(row)
            holding[policy.subject] = policy
    found = {}
    for subject in wanted:
        for candidate in _candidates(subject):
            if candidate in holding:
                found[subject] = holding[candidate]
                break
    return found


def policies_in_force(
    connection: Connection, tenant_id: int, at_ns: int, after_id: int = 0, limit: int = 1_000
) -> Sequence[Row[Any]]:
    """Return the versions in force at a moment, in the order of setting."""
    query = policies_holding(tenant_id, at_ns).where(spending_policies.c.id > after_id)
    return connection.execute(query.order_by(spending_policies.c.id).limit(limit)).all()


def policy_history(
    connection: Connection, tenant_id: int, subject: Subject, before_id: int | None = None, limit: int = 1_000
) -> Sequence[Row[Any]]:
    """Return all versions of one policy, newest first."""
    table = spending_policies.c
    query = select(spending_policies).where(
        table.tenant_id == tenant_id,
        table.scope == subject.scope,
        table.name == subject.name,
        table.user_id == subject.user_id,
    )
    if before_id is not None:
        query = query.where(table.id < before_id)
    return connection.execute(query.order_by(table.id.desc()).limit(limit)).all()


def terms_of(row: Row[Any]) -> Terms:
    """Return the terms of a version."""
    return Terms(*(getattr(row, name) for name in Terms._fields))._replace(hard_stop=bool(row.hard_stop))


def _candidates(subject: Subject) -> tuple[Subject, ...]:
    """Return the subjects whose policy may apply, the most specific first."""
    if subject.scope is not LimitScope.USER:
        return subject, subject._replace(name=EACH)
    return (
        subject,
        subject._replace(user_id=EACH),
        subject._replace(name=EACH),
        subject._replace(name=EACH, user_id=EACH),
    )


def _named(tenant_id: int, subjects: Sequence[Subject], at_ns: int) -> Select[Any]:
    """Return a query of valid versions that may apply to these subjects, in the order of setting."""
    table = spending_policies.c
    return (
        select(spending_policies)
        .where(
            table.tenant_id == tenant_id,
            table.scope.in_(sorted({subject.scope for subject in subjects})),
            table.name.in_(sorted({name for subject in subjects for name in (subject.name, EACH)})),
            table.user_id.in_(sorted({user for subject in subjects for user in (subject.user_id, EACH, "")})),
            *_valid(at_ns),
        )
        .order_by(table.id)
    )


def _valid(at_ns: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    table = spending_policies.c
    return table.valid_from_ns <= at_ns, or_(table.valid_to_ns.is_(None), table.valid_to_ns > at_ns)


def policies_holding(tenant_id: int, at_ns: int) -> Select[Any]:
    """Return a query of the newest valid version of each subject at a moment."""
    table = spending_policies.c
    newest = (
        select(func.max(table.id))
        .where(table.tenant_id == tenant_id, *_valid(at_ns))
        .group_by(table.scope, table.name, table.user_id)
    )
    return select(spending_policies).where(table.tenant_id == tenant_id, table.id.in_(newest))


def _policy(row: Row[Any]) -> Policy:
    return Policy(row.id, Subject(LimitScope(row.scope), row.name, row.user_id), terms_of(row))
