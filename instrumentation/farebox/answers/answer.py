"""What the readers of all providers share: one response is gathered from its body, or event by event."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from farebox import span_attributes
from farebox.answers.counts import count_in, has_impossible_count, merged, text_in, whole
from farebox.answers.lines import Line, as_attribute
from farebox.answers.stated_costs import STATING, stated_cost

AttributeValue = str | int | float | bool | list[str]
_REASONS_MAX = 256


class Answer:
    """Gathers one response, from its body or event by event. A base for the shapes."""

    usage_key: ClassVar[str] = "usage"
    telling: ClassVar[re.Pattern[bytes] | None] = None
    """Found in an event that is not the first of its stream, or in some, where they may tell something new.

    Most events only bring text; taking those apart would cost more than all else. Finding something for nothing costs
    a little time, finding nothing wrongly costs the call its usage. Inside a JSON string a quote is escaped, so a key
    with its quotes is a key. Without it every event is read.
    """

    def __init__(self, provider: str = "") -> None:
        """Start with nothing known but the provider, by OpenTelemetry's name."""
        self.provider = provider
        self.model: str | None = None
        self.response_id: str | None = None
        self.error: str | None = None
        self.alone = True
        """Whether no other instrumentation puts the counts of the call on a span."""
        self.unfinished = False
        """Whether the provider is still at work, and tells the usage when it is asked later."""
        self.gave_up: str | None = None
        """How work in the background ended, where it did not come to its end: ``failed``, ``cancelled``."""
        self._finish_reasons: list[str] = []
        self._tiers: dict[str, str] = {}
        self._units: dict[str, int] = {}
        self._usage: dict[str, Any] = {}

    @classmethod
    def worth_adding(cls, body: bytes, provider: str = "") -> bool:
        """Whether a body tells what the instrumentations of the clients do not read: fees of tools, other tokens."""
        return False

    def not_alone(self) -> None:
        """Another instrumentation puts the counts of the call on a span."""
        self.alone = False

    @property
    def impossible(self) -> bool:
        """Whether the counts cannot be true: below zero, or above 2⁶³."""
        return has_impossible_count(self._usage)

    def read(self, payload: object) -> None:
        """Take in a body, or the payload of one event. Later values of a count replace earlier ones."""
        for part in payload if isinstance(payload, list) else [payload]:
            if isinstance(part, dict):
                self._read_error(part)
                self._read(part)

    def read_request(self, request: Mapping[str, Any]) -> None:
        """Take in the request where the answer does not say what is billed."""

    def read_headers(self, headers: Mapping[bytes, bytes]) -> None:
        """Take in what the headers of the response say about usage, by their names in lower case."""

    def attributes(self) -> dict[str, AttributeValue]:
        """What is known so far, as span attributes; what the provider did not say is left out."""
        usable = bool(self._usage) and not self.impossible
        counts = self._counts(self._usage) if usable else {}
        others = self._lines() if usable or not self._usage else ()
        stated = stated_cost(self.provider, self._usage) if self.provider in STATING else None
        known: dict[str, AttributeValue | None] = {
            span_attributes.RESPONSE_MODEL: self.model,
            span_attributes.RESPONSE_ID: self.response_id,
            span_attributes.FINISH_REASONS: self._finish_reasons or None,
            **self._tiers,
            **counts,
            span_attributes.USAGE_LINES: as_attribute(others) if others else None,
            span_attributes.COST_STATED: None if stated is None else f"{stated:f}",
            **{span_attributes.UNITS + unit: count for unit, count in self._units.items()},
        }
        return {key: value for key, value in known.items() if value is not None}

    def _read(self, part: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        raise NotImplementedError

    def _lines(self) -> Sequence[Line]:
        """What other models did within this answer."""
        return ()

    def _read_error(self, part: Mapping[str, Any]) -> None:
        error = part.get("error")
        if isinstance(error, dict):
            code = whole(error.get("code"))
            self.error = (
                text_in(error.get("code"))
                or text_in(error.get("type"))
                or text_in(error.get("status"))
                or (None if code is None else str(code))
                or self.error
            )
        elif isinstance(error, str) and error:
            self.error = self.error or "error"  # the text may quote the request

    def _merge_usage(self, usage: object) -> None:
        if isinstance(usage, dict):
            self._usage = merged(self._usage, usage)

    def _bill(self, unit: str, count: int | None) -> None:
        """Note how many of a unit of ``span_attributes.UNITS_WRITTEN`` were used; none are not worth a word."""
        if count:
            self._units[unit] = count

    def _searched(self, *path: str) -> None:
        """Note the searches that the usage counts."""
        if path[0] in self._usage:
            self._bill("web_searches", count_in(self._usage, *path))

    def _finished(self, reason: object) -> None:
        if (text := text_in(reason)) and len(self._finish_reasons) < _REASONS_MAX:
            self._finish_reasons.append(text)
