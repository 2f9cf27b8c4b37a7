"""Costs over HTTP, from spans that a real collector was sent; the books that they come from are proved elsewhere."""

from typing import Any

import httpx2
import pytest
from harness import Collector
from spans import llm_span, protobuf_body


def costs(collector: Collector, **query: Any) -> httpx2.Response:
    return collector.api.get("/v1/costs", params=query)


def test_costs_of_1000_tokens_by_any_property(shared_collector: Collector) -> None:
    """gpt-4o-mini: 1000 × 150 + 200 × 600 nano-USD; with 400 of them cached at 75: 240,000; a batch is half of all."""
    tags: dict[str, Any] = {"farebox__dept": "support"}
    cached: dict[str, Any] = {"gen_ai__usage__cache_read__input_tokens": 400}
    batch: dict[str, Any] = {"openai__response__service_tier": "batch"}
    spans = [llm_span(**tags), llm_span(**tags, **cached), llm_span(farebox__dept="sales", **batch)]
    shared_collector.export_grpc(protobuf_body([*spans, llm_span(model="no-such-model")]))
    answer = costs(shared_collector).raise_for_status().json()
    (model,) = answer["items"]
    assert (model["key"], model["calls"], model["input_tokens"], model["output_tokens"]) == (
        "openai/gpt-4o-mini",
        3,
        3000,
        600,
    )
    assert (model["cost_usd"], model["other_cost_usd"]) == ("0.000645000", "0.000000000")
    assert (model["input_cost_usd"], model["output_cost_usd"]) == ("0.000345000", "0.000300000")
    assert model["cost_per_1k_usd"] == "0.000179167"  # 645,000 ÷ 3.6
    assert model["list_cost_per_1k_usd"] == "0.000225000"  # (3000 × 150 + 600 × 600) ÷ 3.6
    assert model["drift_percent"] == "-20.37"
    assert answer["total"] == {**model, "key": ""}
    by_dept = {item["key"]: item["cost_usd"] for item in costs(shared_collector, group_by="dept").json()["items"]}
    assert by_dept == {"support": "0.000510000", "sales": "0.000135000"}
    by_tier = costs(shared_collector, group_by="service_tier", limit=1).json()
    assert [item["key"] for item in by_tier["items"]] == [""]
    assert by_tier["total"]["calls"] == 3
    assert costs(shared_collector, until="2020-01-01T00:00:00Z").json()["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"group_by": "wallet"},
        {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"since": "2020-01-01T00:00:00Z"},
        {"since": "yesterday"},
        {"since": "1960-01-01T00:00:00Z"},
        {"limit": "0"},
    ],
)
def test_a_period_or_grouping_that_cannot_be_is_a_problem_document(
    shared_collector: Collector, query: dict[str, str]
) -> None:
    answer = costs(shared_collector, **query)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
