"""Reads one answer out of the bytes of its body: whole, streamed, compressed, of any size, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from farebox.answers import WANTED, Answer, answer_in, read_request, shape_of
from farebox.aws_event_stream import AwsEventStream
from farebox.content_codings import Unpacking, unpacking
from farebox.endpoints import Endpoint
from farebox.event_stream import EventStream, Tells
from farebox.guard import report
from farebox.json_excerpt import JsonExcerpt
from farebox.model_paths import Shape
from farebox.model_request import ModelRequest

LARGE_BODY_BYTES: Final = 256 * 1024
"""A larger body is not taken apart whole: what has a price is picked out of it."""
COLLECTED_BYTES_MAX: Final = 4 * 1024 * 1024
"""How much of a streamed body is held in an encoding that nothing here undoes, which can be read at the end only."""
_JSON_BEGINNINGS: Final = frozenset(b"{[ \n\r\t\xef")
_EVENT_BEGINNINGS: Final = (b"data:", b"event:")
_LINES: Final = (b"application/stream+json", b"application/x-ndjson", b"application/jsonl", b"application/x-jsonlines")
_PLAIN: Final = (b"identity", b"")
_SHAPES_TRIED_MAX: Final = 8
"""How many events may pass until the shape of an answer is clear."""

Decode = Callable[[bytes], bytes]


class Reading:
    """What is read of one answer so far: its bytes come in once, ``answer`` says what they told."""

    def __init__(self, endpoint: Endpoint, request: ModelRequest) -> None:
        """Nothing has come yet."""
        self._endpoint = endpoint
        self._request = request
        self.answer: Answer = answer_in(endpoint.shape, endpoint.provider)
        self._unsure = _SHAPES_TRIED_MAX
        self.events: EventStream | AwsEventStream | None = None
        self._lines = False
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._excerpt: JsonExcerpt | None = None
        self._no_json = False
        self._decode: Decode | None = None
        self._unpacking: Unpacking | None = None
        self._plain = True
        """Whether no content encoding is to be undone."""
        self.shape = endpoint.shape
        """That of the answer, which is the endpoint's unless the answer shows another one."""
        self.beside = False
        """Whether another instrumentation puts the counts of the call on a span."""

    @property
    def tells(self) -> Tells | None:
        """What finds, in the bytes of events, those worth reading."""
        pattern = self.answer.telling
        return None if pattern is None else pattern.search

    @property
    def skippable(self) -> Tells | None:
        """What finds, in the bytes that come next, anything worth reading; None if they are to come in any case."""
        events = self.events
        return self.tells if events is not None and self._plain and events.between else None

    def head(self, headers: Mapping[bytes, bytes], decode: Decode) -> None:
        """Take in the headers, by their names in lower case. ``decode`` undoes the content encoding of a whole body."""
        if self.beside:
            self.answer.not_alone()
        read_request(self.answer, self._request.fields, self._endpoint.model or self._request.model)
        self.answer.read_headers(headers)
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        self._plain = encoding in _PLAIN
        if not self._plain:
            self._unpacking = unpacking(encoding)
            self._decode = decode if self._unpacking is None else None
        content_type = headers.get(b"content-type", b"").strip().lower()
        if content_type.startswith(b"text/event-stream"):
            self.events = EventStream(self.tells, WANTED)
        elif content_type.startswith(b"application/vnd.amazon.eventstream"):
            self.events = AwsEventStream(WANTED)
        self._lines = content_type.startswith(_LINES)

    def whole(self, content: bytes) -> None:
        """Take in a whole body, its content encoding already undone."""
        self._decode = self._unpacking = None
        self._plain = True
        if self.events is None and not self._lines and len(content) <= LARGE_BODY_BYTES:
            if content[:1] and content[0] in _JSON_BEGINNINGS:
                self._read_small(content)
            elif content.startswith(_EVENT_BEGINNINGS):
                self._take(content)
        else:
            self._take(content)

    def chunk(self, raw: bytes) -> bool:
        """Take in some bytes as they came over the wire. Returns whether events were read that may say something."""
        if self._decode is not None:
            if self._held_bytes <= COLLECTED_BYTES_MAX:
                self._held.append(raw)
                self._held_bytes += len(raw)
            return False
        if self._unpacking is None:
            return self._take(raw)
        told = False
        for piece in self._unpacking.pieces(raw):
            told = self._take(piece) or told
        return told

    def end(self) -> None:
        """The body is at its end, or breaks off."""
        if self._decode is not None:
            if self._held_bytes > COLLECTED_BYTES_MAX:
                report("large", f"farebox: a compressed stream of more than {COLLECTED_BYTES_MAX} bytes is not read")
                return
            content, self._held = b"".join(self._held), []
            decode, self._decode = self._decode, None
            self._take(decode(content))
        if self.events is not None:
            for payload in self.events.end():
                self._read(payload)
        elif self._excerpt is not None:
            self._excerpt.end()
            self._excerpt = None
        elif self._held:
            content, self._held = b"".join(self._held), []
            self._read_small(content)

    def _take(self, content: bytes) -> bool:
        told = False
        if self.events is not None:
            for payload in self.events.feed(content):
                self._read(payload)
                told = True
        elif self._excerpt is not None:
            self._excerpt.feed(content)
        elif not self._no_json:
            self._hold(content)
        return told

    def _hold(self, content: bytes) -> None:
        """Hold a body that is small yet; pick from one that is not, or whose lines are answers of their own."""
        if not self._held and content:
            if content.startswith(_EVENT_BEGINNINGS):  # a gateway that does not say that it streams
                self.events = EventStream(self.tells, WANTED)
                self._take(content)
                return
            # A body that is not JSON, as a proxy's error page or a sound, says nothing about usage.
            self._no_json = content[0] not in _JSON_BEGINNINGS
            if self._no_json:
                return
        self._held.append(content)
        self._held_bytes += len(content)
        if self._lines or self._held_bytes > LARGE_BODY_BYTES:
            self._excerpt = JsonExcerpt(WANTED, self._read)
            held, self._held = self._held, []
            for part in held:
                self._excerpt.feed(part)

    def _read_small(self, content: bytes) -> None:
        try:
            payload = json.loads(content)
        except (ValueError, RecursionError):
            # Broken off, nested without end, or several values: what can be read of it is.
            picked = JsonExcerpt(WANTED, self._read)
            picked.feed(content)
            picked.end()
        else:
            self._read(payload)

    def _read(self, payload: Any) -> None:
        if self._unsure:
            self._unsure -= 1
            shape = shape_of(payload)
            if shape is not None:
                self._unsure = 0
                if shape is not self._endpoint.shape and self._may_differ(shape):
                    self._change_shape(shape)
        self.answer.read(payload)

    def _may_differ(self, shape: Shape) -> bool:
        """Bedrock's answers may be of any maker's shape, which its reader knows."""
        return self._endpoint.shape is not Shape.BEDROCK or shape is Shape.COHERE

    def _change_shape(self, shape: Shape) -> None:
        """The answer is not of the shape that the path promised, as behind a gateway."""
        error = self.answer.error
        self.answer = answer_in(shape, self._endpoint.provider if self._endpoint.certain else "")
        self.answer.error = error
        self.shape = shape
        if self.beside:
            self.answer.not_alone()
        read_request(self.answer, self._request.fields, self._endpoint.model or self._request.model)
        if isinstance(self.events, EventStream):
            self.events.tells = self.tells
