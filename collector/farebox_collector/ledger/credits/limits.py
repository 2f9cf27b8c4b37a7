"""Check the holds of one transaction against spending policies: hard limits and soft limits."""

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
    held_by_expired,
    spent_of,
    subjects_of,
)

Period = Literal["day", "month"]


class LimitReached(NamedTuple):
    """A hold would exceed a limit of a policy."""

    policy_id: int
    subject: Subject
    period: Period
    limit_nano: int
    left_nano: int
    """The limit less spending and holds; negative if usage exceeded it."""
    soft: bool = False
    """True for a soft limit, which is reported and blocks nothing."""


class Wanted(NamedTuple):
    """A hold to check and count."""

    wallet: str
    amount_nanocredits: int
    user_id: str
    dept: str
    project: str

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The subjects whose limits apply: the wallet first."""
        wallet = Subject(LimitScope.WALLET, self.wallet)
        return wallet, *subjects_of(self.wallet, self.user_id, self.dept, self.project)


class Limits:
    """The policies in force for some requested holds, with spending and holds under them.

    Spent + held never exceeds a limit: the caller locks the wallets, and `of` locks the other limited subjects.
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
        released: Mapping[Subject, int],
    ) -> Self:
        """Read the policies and figures for these requests; the wallets of `held_by_wallet` are locked.

        `released` is what just-expired holds of these wallets reserved for users, departments and projects.
        """
        policies = policies_of(connection, tenant_id, {subject for one in wanted for subject in one.subjects}, at_ns)
        limited = sorted(subject for subject, policy in policies.items() if _has_limits(policy))
        to_lock = [subject for subject in limited if subject.scope is not LimitScope.WALLET]
        changes = dict.fromkeys(to_lock, 0) | {subject: -less for subject, less in released.items()}
        held = add_held(connection, tenant_id, changes)
        for subject, amount in held_by_expired(connection, tenant_id, to_lock, at_ns).items() if to_lock else ():
            if subject in held:
                held[subject] -= amount
        held |= {Subject(LimitScope.WALLET, name): amount for name, amount in held_by_wallet.items()}
        # Read after locking: a charge settled meanwhile is either still held or already spent.
        return cls(policies, spent_of(connection, tenant_id, limited, at_ns), held)

    @classmethod
    def none(cls) -> Self:
        """Return limits of a tenant that never set a policy."""
        return cls({}, {}, {})

    def stops_at_the_balance(self, wallet: str) -> bool:
        """Return whether holds must not take the wallet below zero."""
        policy = self._policies.get(Subject(LimitScope.WALLET, wallet))
        return policy is None or policy.terms.hard_stop

    def reached(self, wanted: Wanted) -> LimitReached | None:
        """Return the first hard limit that a hold would exceed; None if there is none."""
        for subject in wanted.subjects:
            policy = self._policies.get(subject)
            terms = NO_LIMITS if policy is None else policy.terms
            over = self._over(wanted, subject, terms.day_limit_nano, terms.month_limit_nano, soft=False)
            if over:
                return over[0]
        return None

    def passed(self, wanted: Wanted, counted_nano: int = 0) -> tuple[LimitReached, ...]:
        """Return the soft limits that a hold would exceed; `counted_nano` of it is counted as held already."""
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
        """Count a granted hold."""
        for subject in wanted.subjects:
            self._held[subject] += wanted.amount_nanocredits
            if subject.scope is not LimitScope.WALLET:
                self._more[subject] += wanted.amount_nanocredits

    def write(self, connection: Connection, tenant_id: int) -> None:
        """Write the added holds of users, departments and projects; the caller writes those of wallets."""
        add_held(connection, tenant_id, self._more)

    def _over(
        self, wanted: Wanted, subject: Subject, day: int | None, month: int | None, counted_nano: int = 0, *, soft: bool
    ) -> list[LimitReached]:
        spent, held = self._spent.get(subject, NOTHING_SPENT), self._held[subject] - counted_nano
        policy = self._policies.get(subject)
        found = []
        limits: tuple[tuple[Period, int | None, int], ...] = (("day", day, spent.day), ("month", month, spent.month))
        for period, limit, used in limits:
            if policy is not None and limit is not None and used + held + wanted.amount_nanocredits > limit:
                found.append(LimitReached(policy.id, subject, period, limit, limit - used - held, soft))
        return found


def _has_limits(policy: Policy) -> bool:
    return any(limit is not None for limit in policy.terms[1:])
