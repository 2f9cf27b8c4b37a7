"""Sends OTLP requests as fast as they are answered, or at a steady rate, from a process of its own.

    .venv/bin/python benchmarks/load.py --endpoint 127.0.0.1:4318 --transport http --seconds 10

Each request in flight has a connection of its own. A request that is refused is sent again until it is taken, so that
at the end every number in `Sent.acknowledged` was acknowledged and no other body was sent: the books must hold exactly
these. At a steady rate latency counts from the moment a request was due, so that a server that stalls cannot hide it.
"""

import argparse
import math
import multiprocessing
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.pool import AsyncResult
from typing import NamedTuple, Protocol

import grpc
from bodies import Shape, owed
from log_bodies import maker

HTTP, GRPC = "http", "grpc"
EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
IN_FLIGHT = 8
"""Requests that a client keeps open at a time."""
_TIMEOUT_S = 120.0
_GIVE_UP_S = 300.0
_WAIT_S = 0.05


class Load(NamedTuple):
    """What is to be sent, and to whom."""

    endpoints: Sequence[str]
    """`host:port` of one server or several; connections are spread over them."""
    transport: str
    shape: Shape
    first: int = 0
    """The number of the first body."""
    seconds: float = math.inf
    bodies: int | None = None
    """When to end: after so much time, or so many bodies, whichever is first."""
    in_flight: int = IN_FLIGHT
    spans_a_second: float | None = None
    """A steady rate; as fast as possible without."""
    headers: tuple[tuple[str, str], ...] = ()
    """What a server wants to be told over HTTP beside the body."""
    began_ns: int | None = None
    step_ns: int = 0
    """Where it is history: when the calls of the first body of all began, and how much later those of each next one."""

    def at_ns(self, number: int) -> int:
        """When the calls of a body ended."""
        return time.time_ns() if self.began_ns is None else self.began_ns + number * self.step_ns


class Answered(NamedTuple):
    """One request that was acknowledged."""

    number: int
    asked_s: float
    """When it was sent, or due where there is a rate; on the clock of `time.monotonic`."""
    acknowledged_s: float


class Sent(NamedTuple):
    """What came of it."""

    began_s: float
    ended_s: float
    answered: list[Answered]
    refused: Counter[str]
    """Answers other than an acknowledgement, by status."""
    generator_cpu_s: float

    @property
    def acknowledged(self) -> list[int]:
        """Numbers of the bodies that were acknowledged."""
        return [one.number for one in self.answered]

    def latencies_s(self) -> list[float]:
        """From asked to acknowledged, ascending."""
        return sorted(one.acknowledged_s - one.asked_s for one in self.answered)


class NotTaken(RuntimeError):
    """A server refused a request for too long."""


class _Connection(Protocol):
    def send(self, request: bytes) -> str:
        """Send a request; its status, empty if it was acknowledged."""

    def close(self) -> None:
        """Let go."""


class Generator:
    """A process that sends; it keeps its templates from one load to the next."""

    def __init__(self) -> None:
        self._pool = multiprocessing.get_context("spawn").Pool(1)

    def close(self) -> None:
        """End the process."""
        self._pool.terminate()
        self._pool.join()

    def send(self, load: Load) -> Sent:
        """Send all of it. Raises NotTaken."""
        return self.start(load).get()

    def start(self, load: Load) -> "AsyncResult[Sent]":
        """Begin to send, and return at once."""
        return self._pool.apply_async(send, (load,))


def send(load: Load) -> Sent:
    """Send from threads of this process. Raises NotTaken."""
    maker(load.shape).prepare(load.shape)
    return _Sender(load).run()


class _Sender:
    """Hands out the numbers and gathers the answers."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._handed_out = 0
        self._answered: list[Answered] = []
        self._refused: Counter[str] = Counter()
        self._failure: Exception | None = None
        self._began_s = 0.0
        self._gap_s = 0.0 if load.spans_a_second is None else load.shape.spans / load.spans_a_second

    def run(self) -> Sent:
        """Connect, send everything, and sum up."""
        load = self._load
        signal = "logs" if load.shape.logs else "traces"
        connections = [
            connect(load.transport, load.endpoints[index % len(load.endpoints)], load.headers, signal)
            for index in range(load.in_flight)
        ]
        threads = [threading.Thread(target=self._work, args=(connection,)) for connection in connections]
        cpu_s = _own_cpu_s()
        self._began_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended_s = time.monotonic()
        for connection in connections:
            connection.close()
        if self._failure is not None:
            raise self._failure
        return Sent(self._began_s, ended_s, self._answered, self._refused, _own_cpu_s() - cpu_s)

    def _work(self, connection: _Connection) -> None:
        made = maker(self._load.shape)
        try:
            while (turn := self._next()) is not None:
                number, due_s = turn
                request = made.body(self._load.shape, number, self._load.at_ns(number))
                if self._gap_s:
                    time.sleep(max(0.0, due_s - time.monotonic()))
                asked_s = due_s if self._gap_s else time.monotonic()
                self._until_taken(connection, request)
                self._answered.append(Answered(number, asked_s, time.monotonic()))
        except Exception as error:
            self._failure = error

    def _next(self) -> tuple[int, float] | None:
        """The next number and when it is due; None when it is time to end."""
        with self._lock:
            index = self._handed_out
            due_s = self._began_s + index * self._gap_s
            now_s = max(due_s, time.monotonic())
            ended = now_s - self._began_s >= self._load.seconds or index == self._load.bodies
            if ended or self._failure is not None:
                return None
            self._handed_out += 1
            return self._load.first + index, due_s

    def _until_taken(self, connection: _Connection, request: bytes) -> None:
        give_up_s = time.monotonic() + _GIVE_UP_S
        while status := connection.send(request):
            with self._lock:
                self._refused[status] += 1
            if time.monotonic() > give_up_s or self._failure is not None:
                raise NotTaken(f"a request was not taken: {status}")
            time.sleep(_WAIT_S)


def connect(
    transport: str, endpoint: str, headers: Sequence[tuple[str, str]] = (), signal: str = "traces"
) -> _Connection:
    """A connection of its own; only HTTP carries other signals than traces here."""
    return _Http(endpoint, headers, signal) if transport == HTTP else _Grpc(endpoint)


class _Http:
    """OTLP/HTTP over a bare socket: what a client spends here, the server cannot have."""

    def __init__(self, endpoint: str, headers: Sequence[tuple[str, str]], signal: str) -> None:
        host, port = endpoint.rsplit(":", 1)
        self._address = host, int(port)
        lines = [f"{name}: {value}\r\n" for name, value in (("Content-Type", "application/x-protobuf"), *headers)]
        self._head = f"POST /v1/{signal} HTTP/1.1\r\nHost: {endpoint}\r\n{''.join(lines)}Content-Length: ".encode()
        self._socket = self._connected()

    def _connected(self) -> socket.socket:
        connected = socket.create_connection(self._address, _TIMEOUT_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def send(self, request: bytes) -> str:
        try:
            return self._send(request)
        except OSError as error:
            # It may have been taken all the same; sending it again must change nothing.
            self._socket.close()
            self._socket = self._connected()
            return type(error).__name__

    def _send(self, request: bytes) -> str:
        self._socket.sendall(b"%b%d\r\n\r\n%b" % (self._head, len(request), request))
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._receive()
        head = answer[:end].lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        missing = int(length or 0) - (len(answer) - end - 4)
        while missing > 0:
            missing -= len(self._receive())
        status = head[9:12].decode()
        return "" if status == "200" else status

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return data

    def close(self) -> None:
        self._socket.close()


class _Grpc:
    """OTLP/gRPC; bytes go in and out as they are."""

    def __init__(self, endpoint: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(endpoint, options=options)
        self._export = self._channel.unary_unary(EXPORT_METHOD)  # type: ignore[call-arg]  # no serializers: bytes
        grpc.channel_ready_future(self._channel).result(timeout=_TIMEOUT_S)

    def send(self, request: bytes) -> str:
        try:
            self._export(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            return error.code().name
        return ""

    def close(self) -> None:
        self._channel.close()


def spans_a_second(sent: Sent, shape: Shape) -> float:
    """Spans that were acknowledged in a second, from the first request to the last answer."""
    return len(sent.answered) * shape.spans / (sent.ended_s - sent.began_s)


def quantile_s(ascending: Sequence[float], share: float) -> float:
    """The value below which a share of them lies."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Send to a server that runs, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", action="append", required=True, help="host:port; may be repeated")
    parser.add_argument("--transport", choices=(HTTP, GRPC), default=HTTP)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="another seed, other spans")
    parser.add_argument("--wallets", type=int, default=Shape().wallets)
    parser.add_argument("--spans", type=int, default=Shape().spans, help="of a request")
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT)
    parser.add_argument("--rate", type=float, help="spans a second; as fast as possible without")
    options = parser.parse_args()
    shape = Shape(seed=options.seed, spans=options.spans, wallets=options.wallets)
    load = Load(
        options.endpoint,
        options.transport,
        shape,
        seconds=options.seconds,
        in_flight=options.in_flight,
        spans_a_second=options.rate,
    )
    sent = send(load)
    latencies = sent.latencies_s()
    print(
        f"{spans_a_second(sent, shape):,.0f} spans/s acknowledged; p50 {quantile_s(latencies, 0.5) * 1e3:.1f} ms,"
        f" p99 {quantile_s(latencies, 0.99) * 1e3:.1f} ms; refused {dict(sent.refused) or 'none'};"
        f" worth {sum(owed(shape, sent.acknowledged).values()):,} nano-dollars; seed {shape.seed}"
    )


if __name__ == "__main__":
    main()
