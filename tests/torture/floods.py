"""Clients without a key that try to use a collector up, each in a way of its own. Loopback only, bounded in number.

A flood goes on until it is told to stop. It takes turns with what it floods: a machine with few cores would otherwise
measure how much of it the flood takes for itself.
"""

import multiprocessing
import secrets
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import grpc
import httpx2
from harness import Collector, unary
from torture.world import Broken

MOST_CONNECTIONS = 1_200
_PAUSE_S = 0.002
_BIG_MESSAGE = 15 * 2**20
_CALLS_AT_ONCE = 12


class Ports(NamedTuple):
    """Where a collector listens on loopback."""

    grpc: int
    otlp: int
    api: int
    metrics: int

    @classmethod
    def of(cls, collector: Collector) -> "Ports":
        """The ports of a collector."""
        urls = (collector.otlp_url, collector.api_url, collector.metrics_url.removesuffix("/metrics"))
        return cls(int(collector.grpc_target.rpartition(":")[2]), *(int(url.rpartition(":")[2]) for url in urls))


Going = Callable[[], bool]
"""Whether a flood goes on."""


def slow_headers(ports: Ports, going: Going) -> int:
    """A few hundred requests that send a byte of their headers at a time, and never end."""
    return _drip(ports, going, b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nX-Long: ", 300)


def slow_bodies(ports: Ports, going: Going) -> int:
    """As many bodies that come a byte at a time: to the one path that needs no key, and to those that do."""
    head = b"POST /v1/webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"
    return _drip(ports, going, head, 300)


def idle_connections(ports: Ports, going: Going) -> int:
    """More connections than each port takes, from several addresses, which send nothing and reconnect when closed."""
    return _hold(ports, going, 4 * MOST_CONNECTIONS)


def huge_headers(ports: Ports, going: Going) -> int:
    """Headers without end, as fast as they are taken: one value that grows, many lines, and a chunk's extension."""
    starts = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"GET /" + b"a" * 60_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /v1/webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"POST /v1/webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    )
    tried = 0
    while going():
        for start in starts:
            for port in (ports.otlp, ports.api, ports.metrics):
                more = b"X-Y: z\r\n" * 8_000 if start.endswith(b"\r\n") else b"a" * 64_000
                tried += 1
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as line:
                    line.sendall(start)
                    for _ in range(50):
                        line.sendall(more)
        time.sleep(5 * _PAUSE_S)
    return tried


def big_messages(ports: Ports, going: Going) -> int:
    """Messages as large as are taken, over several gRPC connections at once, without a key."""
    body, tried = bytes(_BIG_MESSAGE), 0
    channels = [
        grpc.insecure_channel(f"127.0.0.1:{ports.grpc}", options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(4)
    ]
    calls = [unary(channel) for channel in channels]
    while going():
        begun = [calls[number % len(calls)].future(body, timeout=30) for number in range(_CALLS_AT_ONCE)]
        for call in begun:
            tried += 1
            code = call.code()
            if code is grpc.StatusCode.OK:
                raise Broken("a message without a key was taken")
        time.sleep(10 * _PAUSE_S)
    for channel in channels:
        channel.close()
    return tried


def unknown_keys(ports: Ports, going: Going) -> int:
    """Well-formed keys that do not exist, a new one each time."""
    tried = 0
    with httpx2.Client(timeout=30) as client:
        while going():
            token = f"fbx_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
            url = f"http://127.0.0.1:{(ports.api, ports.otlp)[tried % 2]}/v1/{('wallets', 'traces')[tried % 2]}"
            answer = client.request(("GET", "POST")[tried % 2], url, headers={"X-API-Key": token})
            if answer.status_code not in (401, 503):
                raise Broken(f"an unknown key was answered with {answer.status_code}")
            tried += 1
            time.sleep(_PAUSE_S)
    return tried


def many_pipelined(ports: Ports, going: Going) -> int:
    """Thousands of requests on one connection, none of whose answers is read."""
    tried = 0
    while going():
        for port in (ports.api, ports.otlp, ports.metrics):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as line:
                tried += 1
                line.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5_000)
        time.sleep(10 * _PAUSE_S)
    return tried


FLOODS = {
    "slow headers": slow_headers,
    "slow bodies": slow_bodies,
    "idle connections": idle_connections,
    "huge headers": huge_headers,
    "big gRPC messages": big_messages,
    "unknown keys": unknown_keys,
    "many pipelined": many_pipelined,
}


class Flood:
    """A flood in a process of its own, which begins and stops when it is told to."""

    def __init__(self, name: str, collector: Collector) -> None:
        self.tried = 0
        """Requests or connections so far."""
        spawn = multiprocessing.get_context("spawn")
        self._line, other_end = spawn.Pipe()
        self._process = spawn.Process(target=_flood, args=(other_end, name, Ports.of(collector)), daemon=True)

    def __enter__(self) -> "Flood":
        self._process.start()
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    @contextmanager
    def loose(self) -> Iterator[None]:
        """Let it loose for the block. Raises Broken if the collector did what it must not do."""
        self._line.send("go")
        yield
        self._line.send("stop")
        self._answer()

    def _answer(self) -> None:
        if not self._line.poll(120):
            raise Broken("the flood did not end in 120 s")
        answer: Any = self._line.recv()
        if isinstance(answer, str):
            raise Broken(answer)
        self.tried += answer


def _flood(line: Connection, name: str, ports: Ports) -> None:
    line.send(0)
    while line.recv():
        try:
            answer: int | str = FLOODS[name](ports, lambda: not line.poll())
        except Exception as error:
            answer = repr(error)
        line.recv()
        line.send(answer)


def _drip(ports: Ports, going: Going, head: bytes, connections: int) -> int:
    tried, lines = (
        0,
        [_Line((ports.otlp, ports.api, ports.metrics)[number % 3], number) for number in range(connections)],
    )
    for line in lines:
        line.open(head)
    while going():
        for line in lines:
            tried += 1
            if not line.send(b"x"):
                line.open(head)
            if not going():
                break
            time.sleep(_PAUSE_S)
    for line in lines:
        line.close()
    return tried


def _hold(ports: Ports, going: Going, connections: int) -> int:
    """Keep so many connections open, and open each again that is closed."""
    tried, lines = 0, [_Line(ports[number % 4], number) for number in range(connections)]
    with selectors.DefaultSelector() as watched:
        for line in lines:
            tried += 1
            if line.open(b""):
                watched.register(line.socket, selectors.EVENT_READ, line)
            time.sleep(_PAUSE_S / 4)
        while going():
            for key, _ in watched.select(timeout=0.05):
                line = key.data
                watched.unregister(line.socket)
                tried += 1
                if line.open(b""):
                    watched.register(line.socket, selectors.EVENT_READ, line)
                time.sleep(_PAUSE_S)
    for line in lines:
        line.close()
    return tried


class _Line:
    """One connection, from one of several addresses of this machine."""

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._address = f"127.0.0.{2 + number % 8}"
        self.socket: socket.socket

    def open(self, head: bytes) -> bool:
        """Connect, again if need be; whether that could be done."""
        self.close()
        try:
            self.socket = socket.create_connection(
                ("127.0.0.1", self._port), timeout=2, source_address=(self._address, 0)
            )
            self.socket.sendall(head)
        except OSError:
            return False
        return True

    def send(self, data: bytes) -> bool:
        """Send; whether that could be done."""
        try:
            self.socket.sendall(data)
        except (OSError, AttributeError):
            return False
        return True

    def close(self) -> None:
        """End it."""
        with suppress(AttributeError):
            self.socket.close()
