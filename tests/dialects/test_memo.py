"""The memo of earlier spans never changes how a span is read."""

import random
import sys
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from farebox_collector import dialects
from farebox_collector.dialects.memo import MAX_TEXT
from farebox_collector.model.records import Attributes, Span, UsageRecord
from goldens import EMITTERS, spans_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WALLETS = ("user.id", "cloud.region")
# Equal to each other, and not the same: as names they are "1", "1.0" and "True".
ALIKE = st.sampled_from((1, 1.0, True, "1", 0, 0.0, -0.0, False, "", "chat", "LLM", "openai", "anthropic", ("chat",)))
COUNTS = st.sampled_from((0, 3, 1.0, True, -1, 10**12))
NAMES = (
    *("farebox.wallet", "user.id", "farebox.event", "farebox.dept", "cloud.region", "farebox.action.id"),
    *("farebox.review.approved", "openinference.span.kind", "llm.model_name", "llm.provider"),
    *("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.is_streaming", "error.type"),
)
COUNTED = (
    *("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "gen_ai.usage.output_tokens"),
    *("gen_ai.usage.cache_read.input_tokens", "llm.token_count.prompt", "llm.token_count.completion"),
    *("farebox.units.pages", "farebox.units.input_document_pages", "farebox.usage.missing"),
)
SCOPES = ("", "openlit.anthropic", "opentelemetry.instrumentation.anthropic", "logfire", "x" * MAX_TEXT)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    """A span that differs from others in little: few attributes, with values that are equal, in any order."""
    names: dict[str, Any] = draw(st.dictionaries(st.sampled_from(NAMES), ALIKE, max_size=5))
    counts: dict[str, Any] = draw(st.dictionaries(st.sampled_from(COUNTED), COUNTS, max_size=3))
    attributes = dict(draw(st.permutations(list({**names, **counts}.items()))))
    resource: dict[str, Any] = draw(st.dictionaries(st.just("cloud.region"), ALIKE))
    return made(attributes, resource, draw(st.sampled_from(SCOPES)), draw(st.booleans()))


def made(attributes: Attributes, resource: Attributes, scope: str = "", failed: bool = False) -> Span:
    return Span(b"t" * 16, b"s" * 8, b"", 10**18, 10**18 + 1, failed, attributes, resource, scope, "1")


def exactly(reading: Any) -> str:
    """A reading, its types included: 1 and True are equal and have names of their own."""
    return repr(reading)


@given(st.lists(spans(), max_size=12))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_span_is_read_alike_whatever_was_read_before(sequence: list[Span]) -> None:
    remembering = dialects.Reader(WALLETS)
    for span in (*sequence, *sequence):
        assert exactly(remembering.read(span)) == exactly(dialects.Reader(WALLETS).read(span))


@given(spans(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_order_of_attributes_makes_no_difference(span: Span, chance: random.Random) -> None:
    pairs = list(span.attributes.items())
    chance.shuffle(pairs)
    shuffled = span._replace(attributes=dict(pairs))
    assert exactly(dialects.Reader(WALLETS).read(shuffled)) == exactly(dialects.Reader(WALLETS).read(span))


def test_spans_of_the_real_emitters_are_read_alike_by_one_reader_and_by_one_each() -> None:
    remembering = dialects.Reader(WALLETS)
    every = [span for emitter in EMITTERS for spans in spans_of(emitter).values() for span in spans]
    # Of each a second one that differs in nothing but who pays, and a third in nothing but its counts.
    every += [span._replace(attributes={**span.attributes, "farebox.wallet": "w"}) for span in every]
    every += [span._replace(attributes=dict(counted_once_more(span))) for span in every]
    random.Random(1).shuffle(every)
    read = [exactly(remembering.read(span)) for span in every]
    assert read == [exactly(dialects.Reader(WALLETS).read(span)) for span in every]
    assert len(set(read)) > len(every) // 3


def counted_once_more(span: Span) -> Iterable[tuple[str, Any]]:
    for key, value in span.attributes.items():
        yield key, value + 1 if type(value) is int else value


def call_of(number: int) -> Span:
    return made(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": f"provider-{number}",
            "farebox.wallet": f"wallet-{number}",
            "gen_ai.usage.input_tokens": 1,
        },
        {"cloud.region": f"region-{number % 100}"},
        f"scope-{number % 10}",
    )


def test_names_that_never_repeat_are_forgotten_again() -> None:
    sizes = []
    remembering = dialects.Reader(WALLETS, entries=500)
    for number in range(4_000):
        reading = remembering.read(call_of(number))
        assert isinstance(reading, UsageRecord)
        assert reading.wallet == f"wallet-{number}"
        sizes.append(remembering.entries)
    assert max(sizes) <= 500
    assert len([size for size, after in pairwise(sizes) if after < size]) >= 8


def test_long_names_are_read_and_not_remembered() -> None:
    remembering = dialects.Reader(WALLETS)
    for length in (MAX_TEXT + 1, 10**6):
        model, region, scope = ("".join(("x", letter * length)) for letter in "mrs")
        held = [sys.getrefcount(text) for text in (model, region, scope)]
        for span in (
            made({**call_of(1).attributes, "gen_ai.request.model": model}, {}),
            made(call_of(1).attributes, {"cloud.region": region}),
            made(call_of(1).attributes, {}, scope),
        ):
            reading = remembering.read(span)
            assert isinstance(reading, UsageRecord)
            assert reading == dialects.Reader(WALLETS).read(span)
        del span, reading
        assert [sys.getrefcount(text) for text in (model, region, scope)] == held
