"""The base of all providers' readers: collect a response from its body, or event by event."""

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
    """Collects a response from its body or event by event. Base class of the shapes."""

    usage_key: ClassVar[str] = "usage"
    fact_pattern: ClassVar[re.Pattern[bytes] | None] = None
    """A pattern that finds later events of a stream that may have new facts.

    Most events only bring text; parsing them would cost more than all else. A false match costs a little time, a missed
    one costs the call its usage. Inside a JSON string a quote is escaped, so a key with its quotes is a key. Without a
    pattern every event is read.
    """

    def __init__(self, provider: str = "") -> None:
        """Start with the provider only, by OpenTelemetry's name."""
        self.provider = provider
        self.model: str | None = None
        self.response_id: str | None = None
        self.error: str | None = None
        self.alone = True
        """Whether no other instrumentation records the call's counts on a span."""
        self.unfinished = False
        """Whether the provider is still working and reports the usage on a later request."""
        self.gave_up: str | None = None
        """How unfinished background work ended: ``failed``, ``cancelled``."""
        self._finish_reasons: list[str] = []
        self._tiers: dict[str, str] = {}
        self._units: dict[str, int] = {}
        self._usage: dict[str, Any] = {}

    @classmethod
    def worth_adding(cls, body: bytes, provider: str = "") -> bool:
        """Return whether a body has usage that client instrumentations do not read: tool fees, other tokens."""
        return False

    def not_alone(self) -> None:
        """Note that another instrumentation records the call's counts on a span."""
        self.alone = False

    @property
    def impossible(self) -> bool:
        """Return whether a count is impossible: below zero, or above 2⁶³."""
        return has_impossible_count(self._usage)

    def read(self, payload: object) -> None:
        """Read a body or an event's payload. Later counts replace earlier ones."""
        for part in payload if isinstance(payload, list) else [payload]:
            if isinstance(part, dict):
                self._read_error(part)
                self._read(part)

    def read_request(self, request: Mapping[str, Any]) -> None:
        """Read the request if the answer does not state what is billed."""

    def read_headers(self, headers: Mapping[bytes, bytes]) -> None:
        """Read usage from the response's headers, named in lower case."""

    def attributes(self) -> dict[str, AttributeValue]:
        """Return the facts so far as span attributes, without those that the provider did not report."""
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
        """Return the work of other models within this answer."""
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
        """Record the count of a unit of ``span_attributes.UNITS_WRITTEN``; skip zero."""
        if count:
            self._units[unit] = count

    def _searched(self, *path: str) -> None:
        """Record the searches counted in the usage."""
        if path[0] in self._usage:
            self._bill("web_searches", count_in(self._usage, *path))

    def _finished(self, reason: object) -> None:
        if (text := text_in(reason)) and len(self._finish_reasons) < _REASONS_MAX:
            self._finish_reasons.append(text)
