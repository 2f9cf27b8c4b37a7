"""Credits of payments that went back: what refunds and disputes that stand take from the lots of a wallet.

A lot whose payment was returned must give `out` credits. It gives what usage leaves of it. The rest is displaced usage:
usage that the lot would have paid for, and which the wallet's other lots pay instead (they lend it), or overdraft.

`lift` puts the wallet as if nothing had gone back, and `drop` takes out again what must be out. Whatever happens to a
wallet happens between the two. So its lots depend on what stands and on what was used, never on which came first.

The price of displaced usage that other lots pay is no revenue of the returned lot. As long as it is overdraft, it stays
revenue, and the same sum is `refunded`: money that went back for credits that were used.

A lot that has expired is not lifted. What went back of it before stays back; what comes back to it expires at once.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Row

from farebox_collector.ledger.credits.lot import Lot
from farebox_collector.model.money import round_half_even

RETURNED_MOVE, DEBT_MOVE = "payment_return", "debt"
"""Kinds of moves of lots: unused credits that went back, and usage that moved from lot to lot because of it."""

CLOCKS_DIFFER_NS = 300 * 10**9
"""How far the payment provider's clock may be behind ours: as far as the time of a signature may be off."""

ExpiredOf = Callable[[int], int]
"""Credits of a lot that expired unused."""


class Effect(NamedTuple):
    """What a change of lots posts: revenue and the part of prices that went back unused, in nano-USD; credits out."""

    revenue: int
    unused: int
    gone: int


class ReturnedCredits:
    """The returned payments of one wallet, while they are lifted."""

    def __init__(
        self, lots: list[Lot], overdraft: int, moment_ns: int, at_ns: int, first_return_ns: Callable[[], int]
    ) -> None:
        self.lots, self.overdraft = lots, overdraft
        self._moment_ns, self._at_ns = moment_ns, at_ns
        self._first_return_ns = first_return_ns
        self._lent = {lot.row.id: lot.lent for lot in lots}
        self._revenue = self._unused = 0
        self._gone = _gone(lots)
        # Unused credits that each returned lot has given; of one that has expired it cannot become more.
        self._kept = {lot.row.id: lot.out - lot.out_expired - lot.displaced for lot in lots}
        self._lift()

    def _lift(self) -> None:
        self.overdraft -= sum(lot.displaced - lot.lent for lot in self.lots)
        for lot in self._living():
            self._lend(lot, -lot.lent)
        for lot in self.lots:
            if lot.out:
                self._give(lot, self._kept[lot.row.id] - lot.out_taken)
                if lot.lives_at(self._moment_ns):
                    self._take(lot, -lot.out_taken)
                    lot.displaced = 0
        # What ended lots could pay of it they have paid, or it was used after their end.
        self.overdraft = self._draw(self.overdraft)

    def drop(self, lots: list[Lot], overdraft: int, expired_of: ExpiredOf) -> Effect:
        """Take out what must be out, having become of the wallet what the arguments say; `overdraft` is set anew."""
        self.lots, self.overdraft = lots, overdraft
        returned = sorted(filter(_is_returned, lots), key=lambda lot: int(lot.row.id))
        for lot in returned:
            if lot.lives_at(self._moment_ns):
                self._take(lot, min(lot.out, lot.remaining))
            else:
                self._take(lot, -max(lot.out_taken - lot.out, 0))
            rest = lot.out - lot.out_taken
            lot.out_expired = min(expired_of(lot.row.id), rest) if rest and not lot.lives_at(self._moment_ns) else 0
            lot.displaced = rest - lot.out_expired
        unpaid = self._borrow(sum(lot.displaced for lot in lots) - sum(lot.lent for lot in lots))
        self.overdraft += unpaid
        for lot in returned:
            stays = min(lot.displaced, unpaid)
            unpaid -= stays
            used = lot.used - lot.lent - (0 if lot.lives_at(self._moment_ns) else expired_of(lot.row.id))
            self._give(lot, min(lot.displaced - stays, used))
        return Effect(self._revenue, self._unused, _gone(lots) - self._gone)

    def _living(self) -> list[Lot]:
        return [lot for lot in self.lots if lot.lives_at(self._moment_ns)]

    def _draw(self, amount: int) -> int:
        """Draw on the lots in order; returns what no lot is left for."""
        for lot in self._living():
            part = min(lot.remaining, amount)
            if part > 0 and not self._has_ended(lot):
                self._revenue += lot.draw(part, "draw", self._at_ns)
                amount -= part
        return amount

    def _borrow(self, amount: int) -> int:
        """Let lots pay displaced usage, or with a negative amount no longer; returns what no lot is left for."""
        for lot in self._living():
            part = min(self._may_lend(lot), amount)
            if part > 0:
                self._lend(lot, part)
                amount -= part
        for lot in reversed(self.lots):
            part = min(lot.lent, -amount)
            if part > 0:
                self._lend(lot, -part)
                amount += part
        return max(amount, 0)

    def _has_ended(self, lot: Lot) -> bool:
        """Whether a lot has ended by now, and lives for usage from before alone."""
        return not lot.lives_at(self._at_ns)

    def _may_lend(self, lot: Lot) -> int:
        """What a lot may pay of displaced usage: of a return that came after its end, no more than it has paid."""
        if not self._has_ended(lot) or self._first_return_ns() <= lot.row.expires_at_ns:
            return lot.remaining
        return min(lot.remaining, self._lent.get(lot.row.id, 0) - lot.lent)

    def _lend(self, lot: Lot, amount: int) -> None:
        if amount:
            self._revenue += lot.draw(amount, DEBT_MOVE, self._at_ns)
            lot.lent += amount

    def _take(self, lot: Lot, amount: int) -> None:
        """Take unused credits of a returned lot out, or with a negative amount put them back."""
        if amount:
            part = lot.take(amount, RETURNED_MOVE, self._at_ns)
            lot.out_taken += amount
            lot.out_nanousd += part
            self._unused += part

    def _give(self, lot: Lot, amount: int) -> None:
        """Make used credits of a returned lot unused ones that went back, or with a negative amount the reverse."""
        if amount:
            self._revenue += lot.draw(-amount, DEBT_MOVE, self._at_ns)
            self._take(lot, amount)


class Due(NamedTuple):
    """What must be out of a payment."""

    returned_minor: int
    """Of what was paid, in the smallest unit of its currency."""
    out_nano: int
    """Credits that must be out besides those that movements by hand gave back."""
    back_nanousd: int
    """The same for the price."""


def due_of(topup: Row[Any], returns: Iterable[Row[Any]], by_hand: Iterable[Row[Any]]) -> Due:
    """What must be out of a payment, by its standing returns and the moves by which people gave its credits back.

    What people gave back is counted as part of the returns that came later, so that giving back credits here and then
    the money at the provider is one refund; not as part of returns that were made long before and came late. Rows:
    payment_returns; lot_moves.
    """
    standing = [row for row in returns if row.wanted and row.currency == topup.currency]
    returned_minor = min(sum(row.amount_minor for row in standing), topup.amount_minor)
    out = round_half_even(topup.amount_nano * returned_minor, topup.amount_minor)
    back = round_half_even(topup.price_nanousd * returned_minor, topup.amount_minor)
    given = [(row.recorded_at_ns, 0, -row.amount_nano, row.returned_nanousd) for row in by_hand]
    if not given:
        return Due(returned_minor, out, back)
    told = [
        (
            # The provider tells whole seconds of its own clock; when the return came is of the clock of the moves.
            min(row.created_at_ns + CLOCKS_DIFFER_NS, row.recorded_at_ns),
            1,
            round_half_even(topup.amount_nano * row.amount_minor, topup.amount_minor),
            round_half_even(topup.price_nanousd * row.amount_minor, topup.amount_minor),
        )
        for row in standing
    ]
    open_nano = open_nanousd = 0
    for _, is_return, credits, price in sorted(given + told):
        if is_return:
            covered, covered_price = min(open_nano, credits), min(open_nanousd, price)
            open_nano, open_nanousd = open_nano - covered, open_nanousd - covered_price
            out, back = out - covered, back - covered_price
        else:
            open_nano, open_nanousd = open_nano + credits, open_nanousd + price
    left_nano = topup.amount_nano - sum(row[2] for row in given)
    left_nanousd = topup.price_nanousd - sum(row[3] for row in given)
    return Due(returned_minor, max(min(out, left_nano), 0), max(min(back, left_nanousd), 0))


def concerns(lots: Iterable[Lot]) -> bool:
    """Whether any of these lots is of a payment that was returned, or pays for one."""
    return any(lot.lent or _is_returned(lot) for lot in lots)


def _is_returned(lot: Lot) -> bool:
    return bool(lot.out or lot.out_taken or lot.out_expired or lot.displaced)


def _gone(lots: Iterable[Lot]) -> int:
    return sum(lot.out - lot.out_expired for lot in lots)
