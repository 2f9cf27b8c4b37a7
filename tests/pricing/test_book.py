"""The compiled book against the plain reading of its rules: for any versions, moment and call."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from farebox_collector.model.records import PricedModel, PriceVersion
from farebox_collector.pricing.book import PriceBook, is_on, is_within
from farebox_collector.pricing.conditions import condition_of
from farebox_collector.pricing.weekdays import weekday_names, weekdays_of
from hypothesis import given, settings
from hypothesis import strategies as st

NS = 10**9
HOUR_S = 3600
DAY_S = 24 * HOUR_S
MODELS = [PricedModel("p", "m", 0, '{"equals":"m"}')]

edges = st.lists(st.integers(0, 4), min_size=2, max_size=4, unique=True).map(sorted)
slots = st.tuples(
    st.sampled_from(["input", "output"]),
    st.sampled_from([0, 100, 200]),
    st.sampled_from([(0, 0, 0), (22, 6, 0), (8, 12, 0), (0, 5, 0b0011111), (0, 0, 0b1100000), (6, 9, 0b1000001)]),
    st.sampled_from(["standard", "batch", "flex", "fast", "standard@us", "standard@*", "fast@us", "batch+fast"]),
    st.sampled_from([None, 7]),
)


@st.composite
def versions(draw: st.DrawFn) -> list[PriceVersion]:
    """Versions of one model that never overlap: for each thing a few stretches of days, the last perhaps open."""
    found: list[PriceVersion] = []
    for unit, over, (start, end, weekdays), condition, tenant in draw(st.lists(slots, max_size=10, unique=True)):
        days = draw(edges)
        for first, last in pairwise(days):
            if draw(st.booleans()):
                to_ns = None if last == days[-1] and draw(st.booleans()) else last * DAY_S * NS
                number = len(found) + 1
                found.append(
                    PriceVersion(
                        number,
                        "p",
                        "m",
                        unit,
                        over,
                        start * HOUR_S,
                        end * HOUR_S,
                        Decimal(number) / 7,
                        first * DAY_S * NS,
                        to_ns,
                        "s",
                        "1",
                        condition,
                        tenant_id=tenant,
                        weekdays=weekdays,
                    )
                )
    return found


PREFERRED = {
    "": ["standard"],
    "batch": ["batch", "standard"],
    "flex": ["flex", "standard"],
    "standard@us": ["standard@us", "standard@*", "standard"],
    "fast@eu": ["fast", "standard@*", "standard"],
    "fast@us": ["fast@us", "fast", "standard@us", "standard@*", "standard"],
    "batch+fast": ["batch+fast", "fast", "batch", "standard"],
}
"""By hand: what serves a call of each condition, of the conditions that the versions here may have."""


def plainly(rows: list[PriceVersion], at_ns: int, tokens: int, tier: str) -> dict[str, PriceVersion]:
    """Unit → the version that applies, by the four rules of docs/explanation/prices.md, one after the other."""
    second, weekday = at_ns // NS % DAY_S, (at_ns // NS // DAY_S + 3) % 7
    hold = [
        row
        for row in rows
        if row.valid_from_ns <= at_ns
        and (row.valid_to_ns is None or at_ns < row.valid_to_ns)
        and row.condition in PREFERRED[tier]
        and is_within(second, row.daily_from_s, row.daily_to_s)
        and (row.weekdays == 0 or row.weekdays & 2**weekday)
    ]
    own = {(*row[3:7], row.condition, row.weekdays) for row in hold if row.tenant_id}
    hold = [row for row in hold if row.tenant_id or (*row[3:7], row.condition, row.weekdays) not in own]
    applies = {}
    for unit in {row.unit for row in hold}:
        mine = [row for row in hold if row.unit == unit]
        best = next(one for one in PREFERRED[tier] if any(row.condition == one for row in mine))
        mine = [row for row in mine if row.condition == best]
        if any(partial(row) for row in mine):
            mine = [row for row in mine if partial(row)]
        mine = [row for row in mine if row.over_input_tokens == 0 or tokens > row.over_input_tokens]
        if mine:
            applies[unit] = max(mine, key=lambda row: row.over_input_tokens)
    return applies


def partial(row: PriceVersion) -> bool:
    """Whether a version holds at some times of the week only."""
    return row.daily_from_s != row.daily_to_s or row.weekdays != 0


@settings(max_examples=300, deadline=None)
@given(
    versions(),
    st.integers(0, 5 * DAY_S - 1),
    st.sampled_from([0, 1, 100, 101, 200, 201]),
    st.sampled_from(sorted(PREFERRED)),
)
def test_the_compiled_book_says_what_its_versions_say(
    rows: list[PriceVersion], second: int, tokens: int, tier: str
) -> None:
    # Times of one unit and condition that overlap without being the same are refused by the database: keep one kind.
    times = {(row.unit, row.condition): (*row[5:7], row.weekdays) for row in rows if partial(row)}
    rows = [row for row in rows if not partial(row) or times[row.unit, row.condition] == (*row[5:7], row.weekdays)]
    listed = [row for row in rows if row.tenant_id is None]
    book = PriceBook(listed, MODELS).with_own_prices([row for row in rows if row.tenant_id])
    card = book.rate_for("p", "m", second * NS, tokens, tier)
    expected = plainly(rows, second * NS, tokens, tier)
    found = {} if card is None else {unit: Fraction(rate, card.denominator) for unit, rate in card.rates.items()}
    assert found == {unit: Fraction(row.usd_per_1k) * 10**6 for unit, row in expected.items()}
    if card is not None and expected:
        assert card.version_ids == str(sorted(row.id for row in expected.values())).replace(" ", "")


@settings(max_examples=100, deadline=None)
@given(
    versions(),
    versions(),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 5 * DAY_S - 1), st.sampled_from([1, 150, 250])), min_size=1, max_size=6),
)
def test_the_price_of_a_call_does_not_depend_on_the_calls_before(
    answered: list[PriceVersion], asked: list[PriceVersion], is_plain: bool, calls: list[tuple[int, int]]
) -> None:
    """An offer remembers the card that it named last."""
    rows = [*answered, *(row._replace(id=row.id + 1_000, model="n") for row in asked)]
    if is_plain:
        rows = [row for row in rows if not partial(row) and not row.over_input_tokens]
    models = [*MODELS, PricedModel("p", "n", 1, '{"equals":"n"}')]
    offer = PriceBook(rows, models).offer("p", "n", "m", "")
    for second, tokens in calls:
        alone = PriceBook(rows, models).offer("p", "n", "m", "")
        assert offer.card(second * NS, tokens) == alone.card(second * NS, tokens)


def priced(*rows: tuple[str, int]) -> PriceBook:
    """A book of a model that costs so many dollars for 1,000 tokens in, by condition."""
    versions = [
        PriceVersion(number, "p", "m", "input", 0, 0, 0, Decimal(usd), 0, None, "s", "1", condition)
        for number, (condition, usd) in enumerate(rows, start=1)
    ]
    return PriceBook(versions, MODELS)


@pytest.mark.parametrize(
    ("tier", "speed", "region", "condition", "flags"),
    [
        ("", "", "", "standard", ()),
        ("standard", "standard", "global", "standard", ()),
        ("", "fast", "", "fast", ()),
        ("default", "FAST", "US", "fast@us", ()),
        ("", "", "us", "standard@us", ()),
        ("", "", "eu", "standard", ("inference_region_at_standard_price",)),
        ("batch", "", "us", "standard@us", ("service_tier_at_standard_price",)),
        ("batches", "fast", "", "fast", ("service_tier_at_standard_price",)),
        ("", "turbo", "", "standard", ("service_tier_at_standard_price",)),
    ],
)
def test_how_a_call_was_processed_decides_its_price_and_what_is_lacking_is_said(
    tier: str, speed: str, region: str, condition: str, flags: tuple[str, ...]
) -> None:
    book = priced(("standard", 1), ("fast", 2), ("standard@us", 3), ("fast@us", 4))
    card, said = book.offer("p", "m", "", condition_of(tier, speed, region)).card(0, 0)
    assert card is not None
    assert (card.condition, said) == (condition, flags)


def test_a_region_is_not_flagged_where_no_price_depends_on_it() -> None:
    card, said = priced(("standard", 1)).offer("p", "m", "", condition_of("", "", "eu")).card(0, 0)
    assert card is not None
    assert said == ()


def test_any_region_has_the_price_of_all_regions() -> None:
    book = priced(("standard", 1), ("standard@*", 2), ("standard@us", 3))
    cards = {region: book.rate_for("p", "m", 0, 0, condition_of("", "", region)) for region in ("", "us", "jp")}
    assert {region: card and card.condition for region, card in cards.items()} == {
        "": "standard",
        "us": "standard@us",
        "jp": "standard@*",
    }


MONDAY = 4
"""The fifth day of 1970."""


@pytest.mark.parametrize(
    ("text", "days"),
    [("", range(7)), ("mon-fri", range(5)), ("sat,sun", (5, 6)), ("fri-mon", (4, 5, 6, 0)), ("wed", (2,))],
)
def test_days_of_the_week_are_those_of_the_calendar(text: str, days: Sequence[int]) -> None:
    mask = weekdays_of(text)
    assert [day for day in range(7) if is_on(MONDAY + day, mask)] == sorted(days)
    assert weekdays_of(weekday_names(mask)) == mask
    for day in range(7):
        moment = datetime(1970, 1, 5 + day, tzinfo=UTC)
        assert moment.weekday() == day
        assert is_on(int(moment.timestamp()) // DAY_S, mask) == (day in days)


@pytest.mark.parametrize("text", ["monday", "mon-", "1-5", "mon;tue"])
def test_what_is_no_day_of_the_week_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write them as mon-fri"):
        weekdays_of(text)


def test_invented_names_do_not_grow_memory() -> None:
    """Neither of models nor of conditions."""
    book = priced(("standard", 1))
    for number in range(10_050):
        book.rates_for("p", f"model-{number}")
        book.offer("p", "m", "", f"tier-{number}")
        assert book.cached_names <= 10_000
    assert book.rate_for("p", "m", 0) is not None
