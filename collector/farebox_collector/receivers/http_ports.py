"""Serve HTTP ports: uvicorn with bounds on the memory and time that a client can use.

Uvicorn bounds neither headers, nor the time for a request to arrive, nor pipelined requests; this module does. Clients
without a valid key get less time than others. `Connections` decides which connection to close if there are too many.
"""

import asyncio
import logging
import socket
import ssl
import time
from asyncio.events import TimerHandle
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from farebox_collector.admission.connections import CONNECTION, Connection, Connections
from farebox_collector.settings import Settings, host_and_port, is_loopback
from farebox_collector.surfaces.api.hosts import AllowedHosts

MAX_HEADER_BYTES = 32 * 2**10
"""Most bytes of a request outside its body: request line, headers, trailers and chunk framing."""
HEADER_SECONDS = 10.0
"""Longest time for the headers of a request to arrive, and longest idle time without a valid key."""
IDLE_SECONDS = 75
"""Longest idle time of a connection with a valid key: exporters send every few seconds."""
STALLED_SECONDS = 60.0
"""Longest time that a client may read no byte of an answer."""
MAX_PIPELINED = 16
"""Most pipelined requests of a client."""
STOP_SECONDS = 2
"""How long a port waits for its remaining connections after the last answer."""
_HANDSHAKE_SECONDS = 10.0
_PIECE = 32 * 2**10
_OVERHEAD_OF_CHUNK = 8
"""Most framing bytes of a chunk of one byte, as common clients write it."""
_SAME_LINE_SECONDS = 10.0


class CannotListen(Exception):
    """A port cannot be bound; the message names it."""


class Protocol(HttpToolsProtocol):
    """One connection, with bounds on size and time."""

    def __init__(self, *, connections: Connections, request_seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._request_seconds = request_seconds
        self._place: Connection
        self._deadline: TimerHandle | None = None
        self._stalled: TimerHandle | None = None
        self._in_headers = True
        self._in_body = False
        self._taken_bytes = 0
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register a new connection."""
        super().connection_made(transport)
        self._place = Connection(self.client[0] if self.client else "", transport.abort)
        if self._connections.add(self._place):
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove a closed connection."""
        self._connections.remove(self._place)
        self._disarm()
        self._writes_again()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data in pieces while the bytes outside the body stay within their bound."""
        for start in range(0, len(data), _PIECE):
            piece = data if len(data) <= _PIECE else data[start : start + _PIECE]
            self._taken_bytes += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():
                return
            beside_body = self._taken_bytes - self._body_bytes * (1 + _OVERHEAD_OF_CHUNK)
            if beside_body > MAX_HEADER_BYTES:
                self._refuse()
                return
        self._arm()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_headers = True
        self._disarm()
        self.scope[CONNECTION] = self._place  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        """Handle complete headers."""
        if len(self.pipeline) >= MAX_PIPELINED:
            # The parser stops and the client gets status 400.
            raise ValueError("too many pipelined requests")
        self._in_headers, self._in_body, self._place.busy = False, True, True
        self._disarm()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Handle a part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Handle a complete request."""
        self._in_body = False
        self._taken_bytes = self._body_bytes = 0
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Handle a complete answer: set the idle time."""
        self._place.busy = bool(self.pipeline)
        self.timeout_keep_alive = IDLE_SECONDS if self._place.tenant_id else int(HEADER_SECONDS)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read its answer."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop that timer: the client reads again."""
        super().resume_writing()
        self._writes_again()

    def _arm(self) -> None:
        """Start the timer for the rest of a request, unless it runs."""
        if self._deadline is not None:
            return
        if self._in_body:
            self._deadline = self.loop.call_later(self._request_seconds, self._too_slow)
        elif self._in_headers and self._taken_bytes:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _writes_again(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _too_slow(self) -> None:
        self._deadline = None
        self._answer_and_close(408)

    def _refuse(self) -> None:
        self._answer_and_close(431)

    def _answer_and_close(self, status: int) -> None:
        """Close the connection. Answer first if a request has begun and no other answer is in progress."""
        if self.transport.is_closing():
            return
        if self._in_headers and self._taken_bytes and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
        # Unread data must not keep the connection open.
        self.loop.call_later(1, self.transport.abort)


class _Server(uvicorn.Server):
    """Uvicorn as one of several servers in a process: it handles no signals and reports when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with a shorter limit for the TLS handshake than uvicorn's minute."""
        config = self.config
        make: Callable[..., Protocol] = config.http_protocol_class  # type: ignore[assignment]
        seconds: dict[str, Any] = {} if config.ssl is None else {"ssl_handshake_timeout": _HANDSHAKE_SECONDS}
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(self._made(make), sock=bound, ssl=config.ssl, backlog=config.backlog, **seconds)
            for bound in sockets or ()
        ]
        self.started = True
        self.listening.set()

    def _made(self, make: Callable[..., Protocol]) -> Callable[[], Protocol]:
        return partial(make, config=self.config, server_state=self.server_state, app_state={})

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signals."""
        yield


class RateLimitedLog(logging.Filter):
    """Log each message at most once in ten seconds: clients that send invalid data must not fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._last_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a record."""
        now_s = time.monotonic()
        if now_s - self._last_s.get(record.msg, -_SAME_LINE_SECONDS) < _SAME_LINE_SECONDS:
            return False
        self._last_s[record.msg] = now_s
        return True


@asynccontextmanager
async def http_port(
    app: Any, address: str, settings: Settings, max_connections: int, request_seconds: float
) -> AsyncIterator[int]:
    """Serve an ASGI application while the block runs. Yield the port. Raises CannotListen."""
    host, port = host_and_port(address)
    try:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: {error.strerror}") from error
    connections = Connections(max_connections, min(settings.max_connections_per_peer, max_connections))
    config = uvicorn.Config(
        AllowedHosts(app, settings.allowed_hosts, any_address=not is_loopback(address)),
        http=partial(Protocol, connections=connections, request_seconds=request_seconds),  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        ws="none",
        timeout_keep_alive=IDLE_SECONDS,
        # A client that never completes its request must not delay the shutdown.
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ssl_ca_certs=None if settings.tls_client_ca is None else str(settings.tls_client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if settings.tls_client_ca is None else ssl.CERT_REQUIRED,
    )
    server = _Server(config)
    log = logging.getLogger("uvicorn.error")
    if not any(isinstance(one, RateLimitedLog) for one in log.filters):
        log.addFilter(RateLimitedLog())
    task = asyncio.create_task(server.serve(sockets=[bound]))
    await server.listening.wait()
    try:
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        await task
