"""Pages of a list: `{"items": […], "next_cursor": …}`, taken up again with `?cursor=`."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from farebox_collector.surfaces.api.problems import ApiError

Item = TypeVar("Item")

Cursor = Annotated[str | None, Query(description="Where to take up: the `next_cursor` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most items on the page.")]


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last.")


def encode_cursor(*position: str | int) -> str:
    """A position in a list as an opaque text."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """The position that a cursor stands for, of the given types; None without one. Raises ApiError 400."""
    if cursor is None:
        return None
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        position = None
    if not isinstance(position, list) or [type(part) for part in position] != list(kinds):
        raise ApiError(400, "this cursor is not one that was given out for this list")
    if not all(part.isprintable() if isinstance(part, str) else abs(part) < 2**63 for part in position):
        raise ApiError(400, "this cursor is not one that was given out for this list")
    return tuple(position)


def page(
    rows: Sequence[Any],
    limit: int,
    show: Callable[[Any], Item],
    position: Callable[[Any], tuple[str | int, ...]],
) -> Page[Item]:
    """A page of `limit` rows out of `limit + 1` that were asked for: the extra one says that there is more."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(items=[show(row) for row in shown], next_cursor=encode_cursor(*position(shown[-1])) if more else None)
