"""The real openai and anthropic clients and httpx, through SDK and collector, against hand-worked figures."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from harness import Collector, clean_environment, unary

REPOSITORY = Path(__file__).parents[2]

# Nano-USD. Prices a million tokens: gpt-4o-mini 0.15 / 0.075 cached / 0.60, text-embedding-3-small 0.02,
# claude-sonnet-4-5 3 / 0.30 read / 3.75 written / 6 written for an hour / 15, claude-haiku-4-5 1 / 5, gpt-4o 2.50 / 10.
EXPECTED_NANO = {
    "openai-plain": 600 * 150 + 400 * 75 + 200 * 600,
    "openai-stream": 10 * 150 + 20 * 600,
    "openai-stream-blind": 0,
    "openai-embeddings": 100 * 20,
    "anthropic-plain": 1000 * 3_000 + 400 * 300 + 70 * 3_750 + 30 * 6_000 + 200 * 15_000,
    "anthropic-stream": 50 * 1_000 + 60 * 5_000,
    "httpx-plain": 300 * 2_500 + 40 * 10_000,
    "failing": 0,
    "unattributed": 1 * 150 + 1 * 600,
}
EXPECTED_VERDICTS = {wallet: ["charged"] for wallet, nano in EXPECTED_NANO.items() if nano} | {
    "openai-stream-blind": ["unmetered"],
    "failing": ["failed"],
    "unattributed": ["charged", "unpriced"],
}


@contextmanager
def model_server() -> Iterator[str]:
    """The bundled model server; yields its URL."""
    command = [sys.executable, str(REPOSITORY / "instrumentation/demo/model_server.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.terminate()


@contextmanager
def recording_grpc(collector: Collector, bodies: list[bytes]) -> Iterator[str]:
    """A proxy in front of the collector's gRPC port that keeps every body; yields its endpoint."""
    forward = unary(collector.channel)

    def export(body: bytes, _context: grpc.ServicerContext) -> bytes:
        bodies.append(body)
        answer: bytes = forward(body, timeout=30)
        return answer

    class Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            return grpc.unary_unary_rpc_method_handler(export)

    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def recording_http(collector: Collector, bodies: list[bytes]) -> Iterator[str]:
    """The same in front of its HTTP port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            bodies.append(body)
            answer = collector.export_http(body)
            self.send_response(answer.status_code)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_real_calls_are_debited_to_the_nano_dollar_and_once(collector: Collector, protocol: str) -> None:
    bodies: list[bytes] = []
    recording = recording_grpc if protocol == "grpc" else recording_http
    with model_server() as model_url, recording(collector, bodies) as endpoint:
        environment = clean_environment() | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }
        application = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("metered_calls.py")), model_url],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert application.returncode == 0, application.stderr
    assert bodies

    def check() -> None:
        wallets = {row["wallet"]: row["spent_credits"] for row in collector.pages("/v1/wallets")}
        assert wallets == {name: f"0.{nano:09d}" for name, nano in EXPECTED_NANO.items()}
        for wallet, verdicts in EXPECTED_VERDICTS.items():
            found = [row["verdict"] for row in collector.usage(wallet=wallet) if row["verdict"] != "covered"]
            assert sorted(found) == verdicts, wallet

    check()
    for body in bodies + bodies[::-1]:
        if protocol == "grpc":
            collector.export_grpc(body)
        else:
            collector.export_http(body).raise_for_status()
    check()
    collector.audit()
