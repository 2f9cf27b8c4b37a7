"""The named outcome of every span. One enum drives the answer, the metric label and the documentation."""

from enum import StrEnum


class Verdict(StrEnum):
    """The outcome of one span. `STORED` lists those that leave a usage record."""

    CHARGED = "charged"
    """Priced, and its wallet debited."""
    DUPLICATE = "duplicate"
    """The same span again with the same content: nothing changed."""
    CONFLICT = "conflict"
    """The same span again with other content: the first stays, and this one is kept for review."""
    COVERED = "covered"
    """Another span of the same call represents it: same response id, or nested around it."""
    DEFERRED = "deferred"
    """An agent or workflow span that sums up its calls: kept, not charged."""
    UNPRICED = "unpriced"
    """Usage is known, its price is not: kept, and not charged yet."""
    UNMETERED = "unmetered"
    """A model call that reported no usage: kept, and not charged yet."""
    EXPOSED = "exposed"
    """A call whose end was not seen: the provider may bill it. Kept with an estimate, and not charged yet."""
    FAILED = "failed"
    """A model call that ended in an error before it used anything: kept, costs nothing."""
    NOT_BILLABLE = "not_billable"
    """Not a model call: accepted, not kept."""
    NOTED = "noted"
    """A quality report on an answer, sent after the call: kept once, even if it arrives several times."""
    REJECTED = "rejected"
    """Facts that cannot be booked (negative counts, no ids): refused permanently, reported as partial success."""


STORED = frozenset(
    {
        Verdict.CHARGED,
        Verdict.COVERED,
        Verdict.DEFERRED,
        Verdict.UNPRICED,
        Verdict.UNMETERED,
        Verdict.EXPOSED,
        Verdict.FAILED,
    }
)
ONE_CALL = STORED - {Verdict.COVERED, Verdict.DEFERRED}
"""Verdicts of spans that represent a call of their own, not another view of a call."""
