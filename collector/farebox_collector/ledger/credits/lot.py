"""One lot of credits while its wallet is locked: used and returned credits, and their parts of the price.

Both parts of the price follow from the lot's figures alone, never from the order of changes:
recognised = price x used / amount, and returned = price less price x (amount - taken) / amount. When nothing is left
(used = amount - taken) the two add up to the whole price.
"""

from typing import Any, NamedTuple

from sqlalchemy import Row

from farebox_collector.model.money import round_half_even

COLUMNS = (
    "remaining_nano",
    "taken_nano",
    "recognised_nanousd",
    "returned_nanousd",
    "out_nano",
    "out_taken_nano",
    "out_expired_nano",
    "out_nanousd",
    "displaced_nano",
    "lent_nano",
)
"""Columns of a lot that change."""


class Lot:
    """A lot while its wallet is locked."""

    def __init__(self, row: Row[Any]) -> None:
        self.row = row
        self.remaining: int = row.remaining_nano
        self.recognised: int = row.recognised_nanousd
        self.returned: int = row.returned_nanousd
        """The part of the price that went back, or to another wallet's lot, with unused credits."""
        self.taken: int = row.taken_nano
        """Credits that were refunded, withdrawn or transferred unused."""
        self.out: int = row.out_nano
        """Credits that refunds and disputes of the lot's payment take back; see `returned_credits`."""
        self.out_taken: int = row.out_taken_nano
        self.out_expired: int = row.out_expired_nano
        self.out_nanousd: int = row.out_nanousd
        self.displaced: int = row.displaced_nano
        self.lent: int = row.lent_nano
        self.moves: list[dict[str, Any]] = []

    @property
    def used(self) -> int:
        """Credits that were used or expired."""
        return int(self.row.amount_nano) - self.taken - self.remaining

    def lives_at(self, moment_ns: int) -> bool:
        """Whether usage of this moment may draw on the lot."""
        expiry = self.row.expires_at_ns
        return expiry is None or moment_ns <= expiry

    def draw(self, amount: int, kind: str, at_ns: int) -> int:
        """Use credits; a negative amount gives them back. Returns the change of revenue in nano-USD."""
        self.remaining -= amount
        recognised = round_half_even(self.row.price_nanousd * self.used, self.row.amount_nano)
        revenue, self.recognised = recognised - self.recognised, recognised
        self._note(kind, -amount, revenue, 0, at_ns)
        return int(revenue)

    def take(self, amount: int, kind: str, at_ns: int) -> int:
        """Take unused credits out; a negative amount puts them back. Returns their part of the price."""
        self.remaining -= amount
        self.taken += amount
        price, whole = self.row.price_nanousd, self.row.amount_nano
        returned = price - round_half_even(price * (whole - self.taken), whole)
        part, self.returned = returned - self.returned, returned
        self._note(kind, -amount, 0, part, at_ns)
        return int(part)

    def _note(self, kind: str, amount: int, recognised: int, returned: int, at_ns: int) -> None:
        for move in self.moves:
            if move["kind"] == kind:
                move["amount_nano"] += amount
                move["recognised_nanousd"] += recognised
                move["returned_nanousd"] += returned
                return
        self.moves.append(
            {
                "tenant_id": self.row.tenant_id,
                "lot_id": self.row.id,
                "kind": kind,
                "amount_nano": amount,
                "recognised_nanousd": recognised,
                "returned_nanousd": returned,
                "recorded_at_ns": at_ns,
            }
        )

    def changes(self) -> list[dict[str, Any]]:
        """Return the moves that changed a figure."""
        figures = ("amount_nano", "recognised_nanousd", "returned_nanousd")
        return [move for move in self.moves if any(move[name] for name in figures)]

    def order(self) -> tuple[int, bool, int, bool, int]:
        """Return the sort key of the order of drawing."""
        expiry = self.row.expires_at_ns
        return self.row.priority, expiry is None, expiry or 0, not self.row.promotional, self.row.id

    def values(self) -> dict[str, int]:
        """Return the figures to write, by column of `COLUMNS`."""
        figures = (
            self.remaining,
            self.taken,
            self.recognised,
            self.returned,
            self.out,
            self.out_taken,
            self.out_expired,
            self.out_nanousd,
            self.displaced,
            self.lent,
        )
        return dict(zip(COLUMNS, figures, strict=True))


class NewLot(NamedTuple):
    """A lot to add to a wallet."""

    origin: str
    amount_nano: int
    price_nanousd: int = 0
    """Price of the whole lot."""
    priority: int = 100
    """Lots with a lower number are drawn first."""
    promotional: bool = False
    expires_at_ns: int | None = None
    pack: str = ""
    """The pack that was bought; empty for other lots."""
