"""Clients that hang up in the middle: no error of ours, and nothing in the log that looks like one."""

import re
import socket
from collections.abc import Iterator

import grpc
import pytest
from blank import blank_sqlite
from farebox_collector.model.credentials import new_token
from harness import EXPORT_METHOD, Collector, unary
from spans import llm_span, protobuf_body

KEY = new_token()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("hang-up")), key=KEY)
    yield collector
    assert collector.stop() == 0
    log = collector.log.read_text(encoding="utf-8")
    assert "Traceback" not in log, log[-4000:]
    assert not re.search(r'"level": ?"(error|critical)"', log, re.IGNORECASE), log[-4000:]
    collector.close()


def hang_up(url: str, data: bytes, *, rudely: bool = False) -> None:
    host, port = url.removeprefix("http://").split("/")[0].split(":")
    line = socket.create_connection((host, int(port)), timeout=30)
    if rudely:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    line.sendall(data)
    line.close()


@pytest.mark.parametrize("rudely", [False, True], ids=["closed", "reset"])
def test_a_client_that_hangs_up_leaves_no_trace(guarded: Collector, rudely: bool) -> None:
    key = b"Host: localhost\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"
    json = key + b"Content-Type: application/json\r\nIdempotency-Key: 1\r\nContent-Length: 1000\r\n\r\n"
    api = (
        b"GET /v1/wal",
        b"GET /v1/usage HTTP/1.1\r\n" + key + b"\r\n",
        b"GET /v1/reports/usage?format=csv HTTP/1.1\r\n" + key + b"\r\n",
        b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/wallets/ada/deposits HTTP/1.1\r\n" + json + b'{"amount_credits": ',
        b"POST /v1/holds HTTP/1.1\r\n" + json + b"{",
        b"POST /v1/alerts/alertmanager HTTP/1.1\r\n" + json,
        b"POST /v1/webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v1/webhooks/stripe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    )
    otlp = (
        b"POST /v1/traces HTTP/1.1\r\n"
        + key
        + b"Content-Type: application/x-protobuf\r\nContent-Length: 1000\r\n\r\nab",
        b"POST /v1/traces HTTP/1.1\r\n"
        + key
        + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5",
        b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
    )
    metrics = (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",)
    for url, requests in ((guarded.api_url, api), (guarded.otlp_url, otlp), (guarded.metrics_url, metrics)):
        for data in requests:
            hang_up(url, data, rudely=rudely)
    hang_up(f"http://{guarded.grpc_target}", b"PRI * HTTP/2.0\r\n", rudely=rudely)
    # The answer to what comes after is the answer to all that came before.
    assert guarded.api.get("/v1/wallets").status_code == 200
    assert guarded.export_http(protobuf_body([llm_span()])).status_code == 200
    assert guarded.metrics()


def test_calls_that_are_cancelled_leave_no_trace(guarded: Collector) -> None:
    metadata = (("authorization", f"Bearer {KEY}"),)
    with grpc.insecure_channel(guarded.grpc_target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        for size in (0, 100, 10 * 2**20):
            call = unary(channel).future(bytes(size), timeout=30, metadata=metadata)
            call.cancel()
        waiting = channel.stream_unary(EXPORT_METHOD).future(iter(lambda: b"", None), timeout=30, metadata=metadata)  # type: ignore[call-arg]
        waiting.cancel()
    with grpc.insecure_channel(guarded.grpc_target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        unary(channel).future(bytes(2**20), timeout=30, metadata=metadata)
    guarded.export_grpc(protobuf_body([llm_span()]))
