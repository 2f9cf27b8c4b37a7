"""HTTP ports: uvicorn with bounds on what a client may make it keep and for how long.

Uvicorn has no bound on headers, none on the time that a request takes to come, and none on pipelined requests. Here
each has one, and a client that has not shown a key gets less time than one that has. Who has to go when there are too
many is up to `Connections`.
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
"""Most bytes of a request that are not its body: its line, headers, trailers, and what divides chunks."""
HEADER_SECONDS = 10.0
"""Longest that a request may take until its headers are there, and that a stranger may be idle."""
IDLE_SECONDS = 75
"""Longest that a connection with a key may be idle: exporters send every few seconds."""
STALLED_SECONDS = 60.0
"""Longest that a client may take no byte of an answer."""
MAX_PIPELINED = 16
"""Most requests that a client may send ahead of their answers."""
STOP_SECONDS = 2
"""How long a port that has answered everything waits for the rest of its connections."""
_HANDSHAKE_SECONDS = 10.0
_PIECE = 32 * 2**10
_OVERHEAD_OF_CHUNK = 8
"""What a chunk of one byte costs beside it, at most, when it is written as everyone does."""
_SAME_LINE_SECONDS = 10.0


class CannotListen(Exception):
    """A port cannot be had; the message says which."""


class Protocol(HttpToolsProtocol):
    """One connection, with its bounds."""

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
        """A client has connected."""
        super().connection_made(transport)
        self._place = Connection(self.client[0] if self.client else "", transport.abort)
        if self._connections.add(self._place):
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or was closed."""
        self._connections.remove(self._place)
        self._disarm()
        self._writes_again()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, in pieces, as long as what is not body stays within its bound."""
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
        """A request begins."""
        super().on_message_begin()
        self._in_headers = True
        self._disarm()
        self.scope[CONNECTION] = self._place  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        """The headers are there."""
        if len(self.pipeline) >= MAX_PIPELINED:
            # The parser stops, and the client is told that its request cannot be served.
            raise ValueError("too many requests ahead of their answers")
        self._in_headers, self._in_body, self._place.busy = False, True, True
        self._disarm()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_body = False
        self._taken_bytes = self._body_bytes = 0
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is given: the client may be idle now."""
        self._place.busy = bool(self.pipeline)
        self.timeout_keep_alive = IDLE_SECONDS if self._place.tenant_id else int(HEADER_SECONDS)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client takes nothing of its answer now."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client takes its answer again."""
        super().resume_writing()
        self._writes_again()

    def _arm(self) -> None:
        """Begin to count the time that the rest of a request may take, unless that has begun."""
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
        """Close; with an answer where a request has begun and none is under way."""
        if self.transport.is_closing():
            return
        if self._in_headers and self._taken_bytes and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
        # What a client does not take must not keep it here.
        self.loop.call_later(1, self.transport.abort)


class _Server(uvicorn.Server):
    """Uvicorn as one of several servers in a process: the signals are ours, and we wait until it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; uvicorn's own way leaves a client a minute for the TLS handshake."""
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
        """Leave signals alone."""
        yield


class Seldom(logging.Filter):
    """Lets a line of the log pass once in a while: clients that send rubbish must not fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._last_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        now_s = time.monotonic()
        if now_s - self._last_s.get(record.msg, -_SAME_LINE_SECONDS) < _SAME_LINE_SECONDS:
            return False
        self._last_s[record.msg] = now_s
        return True


@asynccontextmanager
async def http_port(
    app: Any, address: str, settings: Settings, max_connections: int, request_seconds: float
) -> AsyncIterator[int]:
    """Serve an ASGI application while the block runs; yields the port. Raises CannotListen."""
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
        # A client that never finishes its request must not hold up the end.
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ssl_ca_certs=None if settings.tls_client_ca is None else str(settings.tls_client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if settings.tls_client_ca is None else ssl.CERT_REQUIRED,
    )
    server = _Server(config)
    log = logging.getLogger("uvicorn.error")
    if not any(isinstance(one, Seldom) for one in log.filters):
        log.addFilter(Seldom())
    task = asyncio.create_task(server.serve(sockets=[bound]))
    await server.listening.wait()
    try:
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        await task
