"""Times: RFC 3339 in UTC at the edges, integer nanoseconds since 1970 inside."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple


class Days(NamedTuple):
    """A half-open range of UTC days since 1970."""

    first: int
    end: int

    @property
    def before(self) -> "Days":
        """Return the range of the same length that ends where this one begins."""
        return Days(2 * self.first - self.end, self.first)


DAY_NS = 86_400 * 10**9


def day_of(at_ns: int) -> int:
    """Return the UTC day of a time, counted from 1970."""
    return at_ns // DAY_NS


def month_of(at_ns: int) -> int:
    """Return the UTC month of a time, as months since year 0."""
    moment = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return moment.year * 12 + moment.month - 1


def months_of(days: Days) -> Iterator[tuple[int, Days]]:
    """Yield the UTC months that overlap some days, as months since year 0, each with its part of the days."""
    first = days.first
    while first < days.end:
        month = month_of(first * DAY_NS)
        year, place = divmod(month + 1, 12)
        following = (datetime(year, place + 1, 1, tzinfo=UTC) - _EPOCH).days
        yield month, Days(first, min(following, days.end))
        first = following


def whole_months(days: Days) -> Days:
    """Return all days of the UTC months that overlap some days."""
    first, last = (month_of(day * DAY_NS) for day in (days.first, days.end - 1))
    begin, end = (datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in (first, last + 1))
    return Days((begin - _EPOCH).days, (end - _EPOCH).days)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_NS = 2**63 - 1
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999, the last time that a datetime can hold."""


def format_ns(nanoseconds: int) -> str:
    """Format nanoseconds since 1970 as RFC 3339 in UTC, with nanoseconds."""
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def to_ns(moment: datetime) -> int:
    """Convert an aware datetime to nanoseconds since 1970. Raises ValueError before 1970 and after 2262."""
    delta = moment - _EPOCH
    nanoseconds = (delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000
    if not 0 <= nanoseconds <= _MAX_NS:
        raise ValueError("a time must lie between 1970 and 2262")
    return nanoseconds
