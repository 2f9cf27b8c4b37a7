"""The range of transactions that an audit checks, and the mismatches that it reports."""

from typing import NamedTuple


class Window(NamedTuple):
    """The transactions with after < id <= upto; with `inside` false, all other transactions."""

    after: int
    upto: int
    inside: bool = True

    @property
    def condition(self) -> str:
        r"""Return SQL that selects transactions of the window; `\1` is the id, :after and :upto are the bounds."""
        if self.inside:
            return r"\1 > :after AND \1 <= :upto"
        return r"(\1 IS NULL OR \1 <= :after OR \1 > :upto)"


class Mismatch(NamedTuple):
    """A contradiction between two parts of the books."""

    check: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Format the mismatch as one line."""
        return f"{self.check}: {self.what}: expected {self.expected}, found {self.found}"
