"""What the readers of all providers share: one response is gathered from its body, or event by event."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from farebox import span_attributes

AttributeValue = str | int | float | bool | list[str]

LARGE_BODY_BYTES: Final = 256 * 1024
"""A larger body is searched for its id, its model, its usage and its pictures, and not taken apart."""
_END_BYTES: Final = 4 * 1024
_USAGE_BYTES_MAX: Final = 16 * 1024
_ID_OR_MODEL: Final = re.compile(rb'"(id|responseId|model|modelVersion)"\s*:\s*"([^"\\]{1,256})"')


def text_in(value: object) -> str | None:
    """The text, where it is one and not empty."""
    return value if isinstance(value, str) and value else None


def count_in(counts: Mapping[str, Any], *path: str) -> int | None:
    """The count at the end of the path; None where there is none."""
    value: Any = counts
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    # bool is an int to Python, and no count to anybody.
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def mappings_in(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list; empty for what is no list."""
    return [part for part in value if isinstance(part, Mapping)] if isinstance(value, list) else []


def told(body: bytes, key: bytes) -> bool:
    """Whether the key stands in the JSON text with a value other than null or 0."""
    found = body.count(key)
    if found:
        found -= body.count(key + b":null")
    if found:
        found -= body.count(key + b": null")
    if found:
        found -= body.count(key + b":0") + body.count(key + b": 0")
    return found > 0


class Answer:
    """Gathers one response, from its body or event by event. A base for the shapes."""

    usage_key: ClassVar[str] = "usage"
    telling: ClassVar[re.Pattern[bytes] | None] = None
    """Found in an event that is not the first of its stream, or in some, where they may tell something new.

    Most events only bring text; taking those apart would cost more than all else. Finding something for nothing costs
    a little time, finding nothing wrongly costs the call its usage. Inside a JSON string a quote is escaped, so a key
    with its quotes is a key. Without it every event is read.
    """

    def __init__(self) -> None:
        """Start with nothing known."""
        self.model: str | None = None
        self.response_id: str | None = None
        self.error: str | None = None
        self._finish_reasons: list[str] = []
        self._tiers: dict[str, str] = {}
        self._units: dict[str, int] = {}
        self._usage: dict[str, Any] = {}

    @classmethod
    def worth_adding(cls, body: bytes) -> bool:
        """Whether a body tells what the instrumentations of the clients do not read: fees of tools, other tokens."""
        return False

    def read(self, payload: object) -> None:
        """Take in a body, or the payload of one event. Later values of a count replace earlier ones."""
        for part in payload if isinstance(payload, list) else [payload]:
            if isinstance(part, Mapping):
                self._read_error(part)
                self._read(part)

    def read_request(self, request: Mapping[str, Any]) -> None:
        """Take in the request where the answer does not say what is billed."""

    def read_headers(self, headers: Mapping[bytes, bytes]) -> None:
        """Take in what the headers of the response say about usage, by their names in lower case."""

    def read_large_body(self, body: bytes) -> None:
        """Take in a body too large to parse whole in the application's time: its ends and its usage."""
        for found in _ID_OR_MODEL.finditer(body[:_END_BYTES] + body[-_END_BYTES:]):
            if found.group(1) in (b"id", b"responseId"):
                self.response_id = self.response_id or found.group(2).decode()
            else:
                self.model = self.model or found.group(2).decode()
        # Inside a JSON string a quote is escaped, so this can only be a key; the last one is the response's
        # own.
        start = body.rfind(f'"{self.usage_key}"'.encode())
        brace = body.find(b"{", start)
        if start >= 0 and brace >= 0:
            usage, _ = json.JSONDecoder().raw_decode(body[brace : brace + _USAGE_BYTES_MAX].decode(errors="replace"))
            self._merge_usage(usage)

    def attributes(self) -> dict[str, AttributeValue]:
        """What is known so far, as span attributes; what the provider did not say is left out."""
        known: dict[str, AttributeValue | None] = {
            span_attributes.RESPONSE_MODEL: self.model,
            span_attributes.RESPONSE_ID: self.response_id,
            span_attributes.FINISH_REASONS: self._finish_reasons or None,
            **self._tiers,
            **(self._counts(self._usage) if self._usage else {}),
            **{span_attributes.UNITS + unit: count for unit, count in self._units.items()},
        }
        return {key: value for key, value in known.items() if value is not None}

    def _read(self, part: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        raise NotImplementedError

    def _read_error(self, part: Mapping[str, Any]) -> None:
        error = part.get("error")
        if isinstance(error, Mapping):
            self.error = text_in(error.get("code")) or text_in(error.get("type")) or text_in(error.get("status"))

    def _merge_usage(self, usage: object) -> None:
        if isinstance(usage, Mapping):
            self._usage.update({key: value for key, value in usage.items() if value is not None})

    def _bill(self, unit: str, count: int | None) -> None:
        """Note how many of a unit of ``span_attributes.UNITS_WRITTEN`` were used; none are not worth a word."""
        if count:
            self._units[unit] = count

    def _finished(self, reason: object) -> None:
        if text := text_in(reason):
            self._finish_reasons.append(text)
