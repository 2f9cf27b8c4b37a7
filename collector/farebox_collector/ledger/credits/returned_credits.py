"""Credits of returned payments: what standing refunds and disputes take from the lots of a wallet.

A lot whose payment was returned must give `out` credits. It gives the credits that usage leaves. The rest is displaced
usage: usage that the lot would have paid, and that other lots of the wallet pay instead (they lend it), or overdraft.

`_lift` undoes all returns of the wallet; `drop` applies them again. Every change to the wallet happens between the two.
So its lots depend on the standing returns and on usage, never on their order.

The price of displaced usage that other lots pay is no revenue of the returned lot. While displaced usage is overdraft,
it stays revenue, and the same sum is `refunded`: money returned for used credits.

Returns of an expired lot are not undone: its returned credits stay returned. Credits that come back to it expire at
once.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Row

from farebox_collector.ledger.credits.lot import Lot
from farebox_collector.model.money import round_half_even

RETURNED_MOVE, DEBT_MOVE = "payment_return", "debt"
"""Kinds of lot moves: unused credits that were returned, and usage that a return moved between lots."""

CLOCKS_DIFFER_NS = 300 * 10**9
"""Largest lag of the payment provider's clock: the tolerance for the time of a signature."""

ExpiredOf = Callable[[int], int]
"""Lot id → its credits that expired unused."""


class Effect(NamedTuple):
    """Sums to post after a change of lots."""

    revenue: int
    """Nano-USD."""
    unused: int
    """Price of unused credits that were returned, in nano-USD."""
    removed: int
    """Nanocredits that left the wallet."""


class ReturnedCredits:
    """The returned payments of one wallet, while they are undone."""

    def __init__(
        self, lots: list[Lot], overdraft: int, moment_ns: int, at_ns: int, first_return_ns: Callable[[], int]
    ) -> None:
        self.lots, self.overdraft = lots, overdraft
        self._moment_ns, self._at_ns = moment_ns, at_ns
        self._first_return_ns = first_return_ns
        self._lent = {lot.row.id: lot.lent for lot in lots}
        self._revenue = self._unused = 0
        self._removed = _removed(lots)
        # Unused credits that each returned lot has given. An expired lot cannot give more.
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
        # Expired lots have paid their part of it, or it was used after their expiry.
        self.overdraft = self._draw(self.overdraft)

    def drop(self, lots: list[Lot], overdraft: int, expired_of: ExpiredOf) -> Effect:
        """Apply the returns to the lots and overdraft as they are now; sets `overdraft`."""
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
        return Effect(self._revenue, self._unused, _removed(lots) - self._removed)

    def _living(self) -> list[Lot]:
        return [lot for lot in self.lots if lot.lives_at(self._moment_ns)]

    def _draw(self, amount: int) -> int:
        """Draw on the lots in order; returns what no lot can pay."""
        for lot in self._living():
            part = min(lot.remaining, amount)
            if part > 0 and not self._has_ended(lot):
                self._revenue += lot.draw(part, "draw", self._at_ns)
                amount -= part
        return amount

    def _borrow(self, amount: int) -> int:
        """Let lots pay displaced usage; a negative amount undoes it. Returns what no lot can pay."""
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
        """Return whether a lot has expired, so that only earlier usage may draw on it."""
        return not lot.lives_at(self._at_ns)

    def _may_lend(self, lot: Lot) -> int:
        """Return how much displaced usage a lot may pay; for a return after its expiry, no more than it has paid."""
        if not self._has_ended(lot) or self._first_return_ns() <= lot.row.expires_at_ns:
            return lot.remaining
        return min(lot.remaining, self._lent.get(lot.row.id, 0) - lot.lent)

    def _lend(self, lot: Lot, amount: int) -> None:
        if amount:
            self._revenue += lot.draw(amount, DEBT_MOVE, self._at_ns)
            lot.lent += amount

    def _take(self, lot: Lot, amount: int) -> None:
        """Take unused credits out of a returned lot; a negative amount puts them back."""
        if amount:
            part = lot.take(amount, RETURNED_MOVE, self._at_ns)
            lot.out_taken += amount
            lot.out_nanousd += part
            self._unused += part

    def _give(self, lot: Lot, amount: int) -> None:
        """Turn used credits of a returned lot into returned unused ones; a negative amount does the reverse."""
        if amount:
            self._revenue += lot.draw(-amount, DEBT_MOVE, self._at_ns)
            self._take(lot, amount)


class Due(NamedTuple):
    """What must be taken back of a payment."""

    returned_minor: int
    """Returned part of the payment, in minor units of its currency."""
    out_nano: int
    """Credits to take back, besides those that manual movements gave back."""
    back_nanousd: int
    """Their part of the price."""


def due_of(topup: Row[Any], returns: Iterable[Row[Any]], by_hand: Iterable[Row[Any]]) -> Due:
    """Return what to take back of a payment: its standing returns less manual refunds and withdrawals.

    A manual movement counts towards returns that come later: giving back credits here and then the money at the
    provider is one refund. It does not count towards returns made long before and reported late. Rows:
    payment_returns; lot_moves.
    """
    standing = [row for row in returns if row.wanted and row.currency == topup.currency]
    returned_minor = min(sum(row.amount_minor for row in standing), topup.amount_minor)
    out = round_half_even(topup.amount_nano * returned_minor, topup.amount_minor)
    back = round_half_even(topup.price_nanousd * returned_minor, topup.amount_minor)
    given = [(row.recorded_at_ns, 0, -row.amount_nano, row.returned_nanousd) for row in by_hand]
    if not given:
        return Due(returned_minor, out, back)
    reported = [
        (
            # The provider states whole seconds of its own clock. Arrival is on the same clock as the moves.
            min(row.created_at_ns + CLOCKS_DIFFER_NS, row.recorded_at_ns),
            1,
            round_half_even(topup.amount_nano * row.amount_minor, topup.amount_minor),
            round_half_even(topup.price_nanousd * row.amount_minor, topup.amount_minor),
        )
        for row in standing
    ]
    open_nano = open_nanousd = 0
    for _, is_return, credits, price in sorted(given + reported):
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
    """Return whether a lot is of a returned payment or pays displaced usage."""
    return any(lot.lent or _is_returned(lot) for lot in lots)


def _is_returned(lot: Lot) -> bool:
    return bool(lot.out or lot.out_taken or lot.out_expired or lot.displaced)


def _removed(lots: Iterable[Lot]) -> int:
    return sum(lot.out - lot.out_expired for lot in lots)
