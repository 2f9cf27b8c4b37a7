"""Pages of a list: `{"items": […], "next_cursor": …}`, continued with `?cursor=`."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from farebox_collector.surfaces.api.problems import ApiError

Item = TypeVar("Item")

Cursor = Annotated[str | None, Query(description="The `next_cursor` of the previous page.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Maximum number of items.")]


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last.")


def encode_cursor(*position: str | int) -> str:
    """Encode a position in a list as opaque text."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """Decode a cursor to a position of the given types; None without one. Raises ApiError 400."""
    if cursor is None:
        return None
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        position = None
    if not isinstance(position, list) or [type(part) for part in position] != list(kinds):
        raise ApiError(400, "invalid cursor; send the next_cursor of this list's previous page")
    if not all(part.isprintable() if isinstance(part, str) else abs(part) < 2**63 for part in position):
        raise ApiError(400, "invalid cursor; send the next_cursor of this list's previous page")
    return tuple(position)


def page(
    rows: Sequence[Any],
    limit: int,
    show: Callable[[Any], Item],
    position: Callable[[Any], tuple[str | int, ...]],
) -> Page[Item]:
    """Return a page of `limit` rows out of `limit + 1` read; the extra row shows that more exist."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(items=[show(row) for row in shown], next_cursor=encode_cursor(*position(shown[-1])) if more else None)
