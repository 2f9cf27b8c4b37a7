"""Limits on what a tenant and a key may send: refused with a delay, so that clients retry and drop nothing."""

from collections.abc import Iterator
from typing import Any

import grpc
import httpx2
import pytest
from blank import blank_sqlite
from farebox_collector.admission.rates import Rates
from farebox_collector.model.credentials import new_token
from farebox_collector.settings import Settings
from google.rpc.error_details_pb2 import RetryInfo
from harness import Collector, unary
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from pydantic import ValidationError
from spans import llm_span, protobuf_body

ADMIN = new_token()


@pytest.fixture
def limited(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Collector]:
    """A collector with the limits that a test names."""
    directory = tmp_path_factory.mktemp("rates")
    collector = Collector(blank_sqlite(directory), bootstrap_key=ADMIN, **request.param)
    yield collector
    assert collector.stop() == 0
    collector.close()


def make_key(collector: Collector, *scopes: str, **fields: Any) -> str:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    made = collector.api.post("/v1/keys", headers=headers, json={"name": "r", "scopes": scopes, **fields})
    return str(made.raise_for_status().json()["key"])


def send(collector: Collector, token: str, spans: int = 1) -> httpx2.Response:
    body = protobuf_body([llm_span() for _ in range(spans)])
    return collector.export_http(body, authorization=f"Bearer {token}")


@pytest.mark.parametrize("limited", [{"limit_key_spans": "10/hour", "limit_tenant_requests": ""}], indirect=True)
def test_spans_over_the_limit_of_a_key_come_later_and_other_keys_go_on(limited: Collector) -> None:
    busy, other = make_key(limited, "ingest"), make_key(limited, "ingest")
    # What a request brings beyond the limit is taken: no request is torn apart.
    assert send(limited, busy, 15).status_code == 200
    refused = send(limited, busy)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 3_600
    assert send(limited, other, 3).status_code == 200
    metadata = (("authorization", f"Bearer {busy}"),)
    with pytest.raises(grpc.RpcError) as over:
        unary(limited.channel)(protobuf_body([llm_span()]), timeout=30, metadata=metadata)
    assert over.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers: dict[str, Any] = {entry.key: entry.value for entry in over.value.trailing_metadata()}
    delay = RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"]).retry_delay
    assert 0 < delay.seconds <= 3_600
    samples = limited.metrics()
    assert samples['farebox_export_requests_total{outcome="limited",transport="http"}'] == 1
    assert samples['farebox_export_requests_total{outcome="limited",transport="grpc"}'] == 1


@pytest.mark.parametrize("limited", [{"limit_tenant_requests": "12/hour"}], indirect=True)
def test_a_tenant_that_asks_too_much_is_told_when_to_come_and_others_are_served(limited: Collector) -> None:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    limited.api.post("/v1/tenants", headers=headers, json={"tenant": "busy"}).raise_for_status()
    busy = [make_key(limited, "read", "ingest", tenant="busy") for _ in range(2)]
    answers = [limited.api.get("/v1/usage", headers={"X-API-Key": busy[n % 2]}) for n in range(14)]
    assert [answer.status_code for answer in answers] == [200] * 12 + [429] * 2
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 3_600
    assert send(limited, busy[0]).status_code == 429, "over OTLP it is the same limit"
    assert limited.api.get("/v1/usage", headers=headers).status_code == 200


@pytest.mark.parametrize("limited", [{"limit_tenant_bytes": "2000/second"}], indirect=True)
def test_a_client_of_opentelemetry_waits_and_sends_again(limited: Collector) -> None:
    exporter = HttpExporter(f"{limited.otlp_url}/v1/traces", headers={"Authorization": f"Bearer {ADMIN}"}, timeout=30)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("rates")
    for number in range(6):
        attributes: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
        attributes |= {"user.id": "ada", "gen_ai.request.model": "gpt-4o-mini", "gen_ai.usage.input_tokens": 10}
        with tracer.start_as_current_span(f"chat {number}", attributes={**attributes, "note": "x" * 900}):
            pass
    provider.shutdown()
    headers = {"Authorization": f"Bearer {ADMIN}"}
    found = limited.api.get("/v1/usage", headers=headers, params={"wallet": "ada"}).json()["items"]
    assert len(found) == 6
    assert limited.metrics()['farebox_export_requests_total{outcome="limited",transport="http"}'] > 0


@pytest.mark.parametrize("text", ["much", "0/second", "-1/second", "10", "10/fortnight", "1/second; 5"])
def test_a_limit_that_does_not_read_as_one_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValidationError, match="is not a limit: write 100/second"):
        Settings(limit_key_spans=text)


def test_no_limit_is_set_by_itself() -> None:
    assert not Rates(Settings()).are_set
