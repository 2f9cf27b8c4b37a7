"""Recorded events of OpenTelemetry's GenAI instrumentations tell the same calls as the spans beside them."""

import json

import pytest
from agent_sessions import EVENT_RECORDINGS, calls_by_trace, event_recording
from farebox_collector import dialects
from farebox_collector.intake.decoding.otlp_json import JsonDecoder
from farebox_collector.intake.decoding.otlp_json_logs import JsonLogDecoder
from farebox_collector.model.records import Buckets, Span, UsageRecord
from goldens import CALLS


def usages(spans: list[Span]) -> list[UsageRecord]:
    return [usage for span in spans if isinstance(usage := dialects.read(span, ()), UsageRecord)]


def of_five_minutes(buckets: Buckets | None) -> Buckets | None:
    """The buckets as told by one who leaves out how long a cache lives."""
    if buckets is None:
        return None
    return buckets._replace(cache_write=buckets.cache_write + buckets.cache_write_1h, cache_write_1h=0)


@pytest.mark.parametrize("name", EVENT_RECORDINGS)
def test_events_and_spans_tell_the_same_calls(name: str) -> None:
    document = event_recording(name)
    names = calls_by_trace(document["traces"])
    reduced = dialects.reduced_attributes()
    decode_log = JsonLogDecoder(dialects.told_events(), dialects.wanted_log_attributes(()), reduced)
    decode_span = JsonDecoder(dialects.wanted_attributes(()), reduced)
    events = usages(list(decode_log(json.dumps(document["logs"]).encode())))
    spans = list(decode_span(json.dumps(document["traces"]).encode()))
    by_place = {(usage.trace_id, usage.span_id): usage for usage in usages(spans)}
    assert len(events) >= 8
    for event in events:
        call = names[event.trace_id.hex()]
        assert of_five_minutes(event.buckets) == of_five_minutes(CALLS[call].buckets), call
        assert bool(event.error_type) is call.endswith(".error")
        # An event is written within the span of its call.
        span = by_place[event.trace_id, event.parent_span_id]
        assert (span.buckets, span.response_id, span.error_type) == (event.buckets, event.response_id, event.error_type)
