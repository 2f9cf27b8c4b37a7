"""What an audit looks at, and what it finds."""

from typing import NamedTuple


class Window(NamedTuple):
    """The transactions with after < id <= upto, or, where it is not `inside`, all others."""

    after: int
    upto: int
    inside: bool = True

    @property
    def condition(self) -> str:
        r"""SQL that holds for a transaction of the window; `\1` is its id, :after and :upto are the bounds."""
        if self.inside:
            return r"\1 > :after AND \1 <= :upto"
        return r"(\1 IS NULL OR \1 <= :after OR \1 > :upto)"


class Mismatch(NamedTuple):
    """Something in the books that contradicts something else in them."""

    check: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.check}: {self.what}: expected {self.expected}, found {self.found}"
