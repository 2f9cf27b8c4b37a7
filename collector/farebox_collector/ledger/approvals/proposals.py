"""Two-person approval: proposals that wait for a second person, and the policy of which changes need one.

A proposal states the exact change and never changes itself. Its row is locked for the decision, and the change is made
in the transaction that ends it: once or not at all. `changes` executes each kind.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, insert, select, update

from farebox_collector.ledger.access.actors import Actor, acting
from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.storage.locks import PEOPLE, lock_stripes
from farebox_collector.ledger.storage.pages import newest_first
from farebox_collector.ledger.tables.access import approval_policies, approval_votes, approvals
from farebox_collector.model.money import MAX_SUM_NANO, NANO

MOST_PENDING = 1_000
"""Most pending proposals of one tenant."""
MAX_EXPIRES_HOURS = 24 * 31
_HOUR_NS = 3600 * 10**9
_AT_ONCE = 500


class ProposalKind(StrEnum):
    """What a proposal changes."""

    MOVEMENT = "movement"
    PRICE = "price"
    RULE = "rule"
    POLICY = "policy"
    """The approval policy itself."""


class ProposalState(StrEnum):
    """ProposalState of a proposal."""

    PENDING = "pending"
    EXECUTED = "executed"
    REFUSED = "refused"
    EXPIRED = "expired"


class Policy(NamedTuple):
    """Which changes of a tenant need a second person."""

    movement_nanocredits: int | None = None
    """Movements of this size or more need approval; None: no movement does."""
    prices: bool = False
    rules: bool = False
    expires_hours: int = 72
    """Time until a pending proposal expires."""

    @property
    def is_on(self) -> bool:
        """Whether any change needs approval."""
        return self.movement_nanocredits is not None or self.prices or self.rules


class Proposal(NamedTuple):
    """A requested change."""

    kind: ProposalKind
    summary: str
    """One line to display."""
    change: Mapping[str, Any]
    """JSON of the exact change."""
    idempotency_key: str = ""
    """A repeated request under the same key finds the same proposal; empty for requests without a key."""
    size_nanocredits: int = 0
    """For a movement: credits moved, in either direction."""


class MustWait(Exception):
    """The change was not made; it needs a second person and must be proposed."""

    def __init__(self, proposal: Proposal) -> None:
        super().__init__(proposal.summary)
        self.proposal = proposal


class CannotDecide(Exception):
    """This caller must not decide the proposal; the message states the rule."""


class NotPending(Exception):
    """The proposal is no longer pending; the message states its state."""


class NoSuchApproval(Exception):
    """The tenant has no proposal of this number."""


class ProposalConflict(Exception):
    """The idempotency key was used before, for another proposal or one that is no longer pending."""


class BadApprovalPolicy(ValueError):
    """An invalid policy; the message states the rule."""


def policy_of(connection: Connection, tenant_id: int) -> Policy:
    """Return the approval policy of a tenant; by default no change needs approval."""
    table = approval_policies.c
    query = select(approval_policies).where(table.tenant_id == tenant_id).order_by(table.number.desc()).limit(1)
    row = connection.execute(query).first()
    if row is None:
        return Policy()
    return Policy(row.movement_nanocredits, bool(row.prices), bool(row.rules), row.expires_hours)


def set_policy(connection: Connection, tenant_id: int, policy: Policy, reason: str, author: str, at_ns: int) -> None:
    """Set the approval policy from now on. Raises BadApprovalPolicy."""
    least = policy.movement_nanocredits
    if least is not None and not 0 <= least <= MAX_SUM_NANO:
        raise BadApprovalPolicy(f"the threshold of movements must be 0 to {MAX_SUM_NANO // NANO:,} credits")
    if not 1 <= policy.expires_hours <= MAX_EXPIRES_HOURS:
        raise BadApprovalPolicy(f"proposals must expire after 1 to {MAX_EXPIRES_HOURS} hours")
    before = policy_of(connection, tenant_id)
    row = insert(approval_policies).values(
        tenant_id=tenant_id,
        number=_next_number(connection, approval_policies, tenant_id),
        movement_nanocredits=least,
        prices=int(policy.prices),
        rules=int(policy.rules),
        expires_hours=policy.expires_hours,
        author=author,
        reason=reason,
        recorded_at_ns=at_ns,
    )
    connection.execute(row)
    after = {**policy._asdict(), "reason": reason, "author": author}
    note(connection, tenant_id, "approval.policy", "", at_ns, before=before._asdict(), after=after)


def require_approval(connection: Connection, tenant_id: int, proposal: Proposal) -> None:
    """Raise MustWait for a change that needs a second person; call it in the change's transaction, after the change.

    The exception rolls back a change that has succeeded, so that only possible changes are proposed. The command line
    and the collector itself need no approval: they own the database.
    """
    if acting().name == "system" or acting().name.startswith("cli:"):
        return
    policy = policy_of(connection, tenant_id)
    least = policy.movement_nanocredits
    waits = {
        ProposalKind.MOVEMENT: least is not None and proposal.size_nanocredits >= least,
        ProposalKind.PRICE: policy.prices,
        ProposalKind.RULE: policy.rules,
        ProposalKind.POLICY: policy.is_on,
    }
    if waits[proposal.kind]:
        raise MustWait(proposal)


def propose(connection: Connection, tenant_id: int, proposal: Proposal, at_ns: int) -> Row[Any]:
    """Store a proposal; a repeated request finds the same one. Raises ProposalConflict."""
    table, who = approvals.c, acting()
    change = json.dumps(proposal.change, sort_keys=True)
    lock_stripes(connection, PEOPLE, [tenant_id])
    number = _next_number(connection, approvals, tenant_id)
    key = proposal.idempotency_key or f"#{number}"
    earlier = connection.execute(
        select(approvals).where(table.tenant_id == tenant_id, table.kind == proposal.kind, table.idempotency_key == key)
    ).first()
    if earlier is not None:
        if earlier.proposal != change or earlier.state != ProposalState.PENDING:
            raise ProposalConflict(
                f"this Idempotency-Key was used for proposal {earlier.number}, which is {earlier.state}"
            )
        return earlier
    waiting = select(func.count()).where(table.tenant_id == tenant_id, table.state == ProposalState.PENDING)
    if connection.execute(waiting).scalar_one() >= MOST_PENDING:
        raise ProposalConflict(f"{MOST_PENDING:,} proposals are pending already; decide some of them first")
    values = {
        "kind": proposal.kind.value,
        "summary": proposal.summary[:500],
        "proposal": change,
        "idempotency_key": key,
        "state": ProposalState.PENDING.value,
        # The holder of a key without a person is unknown: two people must agree.
        "needed": 1 if who.person else 2,
        "proposer": who.name,
        "proposer_person": who.person,
        "author": who.author,
        "proposed_at_ns": at_ns,
        "expires_at_ns": at_ns + policy_of(connection, tenant_id).expires_hours * _HOUR_NS,
        "reason": "",
        "result": "",
    }
    connection.execute(insert(approvals).values(tenant_id=tenant_id, number=number, **values))
    after = {"kind": proposal.kind.value, "summary": proposal.summary, "change": proposal.change}
    note(connection, tenant_id, "approval.propose", number, at_ns, after=after)
    return approval(connection, tenant_id, number)


def approve(
    connection: Connection, tenant_id: int, number: int, at_ns: int, execute: Callable[[Row[Any]], Any]
) -> Row[Any]:
    """Approve a proposal; the last required vote executes it in this transaction.

    Raises NoSuchApproval, NotPending, CannotDecide, and the errors of `execute`; nothing is changed then.
    """
    row, who = _pending(connection, tenant_id, number, at_ns), acting()
    votes = _votes(connection, tenant_id, number)
    if not _owns_the_database(who):
        if not who.person:
            raise CannotDecide("only a person can approve: log in, or use a key that belongs to a person")
        if row.proposer_person == who.person or row.proposer == who.name:
            raise CannotDecide("this is your own proposal: another person must approve it")
        if f"person:{who.person}" in votes:
            raise CannotDecide("you have approved this already: another person must approve it, too")
    voter = f"person:{who.person}" if who.person else who.name
    if voter not in votes:
        vote = {"approval": number, "voter": voter, "at_ns": at_ns}
        connection.execute(insert(approval_votes).values(tenant_id=tenant_id, **vote))
        votes.append(voter)
    after = {"kind": row.kind, "summary": row.summary, "approved_by": votes}
    note(connection, tenant_id, "approval.approve", number, at_ns, after=after)
    if len(votes) >= row.needed or _owns_the_database(who):
        result = execute(row)
        _end(connection, row, ProposalState.EXECUTED, at_ns, result=json.dumps(result))
        note(connection, tenant_id, "approval.execute", number, at_ns, after={"result": result})
    return approval(connection, tenant_id, number)


def refuse(connection: Connection, tenant_id: int, number: int, reason: str, at_ns: int) -> Row[Any]:
    """Refuse a proposal permanently, or withdraw your own. Raises NoSuchApproval, NotPending, CannotDecide."""
    row, who = _pending(connection, tenant_id, number, at_ns), acting()
    if not (who.person or row.proposer == who.name or _owns_the_database(who)):
        raise CannotDecide("only a person can refuse: log in, or use a key that belongs to a person")
    _end(connection, row, ProposalState.REFUSED, at_ns, reason=reason[:500])
    after = {"kind": row.kind, "summary": row.summary, "reason": reason[:500]}
    note(connection, tenant_id, "approval.refuse", number, at_ns, after=after)
    return approval(connection, tenant_id, number)


def expire(connection: Connection, at_ns: int) -> int:
    """Expire overdue proposals of all tenants, at most 500 in one call; returns how many."""
    table = approvals.c
    over = select(approvals).where(table.state == ProposalState.PENDING, table.expires_at_ns <= at_ns)
    rows = connection.execute(
        over.order_by(table.tenant_id, table.number).limit(_AT_ONCE).with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        _end(connection, row, ProposalState.EXPIRED, at_ns)
        after = {"kind": row.kind, "summary": row.summary}
        note(connection, row.tenant_id, "approval.expire", row.number, at_ns, after=after)
    return len(rows)


def approval(connection: Connection, tenant_id: int, number: int) -> Row[Any]:
    """Return a proposal. Raises NoSuchApproval."""
    table = approvals.c
    query = select(approvals).where(table.tenant_id == tenant_id, table.number == number)
    row = connection.execute(query).first()
    if row is None:
        raise NoSuchApproval(str(number))
    return row


def approvals_of(
    connection: Connection, tenant_id: int, state: str = "", before_number: int | None = None, limit: int = 100
) -> Sequence[Row[Any]]:
    """Return a tenant's proposals, newest first."""
    table = approvals.c
    chosen = [table.tenant_id == tenant_id, *([table.state == state] if state else [])]
    return newest_first(connection, approvals, table.number, *chosen, before=before_number, limit=limit)


def votes_of(connection: Connection, tenant_id: int, numbers: Sequence[int]) -> dict[int, list[str]]:
    """Return the voters of each of these proposals."""
    table = approval_votes.c
    found: dict[int, list[str]] = {number: [] for number in numbers}
    query = select(table.approval, table.voter).where(table.tenant_id == tenant_id, table.approval.in_(list(numbers)))
    for number, voter in connection.execute(query.order_by(table.approval, table.at_ns)):
        found[number].append(voter)
    return found


def _pending(connection: Connection, tenant_id: int, number: int, at_ns: int) -> Row[Any]:
    """Return a pending proposal, locked until the end of the transaction."""
    table = approvals.c
    query = select(approvals).where(table.tenant_id == tenant_id, table.number == number).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise NoSuchApproval(str(number))
    if row.state != ProposalState.PENDING:
        raise NotPending(f"proposal {number} is already {row.state}")
    if row.expires_at_ns <= at_ns:
        raise NotPending(f"proposal {number} has expired; propose it again")
    return row


def _votes(connection: Connection, tenant_id: int, number: int) -> list[str]:
    return votes_of(connection, tenant_id, [number])[number]


def _end(
    connection: Connection, row: Row[Any], state: ProposalState, at_ns: int, *, reason: str = "", result: str = ""
) -> None:
    table = approvals.c
    own_rows = (table.tenant_id == row.tenant_id, table.number == row.number)
    values = {"state": state.value, "ended_at_ns": at_ns, "reason": reason, "result": result}
    connection.execute(update(approvals).where(*own_rows).values(values))


def _next_number(connection: Connection, table: Any, tenant_id: int) -> int:
    lock_stripes(connection, PEOPLE, [tenant_id])
    newest = select(func.coalesce(func.max(table.c.number), 0)).where(table.c.tenant_id == tenant_id)
    return int(connection.execute(newest).scalar_one()) + 1


def _owns_the_database(who: Actor) -> bool:
    return who.name.startswith("cli:")
