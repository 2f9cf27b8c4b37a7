"""Usage: one record per model call, and its receipt."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field, create_model

from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.reports.statements import UsageFilter
from farebox_collector.ledger.tables.usage_columns import (
    USAGE_COLUMNS,
    Kind,
    Tokens,
    UsageColumn,
    token_columns,
)
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import format_nano, round_half_even
from farebox_collector.model.records import ModelLine, Particulars, Quality
from farebox_collector.model.units import read_units
from farebox_collector.model.unusual import read_particulars, read_unusual
from farebox_collector.model.verdicts import STORED, Verdict
from farebox_collector.surfaces.api.context import (
    Amount,
    Context,
    Name,
    NameInBooks,
    moment_ns,
)
from farebox_collector.surfaces.api.pages import (
    Cursor,
    Limit,
    Page,
    decode_cursor,
    page,
)
from farebox_collector.surfaces.api.problems import RESPONSES, ApiError
from farebox_collector.surfaces.api.receipt_models import Receipt
from farebox_collector.surfaces.api.receipts import receipt

_VERDICTS = ", ".join(sorted(STORED))
_TOTALLED = token_columns(Tokens.INPUT, Tokens.OUTPUT)


class AnswerQuality(BaseModel):
    """The quality of the answer as reported by the call; null where not reported."""

    cache_hit: bool | None
    citation_rate: float | None = Field(description="Share of the answer's claims that cite a source, 0 to 1.")
    human_reviewed: bool | None
    review_approved: bool | None


class UsageLine(BaseModel):
    """A part of the answer made by another model; zero token counts are omitted."""

    label: str = Field(description="Its cause, such as advisor or image_generation.")
    provider: str
    model: str
    service_tier: str
    speed: str
    inference_region: str
    tokens: dict[str, int]
    units: dict[str, int]


class UnpricedPart(BaseModel):
    """Usage without a price yet; the rest of the call is charged."""

    part: int = Field(description="0 is the call itself, 1 the first of `other_lines`.")
    unit: str
    count: int


class _Times(BaseModel):
    started_at: str
    latency_ms: float


class _Units(BaseModel):
    units: dict[str, int] = Field(description="Other billed units, such as web_searches.")


class _Unusual(BaseModel):
    speed: str = Field(description="The provider's processing speed, such as fast; empty is standard.")
    inference_region: str = Field(description="The processing region, if the provider bills by it; otherwise empty.")
    other_lines: list[UsageLine] = Field(description="Parts of the answer made by other models.")
    stated_cost_usd: Amount | None = Field(description="The cost stated by the provider.")
    exposure: str = Field(
        description="Why the call's end was not observed, such as timeout: its tokens are an estimate."
    )
    list_cost_usd: Amount | None = Field(description="The price book's cost, if the provider states its own.")
    at_stake_usd: Amount | None = Field(description="The cost difference under the other reading of the counts.")
    estimated_cost_usd: Amount | None = Field(description="For a call whose end was not observed; not a cost.")
    unpriced: list[UnpricedPart]


class _Money(BaseModel):
    cost_usd: Amount | None = Field(description="What the provider charges; null while unknown.")
    charge_credits: Amount | None = Field(description="What the wallet paid; null if it was not charged.")
    cost_per_1k_usd: Amount | None = Field(description="Cost per 1,000 tokens of this call.")


class _Quality(BaseModel):
    quality: AnswerQuality


class _Assumptions(BaseModel):
    assumptions: list[str]


_CONVERTED: tuple[tuple[tuple[str, ...], type[BaseModel]], ...] = (
    (("started_at_ns", "latency_ns"), _Times),
    (("units",), _Units),
    (("unusual",), _Unusual),
    (("cost_nanousd", "charge_nanocredits"), _Money),
    (Quality._fields, _Quality),
    (("assumptions",), _Assumptions),
)
"""Columns that the API shows in another form, and that form; it stands in place of the last of them."""
_INSTEAD = {columns[-1]: model for columns, model in _CONVERTED}
_PLAIN = [
    column for column in USAGE_COLUMNS if column.shown and not any(column.name in columns for columns, _ in _CONVERTED)
]


def _fields() -> Iterator[tuple[str, Any]]:
    """The fields of `Usage` with their types, in the order of the columns."""
    for column in USAGE_COLUMNS:
        if column.name in _INSTEAD:
            yield from ((name, (field.annotation, field)) for name, field in _INSTEAD[column.name].model_fields.items())
        elif column in _PLAIN:
            shown: Any = int if column.kind is Kind.NUMBER else str
            description = column.description or None
            yield column.name, (shown | None if column.nullable else shown, Field(description=description))


if TYPE_CHECKING:
    Usage = BaseModel
else:
    Usage = create_model(
        "Usage",
        __doc__=(
            "A model call. Token counts are disjoint, except reasoning, which is part of output; null means unknown."
        ),
        __module__=__name__,
        **dict(_fields()),
    )


def router(context: Context) -> APIRouter:
    """The endpoints under /v1/usage."""
    routes = APIRouter(prefix="/v1/usage", tags=["usage"], responses=RESPONSES)

    @routes.get("")
    def list_usage(
        wallet: NameInBooks = "",
        event: Name = "",
        model: Name = "",
        verdict: Annotated[Verdict | None, Query(description=f"One of {_VERDICTS}.")] = None,
        trace_id: Annotated[str, Query(description="32 hexadecimal digits.")] = "",
        since: Annotated[AwareDatetime | None, Query(description="From this time on.")] = None,
        until: Annotated[AwareDatetime | None, Query(description="Before this time.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Page[Usage]:
        """List usage records, newest first."""
        wanted = UsageFilter(
            wallet,
            event,
            model,
            verdict or "",
            _identifier(trace_id, 16, "trace_id") if trace_id else b"",
            None if since is None else moment_ns(since),
            None if until is None else moment_ns(until),
        )
        position = decode_cursor(cursor, int)
        with context.database.reading() as connection:
            rows = statements.usage(connection, context.tenant_id, wanted, position[0] if position else None, limit + 1)
        return page(rows, limit, show_usage, lambda row: (row.id,))

    @routes.get("/{trace_id}/{span_id}/receipt")
    def get_receipt(trace_id: str, span_id: str) -> Receipt:
        """Return how a call's charge was computed, in figures that can be recomputed."""
        trace, span = _identifier(trace_id, 16, "trace_id"), _identifier(span_id, 8, "span_id")
        with context.database.reading() as connection:
            found = receipt(connection, context.tenant_id, trace, span)
        if found is None:
            raise ApiError(404, "there is no usage record of this span")
        return found

    return routes


def show_usage(row: Any) -> Usage:
    """Convert a row of `usage_records` to its API model."""
    total = sum(getattr(row, name) or 0 for name in _TOTALLED)
    unusual, particulars = read_unusual(row.unusual), read_particulars(row.unusual) or Particulars()
    return Usage(
        **{column.name: _shown(column, getattr(row, column.name)) for column in _PLAIN},
        started_at=format_ns(row.started_at_ns),
        latency_ms=row.latency_ns / 1e6,
        units=dict(read_units(row.units)),
        speed=unusual.speed,
        inference_region=unusual.inference_region,
        other_lines=[show_line(line) for line in unusual.other_lines],
        stated_cost_usd=_amount(unusual.stated_cost_nanousd),
        exposure=unusual.exposure,
        list_cost_usd=_amount(particulars.list_cost_nanousd),
        at_stake_usd=_amount(particulars.at_stake_nanousd),
        estimated_cost_usd=_amount(particulars.estimate_nanousd),
        unpriced=[UnpricedPart(part=part, unit=unit, count=count) for part, unit, count in particulars.unpriced],
        cost_usd=_amount(row.cost_nanousd),
        charge_credits=_amount(row.charge_nanocredits),
        cost_per_1k_usd=(
            None
            if row.cost_nanousd is None or not total
            else format_nano(round_half_even(row.cost_nanousd * 1000, total))
        ),
        quality=AnswerQuality(
            cache_hit=row.cache_hit,
            citation_rate=None if row.citation_rate_ppm is None else row.citation_rate_ppm / 1e6,
            human_reviewed=row.human_reviewed,
            review_approved=row.review_approved,
        ),
        assumptions=row.assumptions.split(",") if row.assumptions else [],
    )


def _shown(column: UsageColumn, value: Any) -> Any:
    return value.hex() if column.kind is Kind.BYTES and value is not None else value


def _amount(nano: int | None) -> str | None:
    return None if nano is None else format_nano(nano)


def show_line(line: ModelLine) -> UsageLine:
    """Convert a part of an answer to its API model."""
    return UsageLine(
        label=line.label,
        provider=line.provider,
        model=line.model,
        service_tier=line.service_tier,
        speed=line.speed,
        inference_region=line.inference_region,
        tokens={name: count for name, count in line.buckets._asdict().items() if count},
        units=dict(line.units),
    )


def _identifier(text: str, size: int, name: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size:
        raise ApiError(400, f"{name} must have {2 * size} hexadecimal digits")
    return value
