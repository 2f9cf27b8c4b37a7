"""One span of a batch while it is booked. Pure."""

from typing import Any

from farebox_collector.ledger.usage.columns import facts_digest
from farebox_collector.ledger.usage.response_ids import call_key
from farebox_collector.model.records import PricedUsage
from farebox_collector.model.verdicts import Verdict

_NO_MONEY: dict[str, Any] = {
    "cost_nanousd": None,
    "charge_nanocredits": None,
    "price_version_ids": "",
    "rule_version_id": None,
    "action_floor_nanocredits": None,
    "particulars": None,
}
COVERED_REASON = "another span of the same call stands for it"

SpanKey = tuple[bytes, bytes]
"""Trace id and span id."""


class RetiredFacts:
    """The stored digest of a retired span's facts: equal to the same facts, and to no others."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def __eq__(self, facts: object) -> bool:
        """Return whether these values of `FACT_COLUMNS` are the same facts."""
        return isinstance(facts, tuple) and facts_digest(facts) == self._digest

    __hash__ = None  # type: ignore[assignment]


class Entry:
    """One span of a batch before it is booked."""

    __slots__ = ("arrived", "booked", "call", "call_key", "guessed", "reason", "verdict")

    def __init__(self, call: PricedUsage) -> None:
        self.arrived = call
        self.call = call
        # The facts that were in the books before this batch; None for a new span.
        # For a retired span only a digest to compare with is left.
        self.booked: tuple[Any, ...] | RetiredFacts | None = None
        self.verdict = call.verdict
        self.reason = call.reason
        self.guessed = call.assumptions
        # Only a charged record holds the key: an unpriced record must not prevent its twin from being charged.
        self.call_key = call_key(call.usage.response_id) if call.verdict is Verdict.CHARGED else None

    def cover(self, reason: str = COVERED_REASON) -> None:
        """Let another span of the same call pay."""
        self.verdict, self.reason, self.call_key = Verdict.COVERED, reason, None

    def leave_open(self, reason: str) -> None:
        """Keep the call without charging it yet."""
        self.verdict, self.reason, self.call_key = Verdict.UNPRICED, reason, None

    def charge_apart(self) -> None:
        """Charge although the response id is known: the other call was at another time."""
        self.call_key = None
        self.guessed += ("response_id_reused",)

    @property
    def charged(self) -> bool:
        """Return whether this entry moves money."""
        return self.verdict is Verdict.CHARGED

    def as_booked(self) -> PricedUsage:
        """Return the call as the books will have it: an uncharged call has no amounts."""
        call = self.call._replace(verdict=self.verdict, reason=self.reason, assumptions=self.guessed)
        # An estimate stays on the call, apart from all money.
        return call if self.charged or self.verdict is Verdict.EXPOSED else call._replace(**_NO_MONEY)
