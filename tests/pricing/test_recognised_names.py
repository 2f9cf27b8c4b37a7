"""Which reported names may mean a model at all, and in which order names, sellers and models are tried."""

import json
from typing import Any

import pytest
from farebox_collector.model.records import PricedModel
from farebox_collector.pricing.matching import Recogniser, compile_match

LONGEST = 150
ANY = json.dumps({"regex": ""})


def model(name: str, match: str = ANY, position: int = 0, provider: str = "openai") -> PricedModel:
    return PricedModel(provider, name, position, match)


@pytest.mark.parametrize(
    ("name", "found"),
    [("", False), ("a", True), ("a" * LONGEST, True), ("a" * (LONGEST + 1), False), ("a\nb", False), ("a b", True)],
)
def test_a_name_is_printable_and_of_bounded_length(name: str, found: bool) -> None:
    priced = {("openai", "any")}
    assert (Recogniser([model("any")]).find("openai", name, priced) is not None) is found


def test_the_first_model_that_matches_and_has_a_price_is_meant() -> None:
    models = [model("last", position=2), model("first", position=0), model("second", position=1)]
    recogniser = Recogniser(models)
    priced = {("openai", name) for name in ("first", "second", "last")}
    assert recogniser.find("openai", "x", priced) == ("openai", "first")
    assert recogniser.find("openai", "x", priced - {("openai", "first")}) == ("openai", "second")
    assert recogniser.find("openai", "x", {("other", "first")}) is None


@pytest.mark.parametrize(
    ("provider", "name", "found"),
    [
        ("gateway", "openai/gpt-9", True),
        ("gateway", "gpt-9", False),
        ("gateway", "openai/gpt-oss-9", False),
        ("openai", "gpt-9", True),
        ("openai", "GPT-9", True),
        ("openai", "arn:aws:bedrock:us-east-1:1:inference-profile/gpt-9-mini", True),
    ],
)
def test_a_gateway_says_in_the_name_whose_model_it_is(provider: str, name: str, found: bool) -> None:
    models = [model("gpt-9", json.dumps({"starts_with": "gpt-"}))]
    assert (Recogniser(models).find(provider, name, {("openai", "gpt-9")}) is not None) is found


@pytest.mark.parametrize(
    ("clause", "matching"),
    [
        ({"equals": "AB"}, {"ab"}),
        ({"starts_with": "ab"}, {"ab", "abc"}),
        ({"ends_with": "bc"}, {"abc", "bc"}),
        ({"contains": "b"}, {"ab", "abc", "bc", "b"}),
        ({"regex": "^b"}, {"bc", "b"}),
        ({"or": [{"equals": "ab"}, {"equals": "b"}]}, {"ab", "b"}),
        ({"and": [{"starts_with": "a"}, {"ends_with": "c"}]}, {"abc"}),
    ],
)
def test_clauses_match_what_they_say(clause: dict[str, Any], matching: set[str]) -> None:
    matches = compile_match(json.dumps(clause))
    assert {name for name in ("ab", "abc", "bc", "b", "x") if matches(name)} == matching


@pytest.mark.parametrize("clause", [{}, {"equals": "a", "contains": "b"}, {"like": "a"}])
def test_a_clause_of_no_kind_is_refused(clause: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="clause"):
        compile_match(json.dumps(clause))
