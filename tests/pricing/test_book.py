"""The compiled book against the plain reading of its rules: whatever versions, at any moment, for any call."""

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from farebox_collector.pricing.book import PriceBook, is_within
from farebox_collector.records import PricedModel, PriceVersion
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
    st.sampled_from([(0, 0), (22, 6), (8, 12), (0, 5)]),
    st.sampled_from(["standard", "batch", "flex"]),
    st.sampled_from([None, 7]),
)


@st.composite
def versions(draw: st.DrawFn) -> list[PriceVersion]:
    """Versions of one model that never overlap: for each thing a few stretches of days, the last perhaps open."""
    found: list[PriceVersion] = []
    for unit, over, (start, end), condition, tenant in draw(st.lists(slots, max_size=10, unique=True)):
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
                    )
                )
    return found


def plainly(rows: list[PriceVersion], at_ns: int, tokens: int, tier: str) -> dict[str, PriceVersion]:
    """Unit → the version that applies, by the four rules of docs/prices.md, one after the other."""
    second = at_ns // NS % DAY_S
    hold = [
        row
        for row in rows
        if row.valid_from_ns <= at_ns
        and (row.valid_to_ns is None or at_ns < row.valid_to_ns)
        and row.condition in ("standard", tier)
        and is_within(second, row.daily_from_s, row.daily_to_s)
    ]
    own = {(*row[3:7], row.condition) for row in hold if row.tenant_id}
    hold = [row for row in hold if row.tenant_id or (*row[3:7], row.condition) not in own]
    applies = {}
    for unit in {row.unit for row in hold}:
        mine = [row for row in hold if row.unit == unit]
        if any(row.condition == tier for row in mine):
            mine = [row for row in mine if row.condition == tier]
        if any(row.daily_from_s != row.daily_to_s for row in mine):
            mine = [row for row in mine if row.daily_from_s != row.daily_to_s]
        mine = [row for row in mine if row.over_input_tokens == 0 or tokens > row.over_input_tokens]
        if mine:
            applies[unit] = max(mine, key=lambda row: row.over_input_tokens)
    return applies


@settings(max_examples=300, deadline=None)
@given(
    versions(),
    st.integers(0, 5 * DAY_S - 1),
    st.sampled_from([0, 1, 100, 101, 200, 201]),
    st.sampled_from(["standard", "batch", "flex"]),
)
def test_the_compiled_book_says_what_its_versions_say(
    rows: list[PriceVersion], second: int, tokens: int, tier: str
) -> None:
    # Hours of one unit and condition that overlap without being the same are refused by the database: keep one kind.
    hours = {(row.unit, row.condition): row[5:7] for row in rows if row.daily_to_s}
    rows = [row for row in rows if not row.daily_to_s or hours[row.unit, row.condition] == row[5:7]]
    listed = [row for row in rows if row.tenant_id is None]
    book = PriceBook(listed, MODELS).with_own_prices([row for row in rows if row.tenant_id])
    card = book.rate_for("p", "m", second * NS, tokens, tier)
    expected = plainly(rows, second * NS, tokens, tier)
    found = {} if card is None else {unit: Fraction(rate, card.denominator) for unit, rate in card.rates.items()}
    assert found == {unit: Fraction(row.usd_per_1k) * 10**6 for unit, row in expected.items()}
    if card is not None and expected:
        assert card.version_ids == str(sorted(row.id for row in expected.values())).replace(" ", "")
