"""Make external text and counts safe to store: bounded, printable, whole."""

import math
import re
from collections.abc import Callable, Mapping
from hashlib import blake2b

from farebox_collector.model.names import MAX_NAME, is_valid_text
from farebox_collector.model.records import Attributes, AttributeValue

MAX_COUNT = 2**63 - 1
"""Largest count that is read; a larger value cannot be a count."""
MAX_BUCKET = 10**9
"""Most tokens of one kind that are charged for one call; a call with more is kept and not charged."""

_LONGEST_NUMBER = 40
_NUMBER = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?\s*")

Reductions = Mapping[str, Callable[[str], str | None]]
"""Attribute → the function that keeps the allowed part of its text; None to keep nothing."""


class InvalidCount(ValueError):
    """A token count that can never be booked; the message is the reason."""


def clean(value: AttributeValue) -> str:
    """Return a value as one bounded, printable line; unprintable characters become U+FFFD."""
    text = value if isinstance(value, str) else ",".join(value) if isinstance(value, tuple) else str(value)
    if is_valid_text(text):
        return text
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:MAX_NAME])


def first_identity(attributes: Attributes, *keys: str) -> str:
    """Return the first non-empty alias as an `identity`; empty if there is none."""
    for key in keys:
        value = attributes.get(key)
        if value is not None and value != "":
            # Inlined for the ordinary case: this runs for every span.
            if type(value) is str and len(value) <= MAX_NAME and value.isprintable():
                return value
            return identity(value)
    return ""


def identity(value: AttributeValue) -> str:
    """Return an identifier: never cut, but replaced by a digest if it cannot be stored as it is."""
    text = str(value)
    return text if is_valid_text(text) else f"blake2b:{blake2b(text.encode(), digest_size=16).hexdigest()}"


def first_text(attributes: Attributes, *keys: str) -> str:
    """Return the first non-empty alias, cleaned; empty if there is none."""
    for key in keys:
        value = attributes.get(key)
        if value is not None and value != "":
            # Inlined for the ordinary case: this runs a dozen times per span.
            if type(value) is str and len(value) <= MAX_NAME and value.isprintable():
                return value
            return clean(value)
    return ""


def first_count(attributes: Attributes, *keys: str) -> int | None:
    """Return the first count among aliases; None if there is none. Raises InvalidCount."""
    for key in keys:
        value = attributes.get(key)
        if value is not None and (count := count_of(key, value)) is not None:
            return count
    return None


def count_of(key: str, value: object) -> int | None:
    """Convert a reported value to a count; digits as text are accepted. None if it is not a whole number.

    Raises InvalidCount for a number that cannot be a count: negative, or over `MAX_COUNT`.
    """
    number: object = _number_in(value) if isinstance(value, str) else value
    if isinstance(number, float) and math.isfinite(number) and number.is_integer():
        number = int(number)
    if type(number) is not int:
        return None
    if number < 0:
        raise InvalidCount(f"{key} is negative")
    if number > MAX_COUNT:
        raise InvalidCount(f"{key} is over {MAX_COUNT}")
    return number


def _number_in(text: str) -> int | float | None:
    if len(text) > _LONGEST_NUMBER:
        digits = text.strip()
        endless = digits.isascii() and digits.removeprefix("-").isdigit()
        # More digits than any count has: skip the conversion.
        return ((-1 if digits[0] == "-" else MAX_COUNT + 1) if digits.strip("-0") else 0) if endless else None
    if _NUMBER.fullmatch(text) is None:
        return None
    return float(text) if "." in text or "e" in text.lower() else int(text)
