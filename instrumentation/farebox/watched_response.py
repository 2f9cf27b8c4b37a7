"""Watch a response of httpx or httpx2 in passing, body or stream, without changing it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import wrapt

from farebox.event_stream import FindFacts
from farebox.exposures import Arrived
from farebox.guard import guarded
from farebox.http_call import HttpCall
from farebox.stream_usage import UsageFilter
from farebox.text_only_events import TextOnlyEvents

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:  # before version 2 it has no type parameter
    _Proxy = wrapt.ObjectProxy


class Response(Protocol):
    """The used part of both libraries' responses."""

    status_code: int
    headers: Any
    is_stream_consumed: bool
    content: bytes
    stream: object


def watch(call: HttpCall, response: Response, *, hides: bool) -> None:
    """Pass to the call what the application reads; ``hides`` removes usage that the application did not request."""
    with guarded("watching a model's answer"):

        def decode(raw: bytes) -> bytes:
            # The library decodes the encodings that it requested.
            encoding = {"content-encoding": response.headers["content-encoding"]}
            response_type: Callable[..., Response] = type(response)
            return response_type(response.status_code, headers=encoding, content=raw).content

        call.answered(response.status_code, response.headers.raw, decode)
        if response.is_stream_consumed:
            call.body(response.content)
        else:
            hides = hides and "content-encoding" not in response.headers
            response.stream = _WatchedStream(response.stream, call, UsageFilter() if hides else None)
        return
    call.finish()


class _WatchedStream(_Proxy):
    """The stream of a response whose bytes the call reads first.

    It is a proxy because the libraries check the type of a stream and store attributes on it.
    """

    def __init__(self, stream: object, call: HttpCall, usage_filter: UsageFilter | None) -> None:
        super().__init__(stream)
        self._self_call = call
        self._self_filter = usage_filter
        self._self_arrived = Arrived()
        self._self_text_only = TextOnlyEvents()

    def _look(self, chunk: bytes, find_facts: FindFacts | None) -> FindFacts | None:
        """Read a chunk unless it is one event in which ``find_facts`` finds nothing. Returns as ``HttpCall.chunk``."""
        if find_facts is None or chunk[-2:] != b"\n\n" or find_facts(chunk) is not None:
            call: HttpCall = self._self_call
            return call.chunk(chunk)
        alike: TextOnlyEvents = self._self_text_only
        alike.learn(chunk)
        return find_facts

    def __iter__(self) -> Iterator[bytes]:
        call: HttpCall = self._self_call
        stream: Iterable[bytes] = self.__wrapped__
        seen = call.chunk
        arrived: Arrived = self._self_arrived
        note, count, alike = arrived.sample.append, arrived.count.__next__, self._self_text_only.fits
        try:
            if self._self_filter is None:
                # Nearly all chunks have no facts; this is all they cost.
                find_facts = None
                for chunk in stream:
                    note(chunk)
                    count()
                    if find_facts is None or not alike(chunk):
                        find_facts = self._look(chunk, find_facts)
                    yield chunk
            else:
                for chunk in stream:
                    note(chunk)
                    count()
                    seen(chunk)
                    if passed := self._self_filter.feed(chunk):
                        yield passed
                if rest := self._self_filter.rest():
                    yield rest
        except GeneratorExit:
            raise
        except BaseException as error:
            call.fail(error, arrived)
            raise
        call.finish()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        call: HttpCall = self._self_call
        stream: AsyncIterable[bytes] = self.__wrapped__
        usage_filter: UsageFilter | None = self._self_filter
        chunks = aiter(stream)
        find_facts = None
        arrived: Arrived = self._self_arrived
        note, count, alike = arrived.sample.append, arrived.count.__next__, self._self_text_only.fits
        try:
            async for chunk in chunks:
                note(chunk)
                count()
                if find_facts is None or not alike(chunk):
                    find_facts = self._look(chunk, find_facts)
                if usage_filter is None:
                    yield chunk
                elif passed := usage_filter.feed(chunk):
                    yield passed
            if usage_filter is not None and (rest := usage_filter.rest()):
                yield rest
        except GeneratorExit:
            raise
        except BaseException as error:
            call.fail(error, arrived)
            raise
        finally:
            if hasattr(chunks, "aclose"):
                await chunks.aclose()
        call.finish()

    def close(self) -> None:
        try:
            self.__wrapped__.close()
        finally:
            self._self_call.leave(self._self_arrived)

    async def aclose(self) -> None:
        try:
            await self.__wrapped__.aclose()
        finally:
            self._self_call.leave(self._self_arrived)

    def __del__(self) -> None:
        # A response that is neither read to its end nor closed was still billed.
        self._self_call.leave(self._self_arrived)
