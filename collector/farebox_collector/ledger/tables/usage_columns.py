"""The columns of `usage_records`, each declared once.

The table, the rows of a batch, the facts that tell spans apart and the API's model are made from `USAGE` at import. For
a new column add the field to `model.records`, its line here, the dialect that reads it, and a migration. Every field
of a call needs a column; a test compares the two.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from sqlalchemy import Column, LargeBinary

from farebox_collector.ledger.tables.columns import number, words
from farebox_collector.model.records import (
    NO_QUALITY,
    Buckets,
    PricedUsage,
    Quality,
    UsageRecord,
)
from farebox_collector.model.units import Units, read_units, stored_units
from farebox_collector.model.unusual import (
    ORDINARY,
    UnusualFacts,
    facts_in,
    read_particulars,
    read_unusual,
    stored_column,
    stored_unusual,
)
from farebox_collector.model.verdicts import STORED, Verdict

CALL_KEY = "call_key"
"""The one value of a row that is not a field of the call; the caller passes it."""
INPUTS = (*(f"usage.{name}" for name in UsageRecord._fields), *PricedUsage._fields[1:], CALL_KEY)
"""The values that columns are made of: fields of the usage record, fields of the priced call, and the call key."""

_UNUSUAL = tuple(f"usage.{name}" for name in UnusualFacts._fields)
_VERDICTS = {verdict: verdict.value for verdict in Verdict}
_NO_COUNTS = (None,) * len(Buckets._fields)
_ORDINARY = (*ORDINARY, None)


class Kind(Enum):
    """What a column holds."""

    NUMBER = "number"
    BYTES = "bytes"
    TEXT = "text"
    """Text that names no person of a wallet."""
    NAMING = "naming"
    """Text that may name a person; list the column in `privacy.personal_places`, which says how."""


class Tokens(Enum):
    """The sum of tokens that includes a count."""

    INPUT = "input"
    OUTPUT = "output"
    MEMO = "memo"
    """None: the count is part of another one."""


class UsageColumn(NamedTuple):
    """One column of `usage_records`."""

    name: str
    kind: Kind
    nullable: bool = False
    default: int | str | None = None
    """The server's default, for columns that were added to a table with rows."""
    fact: bool = False
    """Whether two arrivals of one span must agree on it. A bill depends on every fact.

    Digests of facts are kept permanently, in the order of the declaration, so the list of facts is closed: a new fact
    is a field of `UnusualFacts`.
    """
    shown: bool = True
    """Whether the API shows it: as it is, or in the form that `surfaces.api.usage` gives it."""
    description: str = ""
    """For the API's documentation, if the name is not sufficient."""
    tokens: Tokens | None = None

    def declared(self) -> Column[Any]:
        """The column of the table."""
        if self.kind is Kind.NUMBER:
            assert not isinstance(self.default, str)
            return number(self.name, nullable=self.nullable, default=self.default)
        if self.kind is Kind.BYTES:
            return Column(self.name, LargeBinary, nullable=self.nullable)
        assert not isinstance(self.default, int)
        return words(self.name, default=self.default)


class Stored(NamedTuple):
    """Columns made from the same fields of a call. One column is a value, several are a tuple."""

    columns: tuple[UsageColumn, ...]
    inputs: tuple[str, ...] = ()
    """Names of `INPUTS`; none for columns that the ledger fills in itself."""
    store: Callable[..., Any] | None = None
    """From the values of each input, call by call, the values of each column; None if they are the same."""
    outputs: tuple[str, ...] = ()
    """The inputs that a row gives back."""
    read: Callable[..., Any] | None = None
    """From the columns of one row the values of `outputs`; None if they are the same."""
    fact: Callable[..., Any] | None = None
    """From the field of one usage record, or the tuple of several, the columns as facts; None if they are the same."""
    empty: Any = None
    """The literal that the columns are, as facts, where the single input is empty; None if it needs no such case."""
    read_fact: Callable[[Any], Any] | None = None
    """From the column of one row its fact; None if it is the same."""


def _plain(name: str, kind: Kind, of: str = "", **more: Any) -> Stored:
    """Declare a column that stores a field unchanged: the usage record's of the same name unless `of` is given."""
    field = of or f"usage.{name}"
    return Stored((UsageColumn(name, kind, **more),), (field,), outputs=(field,))


def _by_ledger(name: str, kind: Kind, **more: Any) -> Stored:
    """Declare a column that the ledger fills in."""
    return Stored((UsageColumn(name, kind, shown=False, **more),))


def _counts(name: str, tokens: Tokens, description: str = "") -> UsageColumn:
    return UsageColumn(name, Kind.NUMBER, nullable=True, fact=True, tokens=tokens, description=description)


def _store_buckets(calls: Sequence[Buckets | None]) -> Iterable[Sequence[int | None]]:
    return zip(*[buckets or _NO_COUNTS for buckets in calls], strict=True)


def _read_buckets(*counts: Any) -> Buckets | None:
    return None if counts[0] is None else Buckets(*counts)


def _store_units(calls: Sequence[Units]) -> Sequence[str]:
    return [stored_units(units) if units else "" for units in calls]


def _store_quality(calls: Sequence[Quality]) -> Iterable[Sequence[int | None]]:
    return zip(*calls, strict=True)


def _read_quality(*found: int | None) -> Quality:
    # Code compares the quality of an unrated answer by identity.
    return NO_QUALITY if found == NO_QUALITY else Quality(*found)


def _store_unusual(*calls: tuple[Any, ...]) -> Sequence[str]:
    return stored_column(calls[:-1], calls[-1])


def _read_unusual(stored: str) -> tuple[Any, ...]:
    return (*read_unusual(stored), read_particulars(stored)) if stored else _ORDINARY


def _store_assumptions(calls: Sequence[tuple[str, ...]]) -> Sequence[str]:
    return [",".join(assumed) for assumed in calls]


def _read_assumptions(stored: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    assumed = tuple(stored.split(",")) if stored else ()
    return assumed, assumed


def _store_share(floors: Sequence[int | None], charges: Sequence[int | None]) -> Sequence[int | None]:
    return [None if floor is None else charge for floor, charge in zip(floors, charges, strict=True)]


# In the order in which the API shows them.
USAGE: tuple[Stored, ...] = (
    _by_ledger("tenant_id", Kind.NUMBER),
    _by_ledger("transaction_id", Kind.NUMBER),
    _by_ledger("received_at_ns", Kind.NUMBER),
    _plain("trace_id", Kind.BYTES),
    _plain("span_id", Kind.BYTES),
    _plain("parent_span_id", Kind.BYTES, shown=False),
    _plain("started_at_ns", Kind.NUMBER, fact=True),
    _plain("wallet", Kind.NAMING, fact=True),
    _plain("event", Kind.TEXT, fact=True),
    _plain("action_id", Kind.NAMING, fact=True),
    Stored(
        (UsageColumn("verdict", Kind.TEXT, description=f"One of {', '.join(sorted(STORED))}."),),
        ("verdict",),
        lambda verdicts: list(map(_VERDICTS.__getitem__, verdicts)),
        ("verdict",),
        Verdict,
    ),
    _plain("reason", Kind.NAMING, "reason", description="The reason for the verdict, if it needs one."),
    _plain("priced_at_ns", Kind.NUMBER, "priced_at_ns", shown=False),
    _plain("provider", Kind.TEXT, "provider"),
    _plain(
        "model",
        Kind.TEXT,
        "model",
        description="The model in the price book; as reported if unknown.",
    ),
    _plain("reported_provider", Kind.TEXT, "usage.provider", fact=True, shown=False),
    _plain("request_model", Kind.TEXT, fact=True),
    _plain("response_model", Kind.TEXT, fact=True),
    _plain("response_id", Kind.TEXT, fact=True),
    # A digest of the response id on the record that has claimed its call (`call_claims`), NULL on the others.
    Stored((UsageColumn(CALL_KEY, Kind.BYTES, nullable=True, shown=False),), (CALL_KEY,)),
    _plain("operation", Kind.TEXT),
    _plain("error_type", Kind.TEXT, fact=True),
    _plain("latency_ns", Kind.NUMBER),
    _plain("time_to_first_chunk_ns", Kind.NUMBER, nullable=True, shown=False),
    # 1 for agents and workflows, whose usage repeats the usage of the calls within them.
    Stored(
        (UsageColumn("summary", Kind.NUMBER, default=0, shown=False),),
        ("usage.summary",),
        lambda calls: list(map(int, calls)),
        ("usage.summary",),
        bool,
    ),
    # In the order of the fields of `Buckets`.
    Stored(
        (
            _counts("input_tokens", Tokens.INPUT, "Without cache reads and writes."),
            _counts("cache_read_tokens", Tokens.INPUT),
            _counts("cache_write_tokens", Tokens.INPUT),
            _counts("cache_write_1h_tokens", Tokens.INPUT),
            _counts("input_audio_tokens", Tokens.INPUT),
            _counts("input_image_tokens", Tokens.INPUT),
            _counts("output_tokens", Tokens.OUTPUT, "Including reasoning."),
            _counts("output_audio_tokens", Tokens.OUTPUT),
            _counts("output_image_tokens", Tokens.OUTPUT),
            _counts("reasoning_tokens", Tokens.MEMO),
        ),
        ("usage.buckets",),
        _store_buckets,
        ("usage.buckets",),
        _read_buckets,
        empty=_NO_COUNTS,
    ),
    # JSON by name; empty if there are none.
    Stored(
        (UsageColumn("units", Kind.TEXT, default="", fact=True),),
        ("usage.units",),
        _store_units,
        ("usage.units",),
        read_units,
        stored_units,
        empty="",
    ),
    _plain("service_tier", Kind.TEXT),
    # JSON by name (`model.unusual`); empty for ordinary calls. The last fact: see `usage.columns.facts_digest`.
    Stored(
        (UsageColumn("unusual", Kind.TEXT, default="", fact=True),),
        (*_UNUSUAL, "particulars"),
        _store_unusual,
        (*_UNUSUAL, "particulars"),
        _read_unusual,
        stored_unusual,
        read_fact=facts_in,
    ),
    _plain("cost_nanousd", Kind.NUMBER, "cost_nanousd", nullable=True),
    _plain("charge_nanocredits", Kind.NUMBER, "charge_nanocredits", nullable=True),
    _plain("price_version_ids", Kind.TEXT, "price_version_ids", shown=False),
    _plain("rule_version_id", Kind.NUMBER, "rule_version_id", nullable=True, shown=False),
    # NULL if the call is charged by itself. Only booking needs the floor: it is not read back.
    Stored(
        (UsageColumn("action_share_nanocredits", Kind.NUMBER, nullable=True, shown=False),),
        ("action_floor_nanocredits", "charge_nanocredits"),
        _store_share,
        ("action_floor_nanocredits",),
        lambda _stored: None,
    ),
    # The number of corrections; the amounts of a record are those of its newest correction.
    _by_ledger("corrections", Kind.NUMBER, default=0),
    _plain("dept", Kind.TEXT),
    _plain("project", Kind.TEXT),
    _plain("task", Kind.TEXT),
    _plain("route", Kind.TEXT),
    _plain("region", Kind.TEXT),
    # In the order of the fields of `Quality`; yes is 1, no is 0.
    Stored(
        tuple(UsageColumn(name, Kind.NUMBER, nullable=True) for name in Quality._fields),
        ("usage.quality",),
        _store_quality,
        ("usage.quality",),
        _read_quality,
    ),
    _plain("dialect", Kind.TEXT),
    # The name of the span's instrumentation scope.
    _plain("scope", Kind.TEXT, default="", shown=False),
    # The user of a shared wallet.
    _plain("user_id", Kind.NAMING, default="", shown=False),
    # Pricing adds to the assumptions of the usage record; a row keeps the sum, and gives it back as both.
    Stored(
        (UsageColumn("assumptions", Kind.TEXT),),
        ("assumptions",),
        _store_assumptions,
        ("usage.assumptions", "assumptions"),
        _read_assumptions,
    ),
)
USAGE_COLUMNS = tuple(column for stored in USAGE for column in stored.columns)


def token_columns(*parts: Tokens) -> tuple[str, ...]:
    """The columns with token counts that take part in these sums, in the order of `Buckets`."""
    return tuple(column.name for column in USAGE_COLUMNS if column.tokens in parts)


TOKEN_COLUMNS = token_columns(*Tokens)
"""The columns that hold `records.Buckets`, in its order."""
