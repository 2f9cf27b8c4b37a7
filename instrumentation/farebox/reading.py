"""Read an answer from the bytes of its body: whole, streamed or compressed, of any size, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from farebox.answers import WANTED, Answer, answer_in, read_request, shape_of
from farebox.aws_event_stream import AwsEventStream
from farebox.content_codings import Unpacking, unpacking
from farebox.endpoints import Endpoint
from farebox.event_stream import EventStream, FindFacts
from farebox.guard import report
from farebox.json_excerpt import JsonExcerpt
from farebox.model_paths import Shape
from farebox.model_request import ModelRequest

LARGE_BODY_BYTES: Final = 256 * 1024
"""Bodies above this are not parsed whole: priced parts are extracted."""
COLLECTED_BYTES_MAX: Final = 4 * 1024 * 1024
"""Maximum buffered bytes of a stream with an unsupported encoding, which is readable at its end only."""
_JSON_BEGINNINGS: Final = frozenset(b"{[ \n\r\t\xef")
_EVENT_BEGINNINGS: Final = (b"data:", b"event:")
_LINES: Final = (b"application/stream+json", b"application/x-ndjson", b"application/jsonl", b"application/x-jsonlines")
_PLAIN: Final = (b"identity", b"")
_SHAPES_TRIED_MAX: Final = 8
"""Maximum events until the shape of an answer must be known."""

Decode = Callable[[bytes], bytes]


class Reading:
    """The state of reading an answer: feed its bytes once; ``answer`` has the facts."""

    def __init__(self, endpoint: Endpoint, request: ModelRequest) -> None:
        """Start before the first byte."""
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
        """Whether the body has no content encoding."""
        self.shape = endpoint.shape
        """The answer's shape: the endpoint's unless the answer shows another one."""
        self.beside = False
        """Whether another instrumentation records the call's counts on a span."""

    @property
    def find_facts(self) -> FindFacts | None:
        """The search for events with facts; None to read all."""
        pattern = self.answer.fact_pattern
        return None if pattern is None else pattern.search

    @property
    def skippable(self) -> FindFacts | None:
        """Return the search for following bytes worth reading; None if all must be read."""
        events = self.events
        return self.find_facts if events is not None and self._plain and events.between else None

    def head(self, headers: Mapping[bytes, bytes], decode: Decode) -> None:
        """Read the headers, named in lower case. ``decode`` decodes a whole body."""
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
            self.events = EventStream(self.find_facts, WANTED)
        elif content_type.startswith(b"application/vnd.amazon.eventstream"):
            self.events = AwsEventStream(WANTED)
        self._lines = content_type.startswith(_LINES)

    def whole(self, content: bytes) -> None:
        """Read a whole decoded body."""
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
        """Read bytes as received. Returns whether events with possible facts were read."""
        if self._decode is not None:
            if self._held_bytes <= COLLECTED_BYTES_MAX:
                self._held.append(raw)
                self._held_bytes += len(raw)
            return False
        if self._unpacking is None:
            return self._take(raw)
        found = False
        for piece in self._unpacking.pieces(raw):
            found = self._take(piece) or found
        return found

    def end(self) -> None:
        """Note the end of the body, complete or not."""
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
        found = False
        if self.events is not None:
            for payload in self.events.feed(content):
                self._read(payload)
                found = True
        elif self._excerpt is not None:
            self._excerpt.feed(content)
        elif not self._no_json:
            self._hold(content)
        return found

    def _hold(self, content: bytes) -> None:
        """Buffer a small body; extract from a large one, or one whose lines are separate answers."""
        if not self._held and content:
            if content.startswith(_EVENT_BEGINNINGS):  # a gateway that does not declare its stream
                self.events = EventStream(self.find_facts, WANTED)
                self._take(content)
                return
            # A body that is not JSON, such as a proxy's error page or audio, has no usage.
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
            # Truncated, endlessly nested, or several values: read what is readable.
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
        """Return whether the shape may change; Bedrock's reader knows all makers' shapes."""
        return self._endpoint.shape is not Shape.BEDROCK or shape is Shape.COHERE

    def _change_shape(self, shape: Shape) -> None:
        """Switch to the shape of an answer that differs from the path's, as behind a gateway."""
        error = self.answer.error
        self.answer = answer_in(shape, self._endpoint.provider if self._endpoint.certain else "")
        self.answer.error = error
        self.shape = shape
        if self.beside:
            self.answer.not_alone()
        read_request(self.answer, self._request.fields, self._endpoint.model or self._request.model)
        if isinstance(self.events, EventStream):
            self.events.find_facts = self.find_facts
