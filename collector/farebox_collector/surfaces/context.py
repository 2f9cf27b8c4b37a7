"""What every part of the API needs, and the amounts and times in the form that it shows them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from pydantic import Field

from farebox_collector.dialects.text import MAX_TEXT, is_clean
from farebox_collector.ledger.database import Database
from farebox_collector.records import DEFAULT_TENANT_ID
from farebox_collector.surfaces.problems import ApiError

_MAX_NS = 2**63 - 1
_LAST_SECOND = 253_402_300_799

Amount = Annotated[str, Field(pattern=r"^-?\d+\.\d{9}$", examples=["1.500000000"])]
"""A decimal string with nine decimals."""


class Context(NamedTuple):
    """What the API works on."""

    database: Database
    clock: Callable[[], int]
    """Now, in Unix nanoseconds."""
    ready: Callable[[], bool]
    """Whether all ports listen and nothing is shutting down."""
    tenant_id: int = DEFAULT_TENANT_ID


def wallet_name(name: str) -> str:
    """A wallet's name from a path or a body. Raises ApiError 400 for one that no span could have."""
    if not name or not is_clean(name):
        raise ApiError(400, f"a wallet's name has 1 to {MAX_TEXT} printable characters")
    return name


def format_ns(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def to_ns(moment: datetime) -> int:
    """A moment as nanoseconds since 1970. Raises ApiError 400 before 1970 and after 2262."""
    delta = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    nanoseconds = (delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000
    if not 0 <= nanoseconds <= _MAX_NS:
        raise ApiError(400, "a time lies before 1970 or after 2262")
    return nanoseconds
