"""Calls become rows and come back as the declaration of columns says."""

from calls import call
from farebox_collector.ledger.tables.usage_columns import USAGE, USAGE_COLUMNS
from farebox_collector.ledger.usage.columns import (
    BATCH_COLUMNS,
    CALL_COLUMNS,
    FACT_COLUMNS,
    call_columns,
    call_of_row,
    facts_of,
    facts_of_row,
)
from farebox_collector.model.records import ModelLine, Particulars, PricedUsage, Quality, UsageRecord

ORDINARY = call(1, response_id="one")
UNUSUAL = ORDINARY._replace(
    usage=ORDINARY.usage._replace(
        buckets=None,
        summary=True,
        units=(("web_searches", 2),),
        quality=Quality(cache_hit=0, review_approved=1),
        assumptions=("one", "two"),
        speed="fast",
        other_lines=(ModelLine("advisor", "p", "m"),),
        stated_cost_nanousd=7,
    ),
    assumptions=("one", "two"),
    particulars=Particulars(list_cost_nanousd=3),
)
CALLS = (ORDINARY, UNUSUAL)


def rows(*calls: PricedUsage) -> list[dict[str, object]]:
    columns = call_columns(calls, [b"key"] * len(calls))
    return [dict(zip(CALL_COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]


def test_every_field_of_a_call_has_a_column_from_which_it_is_read() -> None:
    read = {name for stored in USAGE for name in stored.outputs}
    assert read == {f"usage.{name}" for name in UsageRecord._fields} | set(PricedUsage._fields[1:])


def test_every_column_is_of_the_batch_of_the_call_or_added_by_corrections() -> None:
    assert sorted((*BATCH_COLUMNS, *CALL_COLUMNS, "corrections")) == sorted(column.name for column in USAGE_COLUMNS)


def test_calls_come_back_from_their_rows() -> None:
    assert [call_of_row(list(row.values())) for row in rows(*CALLS)] == list(CALLS)


def test_a_floor_stores_the_share_of_the_action_and_is_not_read_back() -> None:
    (row,) = rows(ORDINARY._replace(action_floor_nanocredits=5))
    assert row["action_share_nanocredits"] == ORDINARY.charge_nanocredits
    assert call_of_row(list(row.values())) == ORDINARY


def test_facts_of_a_row_are_those_of_its_call_without_what_pricing_made_of_it() -> None:
    for made, row in zip(CALLS, rows(*CALLS), strict=True):
        assert facts_of_row([row[name] for name in FACT_COLUMNS]) == facts_of(made)
    assert facts_of(UNUSUAL._replace(particulars=None)) == facts_of(UNUSUAL)
