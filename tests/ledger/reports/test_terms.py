"""The terms of money: the documents define each with the words of the code, and values at list add up."""

import re
from fractions import Fraction
from pathlib import Path

import pytest
from farebox_collector.ledger.reports.terms import MEANINGS, ListPrice, Term, margin, margin_at_list
from hypothesis import given
from hypothesis import strategies as st

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", ["explanation/finance.md", "reference/glossary.md"])
def test_pages_define_each_term_with_the_words_of_the_code(page: str) -> None:
    rows: dict[str, str] = {}
    for word, meaning in re.findall(r"^\| ([^|]+) \| ([^|]+) \|", (DOCS / page).read_text(encoding="utf-8"), re.M):
        rows.setdefault(word, meaning)
    assert {term: rows.get(term.value) for term in Term} == dict(MEANINGS)


@given(st.lists(st.integers(-(10**18), 10**18), max_size=6), st.fractions(0, 100, max_denominator=10**9))
def test_parts_at_list_add_up_and_each_is_within_a_nano_dollar(parts: list[int], rate: Fraction) -> None:
    price = ListPrice(rate)
    values = price.parts(*parts)
    assert sum(values) == price.nanousd(sum(parts))
    assert all(abs(value - part * rate) <= 1 for value, part in zip(values, parts, strict=True))


def test_margins_are_shares_of_different_sums() -> None:
    assert margin_at_list(100, 72) == "28.00"
    assert margin(-1379, 5000) == "-27.58"
    assert (margin_at_list(0, 5), margin(5, 0)) == (None, None)
