"""Bounds on what clients without a key may keep: who has to go, and when."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from blank import blank_sqlite
from farebox_collector.admission import descriptors
from farebox_collector.admission.connections import CONNECTION, Connection, Connections
from farebox_collector.model.credentials import new_token
from farebox_collector.receivers import call_admission as call_admission_module
from farebox_collector.receivers import http_ports
from farebox_collector.receivers.call_admission import CallAdmission
from farebox_collector.settings import Settings
from harness import EXPORT_METHOD, Collector, unary
from hypothesis import given
from hypothesis import strategies as st
from spans import llm_span, protobuf_body

KEY = new_token()


# ---- who has to go


class World:
    """A port's connections beside a plain list of them."""

    def __init__(self, limit: int, of_peer: int) -> None:
        self.limit, self.of_peer = limit, of_peer
        self.connections = Connections(limit, of_peer)
        self.open: list[Connection] = []

    def connect(self, peer: str) -> Connection:
        connection = Connection(peer, lambda: self.open.remove(connection))
        self.open.append(connection)
        self.connections.add(connection)
        return connection


@given(st.lists(st.tuples(st.sampled_from(["connect", "key", "close", "busy"]), st.integers(0, 6)), max_size=80))
def test_whatever_comes_and_goes_every_bound_holds(steps: list[tuple[str, int]]) -> None:
    world = World(limit=5, of_peer=2)
    for step, number in steps:
        known = [one for one in world.open if one.tenant_id]
        if step == "connect":
            world.connect(f"10.0.0.{number % 4}")
            kept = [one for one in known if one in world.open]
            if any(not one.tenant_id for one in world.open[:-1]):
                assert kept == known, "none with a key goes while there is a stranger"
        elif world.open:
            chosen = world.open[number % len(world.open)]
            if step == "key":
                chosen.note_key(1 + number % 2)
            elif step == "busy":
                chosen.busy = not chosen.busy
            else:
                world.open.remove(chosen)
                world.connections.remove(chosen)
        strangers = [one.peer for one in world.open if not one.tenant_id]
        assert len(world.connections) == len(world.open) <= world.limit
        assert all(strangers.count(peer) <= world.of_peer for peer in strangers)


def test_the_oldest_stranger_makes_room_and_a_new_one_is_let_in() -> None:
    world = World(limit=3, of_peer=3)
    first, second, third = (world.connect(f"10.0.0.{number}") for number in range(3))
    first.note_key(1)
    fourth = world.connect("10.0.0.9")
    assert world.open == [first, third, fourth]
    assert second not in world.open


def test_a_tenant_with_most_connections_makes_room_for_others() -> None:
    world = World(limit=4, of_peer=4)
    many = [world.connect("10.0.0.1") for _ in range(3)]
    few = world.connect("10.0.0.2")
    for connection in many:
        connection.note_key(1)
    few.note_key(2)
    many[0].busy = True
    new = world.connect("10.0.0.3")
    assert world.open == [many[0], many[2], few, new]
    new.note_key(2)
    for connection in world.open:
        connection.busy = True
    assert world.connect("10.0.0.4") not in world.open, "what is being answered is answered"


# ---- an HTTP port


async def _application(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    """Reads the body to its end; a path /known stands for a good key."""
    if scope["path"] == "/known":
        scope[CONNECTION].note_key(1)
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits that a test can wait for."""
    for name in ("HEADER_SECONDS", "STALLED_SECONDS"):
        monkeypatch.setattr(http_ports, name, 0.2)


def on_port(
    work: Callable[[int], Awaitable[None]], limit: int = 50, request_seconds: float = 0.3, of_peer: int = 50
) -> None:
    async def run() -> None:
        settings = Settings(max_connections_per_peer=of_peer)
        async with http_ports.http_port(_application, "127.0.0.1:0", settings, limit, request_seconds) as port:
            await asyncio.wait_for(work(port), 20)

    asyncio.run(run())


async def said(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the line is closed."""
    with contextlib.suppress(ConnectionError):
        return await reader.read()
    return b""


GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: loc", b"408"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab", b""),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", b""),
        (GET % b"/", b"204"),
        (GET % b"/" + b"GET / HT", b"204"),
    ],
    ids=["nothing", "half a header", "half a body", "a chunk without end", "idle", "idle in a second request"],
)
def test_what_does_not_come_to_its_end_is_closed(soon: None, sent: bytes, status: bytes) -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        answer = await said(reader)
        assert answer.split()[1:2] == ([status] if status else []), answer
        writer.close()

    on_port(work)


def test_a_client_with_a_key_may_be_idle_longer(soon: None) -> None:
    async def work(port: int) -> None:
        lines = []
        for path in (b"/known", b"/"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET % path)
            assert b"204" in await reader.readuntil(b"\r\n\r\n")
            lines.append((reader, writer))
        assert await said(lines[1][0]) == b"", "the stranger's is closed"
        lines[0][1].write(GET % b"/")
        assert b"204" in await lines[0][0].readuntil(b"\r\n\r\n")
        for _, writer in lines:
            writer.close()

    on_port(work)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"a" * 1_000),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n" * 200),
        (b"GET /", b"a" * 1_000),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 1_000),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a" * 1_000),
    ],
    ids=["one header", "many headers", "the path", "a chunk's extension", "a trailer"],
)
def test_headers_without_end_are_not_read_to_their_end(start: bytes, more: bytes) -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 * http_ports.MAX_HEADER_BYTES and not writer.is_closing():
                writer.write(more)
                await writer.drain()
                # One loop runs both ends: let the port read.
                await asyncio.sleep(0)
                sent += len(more)
        assert sent < 100 * http_ports.MAX_HEADER_BYTES, "all of it was taken"
        answer = await said(reader)
        assert not answer or answer.split()[1] in (b"431", b"400", b"408"), answer
        writer.close()

    on_port(work, request_seconds=30)


def test_a_body_in_the_smallest_chunks_is_taken() -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            writer.write(b"1\r\na\r\n" * 5_000)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert b"204" in await reader.readuntil(b"\r\n\r\n")
        writer.close()

    on_port(work, request_seconds=30)


def test_requests_far_ahead_of_their_answers_are_refused() -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET % b"/" * 5_000)
        answered = (await said(reader)).count(b"204")
        assert answered <= 2 * http_ports.MAX_PIPELINED
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET % b"/" * http_ports.MAX_PIPELINED)
        for _ in range(http_ports.MAX_PIPELINED):
            assert b"204" in await reader.readuntil(b"\r\n\r\n")
        writer.close()

    on_port(work)


def test_more_connections_than_there_is_room_for_close_the_oldest_strangers() -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET % b"/known")
        await reader.readuntil(b"\r\n\r\n")
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        writer.write(GET % b"/")
        assert b"204" in await reader.readuntil(b"\r\n\r\n"), "who has a key is served on"
        last_reader, last_writer = idle[-1]
        last_writer.write(GET % b"/")
        assert b"204" in await last_reader.readuntil(b"\r\n\r\n"), "and so is the one that came last"
        assert await said(idle[0][0]) == b""
        for _, one in (*idle, (reader, writer)):
            one.close()

    on_port(work, limit=10)
    on_port(work, of_peer=5)


# ---- the gRPC port


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("grpc")), key=KEY, max_connections_per_peer=20)
    yield collector
    assert collector.stop() == 0
    collector.close()


def resident_bytes(collector: Collector) -> int:
    status = Path(f"/proc/{collector.process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_a_message_without_a_key_is_refused_before_it_has_come(guarded: Collector) -> None:
    guarded.export_grpc(protobuf_body([llm_span()]))
    before = resident_bytes(guarded)
    body = bytes(15 * 2**20)
    for _ in range(3):
        with grpc.insecure_channel(guarded.grpc_target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            begun = [unary(channel).future(body, timeout=60) for _ in range(10)]
            assert {call.code() for call in begun} == {grpc.StatusCode.UNAUTHENTICATED}
    # 30 messages of 15 MiB were sent.
    assert resident_bytes(guarded) - before < 60 * 2**20
    guarded.export_grpc(protobuf_body([llm_span()]))


def test_a_stream_without_a_message_and_one_with_two_are_answered(guarded: Collector) -> None:
    stream = guarded.channel.stream_unary(EXPORT_METHOD)  # type: ignore[call-arg]
    metadata = (("authorization", f"Bearer {KEY}"),)
    with pytest.raises(grpc.RpcError) as refused:
        stream(iter(()), timeout=30, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as refused:
        stream(iter((b"", b"")), timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_huge_metadata_does_not_come_in(guarded: Collector) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        unary(guarded.channel)(b"", timeout=30, metadata=(("x-api-key", "k" * 100_000),))
    assert refused.value.code() is not grpc.StatusCode.OK
    guarded.export_grpc(protobuf_body([llm_span()]))


def test_idle_strangers_of_one_address_are_shut_out_of_grpc_and_callers_stay(guarded: Collector) -> None:
    guarded.export_grpc(protobuf_body([llm_span()]))
    address = guarded.grpc_target.rpartition(":")
    lines = [socket.create_connection((address[0], int(address[2])), timeout=30) for _ in range(60)]
    try:
        for line in lines[:30]:
            # The oldest go first: this waits for the next round of the admission at most.
            with contextlib.suppress(ConnectionError):
                while line.recv(4096):
                    pass
        guarded.export_grpc(protobuf_body([llm_span()]))
    finally:
        for line in lines:
            line.close()


def test_the_doorman_forgets_who_is_gone_and_shuts_strangers_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
        admission = CallAdmission(100, 100, lambda: now_s)
        admission.port = port
        with closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as known:
            taken = [listening.accept()[0]]
            admission.note_key(f"ipv4:127.0.0.1:{known.getsockname()[1]}")
            with closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as stranger:
                taken.append(listening.accept()[0])
                assert admission.round() == 0
                now_s = call_admission_module.UNAUTHENTICATED_SECONDS + 1
                assert admission.round() == 1
                assert stranger.recv(1) == b""
                known.sendall(b"x")
                assert taken[0].recv(1) == b"x"
        for connection in taken:
            connection.close()
        assert admission.round() == 0
        assert not admission.__dict__["_known"]
        assert not admission.__dict__["_seen"]


# ---- descriptors


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "raised"),
    [
        (1_024, 1_000_000, 1_000, 4_512),
        (1_024, 2_512, 500, 2_512),
        (100_000, 100_000, 1_000, None),
        (1_024, 1_024, 128, None),
        (256, 256, 32, None),
    ],
)
def test_there_are_descriptors_for_every_connection(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, connections: int, raised: int | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _what, limits: asked.append(limits))
    assert descriptors.connections_of_port(1_000, 4) == connections
    assert asked == ([] if raised is None else [(raised, hard)])
