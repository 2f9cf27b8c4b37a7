"""What policies say to the holds of one transaction: who must stop where, and whose soft limit is passed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Self

from sqlalchemy import Connection

from farebox_collector.ledger.credits.policies import NO_LIMITS, Policy, policies_of
from farebox_collector.ledger.credits.spending import (
    NOTHING_SPENT,
    LimitScope,
    Spent,
    Subject,
    add_held,
    held_in_vain,
    spent_of,
    subjects_of,
)

Period = Literal["day", "month"]


class LimitReached(NamedTuple):
    """A hold would take somebody past what a policy lets them spend."""

    policy_id: int
    subject: Subject
    period: Period
    limit_nano: int
    left_nano: int
    """What of the limit is neither spent nor held; negative where usage went past it."""
    soft: bool = False
    """Whether it stops nobody."""


class Wanted(NamedTuple):
    """What a hold is to be counted for."""

    wallet: str
    amount_nanocredits: int
    user_id: str
    dept: str
    project: str

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Everybody whose limits it must keep."""
        others = subjects_of(self.wallet, self.user_id, self.dept, self.project)
        return Subject(LimitScope.WALLET, self.wallet), *others


class Limits:
    """The policies that hold for some wanted holds, what was spent under them, and what is held.

    Spent + held never exceeds a limit: wallets are locked by who makes this, and whoever else has a limit here.
    """

    def __init__(
        self, policies: Mapping[Subject, Policy], spent: Mapping[Subject, Spent], held: Mapping[Subject, int]
    ) -> None:
        self._policies, self._spent = policies, spent
        self._held = defaultdict[Subject, int](int, held)
        self._more = defaultdict[Subject, int](int)

    @classmethod
    def of(
        cls,
        connection: Connection,
        tenant_id: int,
        wanted: Sequence[Wanted],
        held_by_wallet: Mapping[str, int],
        at_ns: int,
        let_go: Mapping[Subject, int],
    ) -> Self:
        """Read what holds for these; `held_by_wallet` is of wallets that are locked.

        `let_go` is what holds of these wallets that have just ended held for others, who have it again.
        """
        policies = policies_of(connection, tenant_id, {subject for one in wanted for subject in one.subjects}, at_ns)
        limited = sorted(subject for subject, policy in policies.items() if _has_limits(policy))
        others = [subject for subject in limited if subject.scope is not LimitScope.WALLET]
        changes = dict.fromkeys(others, 0) | {subject: -less for subject, less in let_go.items()}
        held = add_held(connection, tenant_id, changes)
        for subject, amount in held_in_vain(connection, tenant_id, others, at_ns).items() if others else ():
            if subject in held:
                held[subject] -= amount
        held |= {Subject(LimitScope.WALLET, name): amount for name, amount in held_by_wallet.items()}
        # Read once they are locked: what was settled meanwhile is either still held or already spent.
        return cls(policies, spent_of(connection, tenant_id, limited, at_ns), held)

    @classmethod
    def none(cls) -> Self:
        """Where no policy was ever set."""
        return cls({}, {}, {})

    def stops_at_the_balance(self, wallet: str) -> bool:
        """Whether holds never take a wallet below zero."""
        policy = self._policies.get(Subject(LimitScope.WALLET, wallet))
        return policy is None or policy.terms.hard_stop

    def reached(self, wanted: Wanted) -> LimitReached | None:
        """The first limit that is in the way of a hold."""
        for subject in wanted.subjects:
            policy = self._policies.get(subject)
            terms = NO_LIMITS if policy is None else policy.terms
            over = self._over(wanted, subject, terms.day_limit_nano, terms.month_limit_nano, soft=False)
            if over:
                return over[0]
        return None

    def passed(self, wanted: Wanted, counted_nano: int = 0) -> tuple[LimitReached, ...]:
        """The soft limits that a hold takes somebody past, or finds passed; `counted_nano` of it are held already."""
        found: list[LimitReached] = []
        for subject in wanted.subjects:
            policy = self._policies.get(subject)
            if policy is not None:
                terms = policy.terms
                found += self._over(
                    wanted, subject, terms.soft_day_limit_nano, terms.soft_month_limit_nano, counted_nano, soft=True
                )
        return tuple(found)

    def take(self, wanted: Wanted) -> None:
        """Count a hold that is granted."""
        for subject in wanted.subjects:
            self._held[subject] += wanted.amount_nanocredits
            if subject.scope is not LimitScope.WALLET:
                self._more[subject] += wanted.amount_nanocredits

    def write(self, connection: Connection, tenant_id: int) -> None:
        """Put into the books what is held more; that of wallets is for who has locked them."""
        add_held(connection, tenant_id, self._more)

    def _over(
        self, wanted: Wanted, subject: Subject, day: int | None, month: int | None, counted_nano: int = 0, *, soft: bool
    ) -> list[LimitReached]:
        spent, held = self._spent.get(subject, NOTHING_SPENT), self._held[subject] - counted_nano
        policy = self._policies.get(subject)
        found = []
        limits: tuple[tuple[Period, int | None, int], ...] = (("day", day, spent.day), ("month", month, spent.month))
        for period, limit, gone in limits:
            if policy is not None and limit is not None and gone + held + wanted.amount_nanocredits > limit:
                found.append(LimitReached(policy.id, subject, period, limit, limit - gone - held, soft))
        return found


def _has_limits(policy: Policy) -> bool:
    return any(limit is not None for limit in policy.terms[1:])
