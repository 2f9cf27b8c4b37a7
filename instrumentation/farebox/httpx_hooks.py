"""The hooks in httpx and httpx2; both pass every request through ``Client.send`` or ``AsyncClient.send``.

A request that is no call of a model, or that an instrumented client makes within a GenAI span of its own,
goes through untouched. The bytes of a response are looked at on their way and handed on as they are.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import wrapt
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Tracer

from farebox import span_attributes
from farebox.endpoints import ModelEndpoints
from farebox.guard import guarded
from farebox.http_call import HttpCall

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:  # before version 2 it takes no parameter
    _Proxy = wrapt.ObjectProxy

_PORTS: Final = {"http": 80, "https": 443}


class _Response(Protocol):
    """The part of both libraries' responses that is used here."""

    status_code: int
    headers: Mapping[str, str]
    is_stream_consumed: bool
    content: bytes
    stream: object


class HttpxHooks:
    """Meters the calls that a library sends between ``install`` and ``remove``."""

    def __init__(self, tracer: Tracer, endpoints: ModelEndpoints) -> None:
        """Nothing is hooked before ``install``."""
        self._tracer = tracer
        self._endpoints = endpoints
        self._installed: dict[str, list[tuple[type, wrapt.FunctionWrapper[..., Any]]]] = {}

    def install(self, library: str) -> None:
        """Put the hooks in place in ``httpx`` or ``httpx2``. Raises ImportError."""
        module = importlib.import_module(library)
        installed = self._installed.setdefault(library, [])
        for client, hook in ((module.Client, self._send), (module.AsyncClient, self._send_async)):
            wrapper = wrapt.FunctionWrapper(client.__dict__["send"], hook)
            client.send = wrapper
            installed.append((client, wrapper))

    def remove(self, library: str) -> None:
        """Take the hooks out. One that somebody has wrapped since stays in place, and does nothing."""
        for client, wrapper in self._installed.pop(library, ()):
            if client.__dict__.get("send") is wrapper:
                client.send = wrapper.__wrapped__  # type: ignore[attr-defined]

    def _send(
        self,
        send: Callable[..., _Response],
        _client: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> _Response:
        call = self._call(args, kwargs)
        if call is None:
            return send(*args, **kwargs)
        with call.current():
            try:
                response = send(*args, **kwargs)
            except BaseException as error:
                call.fail(error)
                raise
        _watch(call, response)
        return response

    async def _send_async(
        self,
        send: Callable[..., Awaitable[_Response]],
        _client: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> _Response:
        call = self._call(args, kwargs)
        if call is None:
            return await send(*args, **kwargs)
        with call.current():
            try:
                response = await send(*args, **kwargs)
            except BaseException as error:
                call.fail(error)
                raise
        _watch(call, response)
        return response

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HttpCall | None:
        with guarded("looking at a request"):
            request = args[0] if args else kwargs["request"]
            if not self._installed or request.method != "POST":
                return None
            url = request.url
            endpoint = self._endpoints.find(url.scheme, url.host, url.port, url.path)
            if endpoint is None or not is_instrumentation_enabled() or _inside_a_metered_call():
                return None
            # The body of a request that is a stream itself can be read only once, and that is for the
            # transport.
            body = request.content if hasattr(request, "_content") else b""
            call = HttpCall(self._tracer, endpoint, url.host, url.port or _PORTS.get(url.scheme), body)
            # A span that a sampler turned down records nothing; there is no use in reading along.
            return call if call.span.is_recording() else None
        return None


def _inside_a_metered_call() -> bool:
    span = trace.get_current_span()
    return span.is_recording() and span_attributes.is_inference(getattr(span, "attributes", None))


def _watch(call: HttpCall, response: _Response) -> None:
    with guarded("watching a model's answer"):

        def decode(raw: bytes) -> bytes:
            # The library itself knows best which encodings it asked for.
            encoding = {"content-encoding": response.headers["content-encoding"]}
            response_type: Callable[..., _Response] = type(response)
            return response_type(response.status_code, headers=encoding, content=raw).content

        call.answered(response.status_code, response.headers, decode)
        if response.is_stream_consumed:
            call.body(response.content)
        else:
            response.stream = _WatchedStream(response.stream, call)
        return
    call.finish()


class _WatchedStream(_Proxy):
    """The stream of a response, in everything but that the call sees the bytes first.

    A proxy, because the libraries check the type of a stream and keep attributes on it.
    """

    def __init__(self, stream: object, call: HttpCall) -> None:
        super().__init__(stream)
        self._self_call = call

    def __iter__(self) -> Iterator[bytes]:
        call: HttpCall = self._self_call
        stream: Iterable[bytes] = self.__wrapped__
        try:
            for chunk in stream:
                call.chunk(chunk)
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            call.fail(error)
            raise
        call.finish()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        call: HttpCall = self._self_call
        stream: AsyncIterable[bytes] = self.__wrapped__
        chunks = aiter(stream)
        try:
            async for chunk in chunks:
                call.chunk(chunk)
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            call.fail(error)
            raise
        finally:
            if hasattr(chunks, "aclose"):
                await chunks.aclose()
        call.finish()

    def close(self) -> None:
        try:
            self.__wrapped__.close()
        finally:
            self._self_call.finish()

    async def aclose(self) -> None:
        try:
            await self.__wrapped__.aclose()
        finally:
            self._self_call.finish()

    def __del__(self) -> None:
        # A response that is neither read to its end nor closed was paid for all the same.
        self._self_call.finish()
