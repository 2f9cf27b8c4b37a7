"""The named outcome of every span. One enum drives the answer, the metric label and the documentation."""

from enum import StrEnum


class Verdict(StrEnum):
    """What became of one span. `STORED` names those that leave a usage record behind."""

    CHARGED = "charged"
    """Priced, and its wallet debited."""
    DUPLICATE = "duplicate"
    """The same span again with the same content: nothing changed."""
    CONFLICT = "conflict"
    """The same span again with other content: the first stays, this one is kept for people to look at."""
    COVERED = "covered"
    """Another span of the same call stands for it: same response id, or nested around it."""
    DEFERRED = "deferred"
    """An agent or workflow span that sums up its calls: kept, not charged."""
    UNPRICED = "unpriced"
    """Usage is known, its price is not: kept, and charged nothing yet."""
    UNMETERED = "unmetered"
    """A model call that reported no usage: kept, and charged nothing yet."""
    EXPOSED = "exposed"
    """A call whose end was not seen: the provider may bill it. Kept with an estimate, and charged nothing yet."""
    FAILED = "failed"
    """A model call that ended in an error before it used anything: kept, costs nothing."""
    NOT_BILLABLE = "not_billable"
    """Not a model call: accepted, not kept."""
    NOTED = "noted"
    """What somebody found out about an answer after the call: kept once, however often it arrives."""
    REJECTED = "rejected"
    """Facts that cannot be booked (negative counts, no ids): refused for ever, reported as partial success."""


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
"""Verdicts that stand for a call of their own, rather than for another view of one."""
