"""Two-person approval: changes that wait until a second person agrees, and what of a tenant has to wait.

A proposal holds exactly what will be done, and never changes. Its row is locked while it is decided, and it is done in
the transaction that ends it: once, or not at all. `approved_changes` knows how each kind is done.
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
from farebox_collector.model.money import MAX_SUM_NANO

MOST_PENDING = 1_000
"""Most proposals of one tenant that wait at once."""
MAX_EXPIRES_HOURS = 24 * 31
_HOUR_NS = 3600 * 10**9
_AT_ONCE = 500


class Kind(StrEnum):
    """What a proposal changes."""

    MOVEMENT = "movement"
    PRICE = "price"
    RULE = "rule"
    POLICY = "policy"
    """What has to wait, itself."""


class State(StrEnum):
    """What has become of a proposal."""

    PENDING = "pending"
    EXECUTED = "executed"
    REFUSED = "refused"
    EXPIRED = "expired"


class Policy(NamedTuple):
    """What of a tenant waits for a second person."""

    movement_nanocredits: int | None = None
    """Movements of so many credits or more; None for none."""
    prices: bool = False
    rules: bool = False
    expires_hours: int = 72
    """How long a proposal waits."""

    @property
    def is_on(self) -> bool:
        """Whether anything waits."""
        return self.movement_nanocredits is not None or self.prices or self.rules


class Proposal(NamedTuple):
    """A change that was asked for."""

    kind: Kind
    summary: str
    """One line for people."""
    change: Mapping[str, Any]
    """JSON of exactly what is to be done."""
    idempotency_key: str = ""
    """Of two requests under the same key, the second is the first; empty for requests without one."""
    size_nanocredits: int = 0
    """Of a movement: how many credits it moves, in either direction."""


class MustWait(Exception):
    """The change was not made: it waits for a second person once it is proposed."""

    def __init__(self, proposal: Proposal) -> None:
        super().__init__(proposal.summary)
        self.proposal = proposal


class CannotDecide(Exception):
    """The proposal cannot be decided by this caller; the message says why."""


class NotPending(Exception):
    """The proposal waits no more; the message says what became of it."""


class NoSuchApproval(Exception):
    """The tenant has no proposal of this number."""


class ProposalConflict(Exception):
    """The idempotency key was used before, for another proposal, or for one that was refused or expired."""


class BadApprovalPolicy(ValueError):
    """A policy that cannot be; the message says why."""


def policy_of(connection: Connection, tenant_id: int) -> Policy:
    """What of a tenant waits; nothing, unless somebody said so."""
    table = approval_policies.c
    query = select(approval_policies).where(table.tenant_id == tenant_id).order_by(table.number.desc()).limit(1)
    row = connection.execute(query).first()
    if row is None:
        return Policy()
    return Policy(row.movement_nanocredits, bool(row.prices), bool(row.rules), row.expires_hours)


def set_policy(connection: Connection, tenant_id: int, policy: Policy, reason: str, author: str, at_ns: int) -> None:
    """Let this wait from now on. Raises BadApprovalPolicy."""
    least = policy.movement_nanocredits
    if least is not None and not 0 <= least <= MAX_SUM_NANO:
        raise BadApprovalPolicy("the threshold of movements is zero or more, and fits the books")
    if not 1 <= policy.expires_hours <= MAX_EXPIRES_HOURS:
        raise BadApprovalPolicy(f"a proposal waits for 1 to {MAX_EXPIRES_HOURS} hours")
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

    What the exception takes back was tried by then, so that only what can be done is proposed. The command line and the
    collector itself need nobody: they own the database.
    """
    if acting().name == "system" or acting().name.startswith("cli:"):
        return
    policy = policy_of(connection, tenant_id)
    least = policy.movement_nanocredits
    waits = {
        Kind.MOVEMENT: least is not None and proposal.size_nanocredits >= least,
        Kind.PRICE: policy.prices,
        Kind.RULE: policy.rules,
        Kind.POLICY: policy.is_on,
    }
    if waits[proposal.kind]:
        raise MustWait(proposal)


def propose(connection: Connection, tenant_id: int, proposal: Proposal, at_ns: int) -> Row[Any]:
    """Let a change wait; the same request again finds the same proposal. Raises ProposalConflict."""
    table, who = approvals.c, acting()
    change = json.dumps(proposal.change, sort_keys=True)
    lock_stripes(connection, PEOPLE, [tenant_id])
    number = _next_number(connection, approvals, tenant_id)
    key = proposal.idempotency_key or f"#{number}"
    earlier = connection.execute(
        select(approvals).where(table.tenant_id == tenant_id, table.kind == proposal.kind, table.idempotency_key == key)
    ).first()
    if earlier is not None:
        if earlier.proposal != change or earlier.state != State.PENDING:
            raise ProposalConflict(
                f"the Idempotency-Key is that of proposal {earlier.number}, which is {earlier.state}"
            )
        return earlier
    waiting = select(func.count()).where(table.tenant_id == tenant_id, table.state == State.PENDING)
    if connection.execute(waiting).scalar_one() >= MOST_PENDING:
        raise ProposalConflict(f"{MOST_PENDING:,} proposals wait already; decide some of them first")
    values = {
        "kind": proposal.kind.value,
        "summary": proposal.summary[:500],
        "proposal": change,
        "idempotency_key": key,
        "state": State.PENDING.value,
        # A key that belongs to no person may be in anyone's hands: two persons have to agree then.
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
    """Agree to a proposal; with the last person that is needed, `execute` does it, in this transaction.

    Raises NoSuchApproval, NotPending, CannotDecide, and what `execute` does: then nothing has changed.
    """
    row, who = _pending(connection, tenant_id, number, at_ns), acting()
    votes = _votes(connection, tenant_id, number)
    if not _owns_the_database(who):
        if not who.person:
            raise CannotDecide("only a person approves: log in, or use a key that belongs to a person")
        if row.proposer_person == who.person or row.proposer == who.name:
            raise CannotDecide("a second person approves: this is your own proposal")
        if f"person:{who.person}" in votes:
            raise CannotDecide("you have approved this already; it needs another person, too")
    voter = f"person:{who.person}" if who.person else who.name
    if voter not in votes:
        vote = {"approval": number, "voter": voter, "at_ns": at_ns}
        connection.execute(insert(approval_votes).values(tenant_id=tenant_id, **vote))
        votes.append(voter)
    after = {"kind": row.kind, "summary": row.summary, "approved_by": votes}
    note(connection, tenant_id, "approval.approve", number, at_ns, after=after)
    if len(votes) >= row.needed or _owns_the_database(who):
        result = execute(row)
        _end(connection, row, State.EXECUTED, at_ns, result=json.dumps(result))
        note(connection, tenant_id, "approval.execute", number, at_ns, after={"result": result})
    return approval(connection, tenant_id, number)


def refuse(connection: Connection, tenant_id: int, number: int, reason: str, at_ns: int) -> Row[Any]:
    """Refuse a proposal for good, or take an own one back. Raises NoSuchApproval, NotPending, CannotDecide."""
    row, who = _pending(connection, tenant_id, number, at_ns), acting()
    if not (who.person or row.proposer == who.name or _owns_the_database(who)):
        raise CannotDecide("only a person refuses: log in, or use a key that belongs to a person")
    _end(connection, row, State.REFUSED, at_ns, reason=reason[:500])
    after = {"kind": row.kind, "summary": row.summary, "reason": reason[:500]}
    note(connection, tenant_id, "approval.refuse", number, at_ns, after=after)
    return approval(connection, tenant_id, number)


def expire(connection: Connection, at_ns: int) -> int:
    """End proposals whose time is up, of all tenants, some hundreds at most; returns how many."""
    table = approvals.c
    over = select(approvals).where(table.state == State.PENDING, table.expires_at_ns <= at_ns)
    rows = connection.execute(
        over.order_by(table.tenant_id, table.number).limit(_AT_ONCE).with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        _end(connection, row, State.EXPIRED, at_ns)
        after = {"kind": row.kind, "summary": row.summary}
        note(connection, row.tenant_id, "approval.expire", row.number, at_ns, after=after)
    return len(rows)


def approval(connection: Connection, tenant_id: int, number: int) -> Row[Any]:
    """One proposal. Raises NoSuchApproval."""
    table = approvals.c
    query = select(approvals).where(table.tenant_id == tenant_id, table.number == number)
    row = connection.execute(query).first()
    if row is None:
        raise NoSuchApproval(str(number))
    return row


def approvals_of(
    connection: Connection, tenant_id: int, state: str = "", before_number: int | None = None, limit: int = 100
) -> Sequence[Row[Any]]:
    """A tenant's proposals, newest first."""
    table = approvals.c
    chosen = [table.tenant_id == tenant_id, *([table.state == state] if state else [])]
    return newest_first(connection, approvals, table.number, *chosen, before=before_number, limit=limit)


def votes_of(connection: Connection, tenant_id: int, numbers: Sequence[int]) -> dict[int, list[str]]:
    """Who has approved each of these proposals."""
    table = approval_votes.c
    found: dict[int, list[str]] = {number: [] for number in numbers}
    query = select(table.approval, table.voter).where(table.tenant_id == tenant_id, table.approval.in_(list(numbers)))
    for number, voter in connection.execute(query.order_by(table.approval, table.at_ns)):
        found[number].append(voter)
    return found


def _pending(connection: Connection, tenant_id: int, number: int, at_ns: int) -> Row[Any]:
    """A proposal that waits, locked until the end of the transaction."""
    table = approvals.c
    query = select(approvals).where(table.tenant_id == tenant_id, table.number == number).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise NoSuchApproval(str(number))
    if row.state != State.PENDING:
        raise NotPending(f"proposal {number} is {row.state} already")
    if row.expires_at_ns <= at_ns:
        raise NotPending(f"proposal {number} waited too long; propose it again")
    return row


def _votes(connection: Connection, tenant_id: int, number: int) -> list[str]:
    return votes_of(connection, tenant_id, [number])[number]


def _end(
    connection: Connection, row: Row[Any], state: State, at_ns: int, *, reason: str = "", result: str = ""
) -> None:
    table = approvals.c
    mine = (table.tenant_id == row.tenant_id, table.number == row.number)
    values = {"state": state.value, "ended_at_ns": at_ns, "reason": reason, "result": result}
    connection.execute(update(approvals).where(*mine).values(values))


def _next_number(connection: Connection, table: Any, tenant_id: int) -> int:
    lock_stripes(connection, PEOPLE, [tenant_id])
    newest = select(func.coalesce(func.max(table.c.number), 0)).where(table.c.tenant_id == tenant_id)
    return int(connection.execute(newest).scalar_one()) + 1


def _owns_the_database(who: Actor) -> bool:
    return who.name.startswith("cli:")
