"""What spans say of answers: on the call itself, or on a span of a report's own."""

from typing import Any

import pytest
from farebox_collector import dialects
from farebox_collector.model.records import (
    NO_QUALITY,
    NotBillable,
    Quality,
    QualityReport,
    Rejected,
    Span,
    UsageRecord,
)
from hypothesis import given
from hypothesis import strategies as st

SUBJECT = "0af7651916cd43dd8448eb211c80319c"


def read(**attributes: Any) -> Any:
    named = {key.replace("__", "."): value for key, value in attributes.items() if value is not None}
    return dialects.read(Span(b"t" * 16, b"s" * 8, b"", 1, 2, False, named, {}, "scope", "1"), ())


def read_call(**attributes: Any) -> Quality:
    reading = read(gen_ai__operation__name="chat", gen_ai__request__model="m", **attributes)
    assert isinstance(reading, UsageRecord)
    return reading.quality


@pytest.mark.parametrize(
    ("attributes", "quality"),
    [
        ({}, NO_QUALITY),
        ({"farebox__cache_hit": True}, Quality(cache_hit=1)),
        ({"farebox__cache_hit": "False"}, Quality(cache_hit=0)),
        ({"farebox__citation_rate": 0.125}, Quality(citation_rate_ppm=125_000)),
        ({"farebox__citation_rate": 1}, Quality(citation_rate_ppm=1_000_000)),
        ({"farebox__human_reviewed": True}, Quality(human_reviewed=1)),
        # Who approves or rejects has reviewed.
        ({"farebox__review__approved": False}, Quality(human_reviewed=1, review_approved=0)),
        # What is neither yes nor no, nor a share, says nothing.
        ({"farebox__cache_hit": 7, "farebox__citation_rate": 70.0, "farebox__human_reviewed": "maybe"}, NO_QUALITY),
        ({"farebox__citation_rate": float("nan")}, NO_QUALITY),
        ({"farebox__citation_rate": True}, NO_QUALITY),
    ],
)
def test_a_call_says_how_good_its_answer_was(attributes: dict[str, Any], quality: Quality) -> None:
    assert read_call(**attributes) == quality


def test_a_span_that_names_another_trace_and_no_model_is_a_report() -> None:
    reading = read(farebox__quality__trace_id=SUBJECT, farebox__review__approved=True)
    expected = Quality(human_reviewed=1, review_approved=1)
    assert reading == QualityReport(b"t" * 16, b"s" * 8, bytes.fromhex(SUBJECT), expected)


def test_what_names_a_model_is_a_call_whatever_else_it_says() -> None:
    assert read_call(farebox__quality__trace_id=SUBJECT, farebox__cache_hit=True) == Quality(cache_hit=1)


def test_a_span_of_neither_kind_is_neither() -> None:
    assert isinstance(read(farebox__review__approved=True), NotBillable)


@given(st.text(max_size=40) | st.integers() | st.floats() | st.booleans())
def test_a_subject_that_is_no_trace_id_is_refused(subject: Any) -> None:
    reading = read(farebox__quality__trace_id=subject)
    hexadecimal = (
        isinstance(subject, str) and len(subject) == 32 and all(c in "0123456789abcdefABCDEF" for c in subject)
    )
    assert isinstance(reading, QualityReport if hexadecimal and int(subject, 16) else Rejected)
