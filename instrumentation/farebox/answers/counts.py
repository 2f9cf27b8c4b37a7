"""Read counts, texts and amounts from untrusted answers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

COUNT_MAX: Final = 2**63 - 1
"""The largest count that a span attribute can hold."""
_DIGITS: Final = re.compile(r"\s*+(-?)(\d++)(?:\.0*+)?\s*+", re.ASCII)
_DIGITS_MAX: Final = 40
_WALKED_MAX: Final = 1_000


def text_in(value: object) -> str | None:
    """Return a text; None if the value is empty or not a text."""
    return value if isinstance(value, str) and value else None


def whole(value: object) -> int | None:
    """Return a whole number from 5, 5.0 or "5"; None for all else, such as true, NaN and "many"."""
    if type(value) is int:
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and (found := _DIGITS.fullmatch(value)):
        digits = found[2].lstrip("0") or "0"
        # Do not convert more digits than any count has: the number is impossible.
        return int(found[1] + (digits if len(digits) <= _DIGITS_MAX else "9" * _DIGITS_MAX))
    return None


def count_in(counts: Mapping[str, Any], *path: str) -> int | None:
    """Return the count at the end of the path; None if missing."""
    value: Any = counts
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return count_of(value)


def count_of(value: object) -> int | None:
    """Return a value as a count."""
    if value is None:
        return None
    number = value if type(value) is int else whole(value)
    return number if number is not None and 0 <= number <= COUNT_MAX else None


def first_count(counts: Mapping[str, Any], *keys: str) -> int | None:
    """Return the count of the first key that has one."""
    for key in keys:
        if key in counts and (count := count_of(counts[key])) is not None:
            return count
    return None


def has_impossible_count(usage: object) -> bool:
    """Return whether a token count is below zero or too large for a span attribute."""
    if isinstance(usage, dict) and _is_plain(usage):
        return False
    pending, walked = [usage], 0
    while pending and walked < _WALKED_MAX:
        part = pending.pop()
        if not isinstance(part, dict):
            continue
        walked += len(part)
        for key, value in part.items():
            if type(value) is int:
                if not 0 <= value <= COUNT_MAX and "oken" in key:
                    return True
            elif isinstance(value, dict):
                pending.append(value)
            elif isinstance(value, list):
                pending.extend(value[:_WALKED_MAX])
            elif value is not None and "oken" in key:
                number = whole(value)
                if number is not None and not 0 <= number <= COUNT_MAX:
                    return True
    return False


def _is_plain(usage: Mapping[str, Any]) -> bool:
    """Return whether the usage has only possible counts and one level of objects with such, as nearly all usage."""
    for value in usage.values():
        if type(value) is int:
            if not 0 <= value <= COUNT_MAX:
                return False
        elif type(value) is dict:
            for count in value.values():
                if count is not None and (type(count) is not int or not 0 <= count <= COUNT_MAX):
                    return False
        elif value is not None:
            return False
    return True


def mappings_in(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a list; empty if the value is not a list."""
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def mapping_in(value: object) -> Mapping[str, Any]:
    """Return the object, or an empty one."""
    return value if isinstance(value, dict) else {}


def amount_in(value: object, most: int = 10**9) -> Decimal | None:
    """Return an amount of money from zero up to a limit; None if invalid."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(value if isinstance(value, str) else repr(value))
    except ArithmeticError:
        return None
    return amount if amount.is_finite() and 0 <= amount < most else None


def seconds_in(value: object) -> int | None:
    """Return a duration in whole seconds, rounded up."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return math.ceil(value)


def merged(old: Any, new: Any) -> Any:
    """Merge a later part of an answer into an earlier one; null and zero replace nothing."""
    if isinstance(new, dict):
        if not isinstance(old, dict) or not old:
            return {key: value for key, value in new.items() if value is not None}
        return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}
    if new is None or (new == 0 and whole(new) == 0 and (whole(old) or 0) > 0):
        return old
    return new


def is_stated(body: bytes, key: bytes) -> bool:
    """Return whether the JSON text has the key with a value other than null or 0."""
    found = body.count(key)
    if found:
        found -= body.count(key + b":null")
    if found:
        found -= body.count(key + b": null")
    if found:
        found -= body.count(key + b":0") + body.count(key + b": 0")
    return found > 0
