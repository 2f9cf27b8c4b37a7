"""The fixtures of the SDK's tests: a model server in a process of its own, metering in this one, a receiver."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures

import farebox
import farebox.guard
import grpc
import pytest
from blank import blank_sqlite
from harness import Collector
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from sdk.sdk_support import DEMO, Metered, OtlpReceiver


@pytest.fixture(scope="session")
def model_url() -> Iterator[str]:
    """The address of the bundled model server, without a path."""
    command = [sys.executable, str(DEMO / "model_server.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{json.loads(server.stdout.readline())['port']}"
        server.terminate()
        assert server.wait(10) == 0, "SIGTERM is a normal end"


@pytest.fixture(scope="session")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A real collector; its tests tell their own calls by their traces."""
    running = Collector(blank_sqlite(tmp_path_factory.mktemp("books")))
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _every_message_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that one test caused does not silence the next test's."""
    monkeypatch.setattr(farebox.guard, "_last_logged", {})
    monkeypatch.setattr(farebox.guard, "_left_out", {})


@pytest.fixture
def metered(model_url: str) -> Iterator[Metered]:
    """Metering on, with the model server among the model APIs; off again afterwards."""
    process = Metered(model_url, TracerProvider(shutdown_on_exit=False))
    farebox.instrument(model_urls=[f"{model_url}/v1"], tracer_provider=process.provider, exporter=process.exporter)
    with process.clients:
        yield process
    farebox.uninstrument()


@pytest.fixture
def metered_server(model_url: str) -> Iterator[Metered]:
    """The same with all paths of the model server."""
    process = Metered(model_url, TracerProvider(shutdown_on_exit=False))
    farebox.instrument(model_urls=[model_url], tracer_provider=process.provider, exporter=process.exporter)
    yield process
    farebox.uninstrument()


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    """An OTLP/gRPC endpoint on a free port."""
    servicer = OtlpReceiver()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    servicer.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    server.stop(None).wait()
