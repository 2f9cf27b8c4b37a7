"""What docs/explanation/credits.md, docs/how-to/payments.md and docs/explanation/corrections.md promise about money,
as plain arithmetic.

Written from these pages and not from the code, for `money_machine`. Amounts are nanocredits and nano-USD, moments
nanoseconds. Prices of lots are whole nano-USD a nanocredit, so that nothing here is ever rounded.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction

CREDIT = 10**9
PACK_CREDITS, PACK_MINOR = 10 * CREDIT, 1_000
"""The pack that is sold: 10 credits for 10.00 USD."""


@dataclass
class Lot:
    """Credits that came into a wallet. `used` is what usage drew as if no payment had ever gone back."""

    number: int
    amount: int
    price_each: int = 0
    priority: int = 100
    promotional: bool = False
    expires_ns: int | None = None
    used: int = 0
    taken: int = 0
    """What withdrawals and transfers took."""
    payment: str = ""
    """The payment that bought it, if one did."""
    given_back: bool = False
    """Whether a correction returned it, of usage that no lot had paid."""

    def lives(self, moment_ns: int) -> bool:
        """Whether usage of this moment may draw on it."""
        return self.expires_ns is None or moment_ns <= self.expires_ns

    def expired(self, now_ns: int) -> bool:
        """Whether what is left of it is breakage by now."""
        return self.expires_ns is not None and self.expires_ns <= now_ns

    @property
    def unused(self) -> int:
        """What usage and withdrawals left."""
        return self.amount - self.taken - self.used


@dataclass
class Figures:
    """Balances and money of one wallet at one moment."""

    balance: int = 0
    received: int = 0
    revenue: int = 0
    deferred: int = 0
    breakage: int = 0
    refunded: int = 0
    promotional: int = 0
    """What usage drew from lots without a price, in nanocredits."""
    paid: int = 0
    """What usage drew from lots with a price, in nanocredits."""
    unpaid: int = 0
    """Usage that no lot has paid, in nanocredits."""
    left: list[int] = field(default_factory=list)
    """What each lot has left, in the order in which the lots came."""


class Wallet:
    """The lots of a wallet, and what was used beyond them."""

    def __init__(self) -> None:
        self.lots: list[Lot] = []
        self.overdraft = 0

    def in_order(self) -> list[Lot]:
        """Lots as usage draws on them: priority, earliest expiry, promotional before others, oldest."""
        never = 2**63
        return sorted(
            self.lots, key=lambda lot: (lot.priority, lot.expires_ns or never, not lot.promotional, lot.number)
        )

    def add(self, lot: Lot) -> None:
        """A new lot pays the overdraft first."""
        self.lots.append(lot)
        lot.used = min(self.overdraft, lot.amount)
        self.overdraft -= lot.used

    def use(self, amount: int, moment_ns: int) -> None:
        """Usage of a moment; a negative amount is what a correction returns."""
        if amount < 0:
            self._give_back(-amount, moment_ns)
            return
        for lot in self.in_order():
            if lot.lives(moment_ns):
                part = min(lot.unused, amount)
                lot.used += part
                amount -= part
        self.overdraft += amount

    def _give_back(self, amount: int, moment_ns: int) -> None:
        paid = min(self.overdraft, amount)
        self.overdraft -= paid
        amount -= paid
        for lot in reversed(self.in_order()):
            if lot.lives(moment_ns):
                part = min(lot.used, amount)
                lot.used -= part
                amount -= part
        if amount:
            self.lots.append(Lot(len(self.lots), amount, given_back=True))

    def take(self, amount: int, now_ns: int) -> list[tuple[Lot, int]]:
        """Unused credits out, in the order of drawing: what of which lot."""
        parts = []
        for lot in self.in_order():
            part = 0 if lot.expired(now_ns) else min(lot.unused, amount)
            if part:
                lot.taken += part
                parts.append((lot, part))
                amount -= part
        return parts

    def figures(self, returned_minor: dict[str, int], now_ns: int) -> Figures:
        """What the wallet comes to with these shares of its payments returned, in cents."""
        found = Figures()
        out = {lot.number: PACK_CREDITS * returned_minor.get(lot.payment, 0) // PACK_MINOR for lot in self.lots}
        left = {lot.number: 0 if lot.expired(now_ns) else lot.unused for lot in self.lots}
        displaced = {}
        for lot in self.lots:
            gone = min(out[lot.number], left[lot.number])
            left[lot.number] -= gone
            displaced[lot.number] = out[lot.number] - gone
        owed = sum(displaced.values())
        lent: defaultdict[int, int] = defaultdict(int)
        for lot in self.in_order():
            part = min(left[lot.number], owed)
            left[lot.number] -= part
            lent[lot.number] += part
            owed -= part
        found.balance = sum(left.values()) - self.overdraft - owed
        found.unpaid = self.overdraft
        for lot in self.lots:
            stays = min(displaced[lot.number], owed)
            owed -= stays
            paying = lot.used + lent[lot.number] - displaced[lot.number] + stays
            found.revenue += lot.price_each * paying
            found.paid += paying if lot.price_each else 0
            found.promotional += 0 if lot.price_each else paying - (lot.amount if lot.given_back else 0)
            found.refunded += lot.price_each * stays
            found.deferred += lot.price_each * left[lot.number]
            found.breakage += lot.price_each * lot.unused if lot.expired(now_ns) else 0
            found.received += lot.price_each * (lot.amount - lot.taken - out[lot.number])
            found.left.append(left[lot.number])
        return found


@dataclass
class Rule:
    """What an event costs from a moment on."""

    from_ns: int
    kind: str
    multiplier: int = 0
    floor: int = 0
    """Nanocredits: the flat charge, or the minimum."""
    input_per_1k: int = 0
    """Nanocredits."""

    def share(self, tokens_in: int, cost: int) -> int:
        """What a call adds to its action."""
        if self.kind == "per_1k_tokens":
            return int(Fraction(tokens_in * self.input_per_1k, 1000))
        return cost * self.multiplier if self.kind == "cost_plus" else 0


@dataclass
class Call:
    """A call that is charged."""

    number: int
    wallet: str
    action: str
    started_ns: int
    tokens: tuple[int, int]
    cost: int
    rule: Rule


class Tenant:
    """Everything that one tenant's books must hold."""

    def __init__(self) -> None:
        self.wallets: defaultdict[str, Wallet] = defaultdict(Wallet)
        self.calls: dict[int, Call] = {}
        self.rules: list[Rule] = []
        self.topups: dict[str, Topup] = {}
        self.returns: dict[str, Return] = {}
        self.holds: dict[str, Hold] = {}
        self.fees: dict[str, int] = {}
        """Cents by the id of the fee, of payments that are known or not."""
        self.fee_payments: dict[str, str] = {}
        self.automatic: Automatic | None = None

    def rule_at(self, moment_ns: int) -> Rule:
        """The rule of a call that started then."""
        return next(rule for rule in reversed(self.rules) if rule.from_ns <= moment_ns)

    def action_charge(self, wallet: str, action: str) -> int:
        """max(floor of the call that started first, sum of shares)."""
        calls = [call for call in self.calls.values() if (call.wallet, call.action) == (wallet, action)]
        if not calls:
            return 0
        first = min(calls, key=lambda call: call.started_ns)
        return max(first.rule.floor, sum(call.rule.share(call.tokens[0], call.cost) for call in calls))

    def standing(self) -> dict[str, int]:
        """min(all returns that stand, amount paid) of each payment, in cents."""
        sums: defaultdict[str, int] = defaultdict(int)
        for one in self.returns.values():
            sums[one.payment] += one.minor if one.stands else 0
        return {payment: min(sum_, PACK_MINOR) for payment, sum_ in sums.items()}

    def figures(self, wallet: str, now_ns: int) -> Figures:
        """What a wallet comes to now."""
        return self.wallets[wallet].figures(self.standing(), now_ns)

    def held(self, wallet: str, now_ns: int) -> int:
        """What open holds of a wallet set aside now."""
        mine = (hold for hold in self.holds.values() if hold.wallet == wallet)
        return sum(hold.open(self.action_charge(wallet, hold.action), now_ns) for hold in mine)

    def booked_fees(self) -> int:
        """Cents that Stripe kept of payments that are known."""
        known = {topup.payment for topup in self.topups.values() if topup.state == "paid"}
        return sum(minor for name, minor in self.fees.items() if self.fee_payments[name] in known)


@dataclass
class Topup:
    """An order of the pack."""

    key: str
    payment: str
    wallet: str
    automatic: bool = False
    state: str = "open"
    paid_ns: int = 0


@dataclass
class Return:
    """A refund or a dispute, as far as it has come."""

    kind: str
    payment: str
    minor: int
    created_ns: int
    stands: bool = True
    ended: bool = False


@dataclass
class Hold:
    """Credits set aside for an action."""

    wallet: str
    action: str
    amount: int
    charged_before: int
    expires_ns: int
    seconds: int
    hold_id: int
    voided: bool = False

    def open(self, charge: int, now_ns: int) -> int:
        """Its amount less the net charge since; nothing once it has ended."""
        if self.voided or self.expires_ns <= now_ns:
            return 0
        return min(max(self.amount - (charge - self.charged_before), 0), self.amount)


@dataclass
class Automatic:
    """The terms of an automatic top-up."""

    below: int
    cap_minor: int
    enabled: bool = True
    paused: bool = False
    set_aside_until_ns: int = 0


def month_of(moment_ns: int) -> tuple[int, int]:
    """The UTC month of a moment."""
    moment = datetime.fromtimestamp(moment_ns // 10**9, UTC)
    return moment.year, moment.month


def spent_in_month(topups: Iterable[Topup], wallet: str, now_ns: int) -> int:
    """Cents of automatic top-ups that count for the present month: paid in it, or in flight."""
    mine = [topup for topup in topups if topup.automatic and topup.wallet == wallet]
    paid = [topup for topup in mine if topup.state == "paid" and month_of(topup.paid_ns) == month_of(now_ns)]
    return PACK_MINOR * (len(paid) + sum(topup.state == "open" for topup in mine))
