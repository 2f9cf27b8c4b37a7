"""The event of the GenAI conventions is read like its span, and log records get permanent ids."""

from farebox_collector import dialects
from farebox_collector.dialects.event_identity import identified
from farebox_collector.model.records import EVENT_NAME, Buckets, NotBillable, Rejected, Span, UsageRecord
from hypothesis import given, settings
from hypothesis import strategies as st

EVENT = "gen_ai.client.inference.operation.details"
NOW_NS = 1_790_000_000_123_456_789


def record(at_ns: int = NOW_NS, trace_id: bytes = b"", span_id: bytes = b"", **attributes: str | int) -> Span:
    """A log record at the door; `__` for a dot."""
    told: dict[str, str | int] = {
        EVENT_NAME: EVENT,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": "20",
        "farebox.wallet": "ada",
    }
    told |= {key.replace("__", "."): value for key, value in attributes.items()}
    return Span(trace_id, b"", span_id, at_ns, at_ns, False, told, {}, "test", "1")


def read(span: Span) -> UsageRecord:
    reading = dialects.read(span, ())
    assert isinstance(reading, UsageRecord)
    return reading


def test_an_event_is_read_like_its_span() -> None:
    told = record(gen_ai__response__id="resp_1", gen_ai__usage__cache_read__input_tokens=40)
    usage = read(told)
    span = told._replace(trace_id=usage.trace_id, span_id=usage.span_id)
    attributes = {key: value for key, value in told.attributes.items() if key != EVENT_NAME}
    of_span = read(span._replace(attributes=attributes))
    assert usage == of_span._replace(dialect="genai_event")
    assert usage.buckets == Buckets(input=60, cache_read=40, output=20)


def test_an_event_is_within_the_span_that_was_open() -> None:
    usage = read(record(trace_id=b"t" * 16, span_id=b"s" * 8))
    assert (usage.trace_id, usage.parent_span_id) == (b"t" * 16, b"s" * 8)
    assert usage.span_id not in (b"", b"s" * 8)


def test_other_events_and_unusable_counts() -> None:
    assert isinstance(dialects.read(record(event__name="app.started"), ()), NotBillable)
    assert isinstance(dialects.read(record(gen_ai__usage__input_tokens=-1), ()), Rejected)


def test_each_call_of_a_conversation_has_ids_of_its_own() -> None:
    one = read(record(gen_ai__conversation__id="c"))
    later = read(record(NOW_NS + 1, gen_ai__conversation__id="c"))
    elsewhere = read(record(gen_ai__conversation__id="d"))
    assert len({(usage.trace_id, usage.span_id) for usage in (one, later, elsewhere)}) == 3


TEXTS = st.text(max_size=4)
TOLD = st.fixed_dictionaries(
    {
        "request_id": TEXTS,
        "session": TEXTS,
        "sequence": TEXTS,
        "counts": st.tuples(st.integers(0, 2), st.integers(0, 2)),
        "tool": st.sampled_from(["one", "two"]),
        "at_ns": st.integers(1, 3),
        "event": st.sampled_from(["a", "b"]),
    }
)


def ids(told: dict[str, object]) -> tuple[bytes, bytes]:
    at_ns, event, tool = told["at_ns"], told["event"], told["tool"]
    span = record(at_ns, event__name=event)  # type: ignore[arg-type]
    names = {name: told[name] for name in ("request_id", "session", "sequence", "counts")}
    found = identified(span, tool, **names)  # type: ignore[arg-type]
    return found.trace_id, found.span_id


def identity(told: dict[str, object]) -> tuple[object, ...]:
    """What distinguishes calls, by the rule and without a hash."""
    apart = told["tool"], told["event"]
    if told["request_id"]:
        return (*apart, told["request_id"])
    return (*apart, None, told["session"], told["sequence"], told["at_ns"], told["counts"])


@given(TOLD, TOLD)
@settings(max_examples=300, deadline=None, database=None)
def test_ids_are_equal_if_and_only_if_the_same_call_is_told(one: dict[str, object], other: dict[str, object]) -> None:
    assert (ids(one) == ids(other)) is (identity(one) == identity(other))
    assert all(map(any, ids(one)))


def test_a_span_keeps_its_ids() -> None:
    span = record(trace_id=b"t" * 16)._replace(span_id=b"s" * 8)
    assert identified(span, "tool", session="x") is span
