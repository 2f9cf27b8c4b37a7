"""Text and counts from outside, made safe to keep: bounded, printable, whole."""

import math
import re
from collections.abc import Callable, Mapping
from hashlib import blake2b

from farebox_collector.model.records import Attributes, AttributeValue

MAX_TEXT = 200
"""Longest name that is kept, in characters; longer ones are cut, but never those that tell things apart."""
MAX_COUNT = 2**63 - 1
"""Largest count that is read at all; more cannot be a count."""
MAX_BUCKET = 10**9
"""Most tokens of one kind that are charged for one call; a call with more is kept, and not charged."""

_LONGEST_NUMBER = 40
_NUMBER = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?\s*")

Reductions = Mapping[str, Callable[[str], str | None]]
"""Attribute → what may be kept of its text; None for nothing."""


class InvalidCount(ValueError):
    """A token count that can never be booked; the message is the reason."""


def is_clean(text: str) -> bool:
    """Whether a text can be kept as it is: not too long, and without control characters or lone surrogates."""
    return len(text) <= MAX_TEXT and text.isprintable()


def clean(value: AttributeValue) -> str:
    """A value as one bounded, printable line; what cannot be printed becomes U+FFFD."""
    text = value if isinstance(value, str) else ",".join(value) if isinstance(value, tuple) else str(value)
    if is_clean(text):
        return text
    return "".join(char if char.isprintable() else "\ufffd" for char in text[:MAX_TEXT])


def first_identity(attributes: Attributes, *keys: str) -> str:
    """The first non-empty value among aliases, as an `identity`; empty where there is none."""
    for key in keys:
        value = attributes.get(key)
        if value is not None and value != "":
            # Spelt out for the ordinary case: this runs for every span.
            if type(value) is str and len(value) <= MAX_TEXT and value.isprintable():
                return value
            return identity(value)
    return ""


def identity(value: AttributeValue) -> str:
    """A value to tell things apart by: never cut, but a digest where it cannot be kept as it is."""
    text = str(value)
    return text if is_clean(text) else f"blake2b:{blake2b(text.encode(), digest_size=16).hexdigest()}"


def first_text(attributes: Attributes, *keys: str) -> str:
    """The first non-empty value among aliases, cleaned; empty where there is none."""
    for key in keys:
        value = attributes.get(key)
        if value is not None and value != "":
            # Spelt out for the ordinary case: this runs a dozen times a span.
            if type(value) is str and len(value) <= MAX_TEXT and value.isprintable():
                return value
            return clean(value)
    return ""


def first_count(attributes: Attributes, *keys: str) -> int | None:
    """The first count present among aliases; None where there is none. Raises InvalidCount."""
    for key in keys:
        value = attributes.get(key)
        if value is not None and (count := count_of(key, value)) is not None:
            return count
    return None


def count_of(key: str, value: object) -> int | None:
    """A reported value as a count; digits as text are a number. None for what is no whole number: it tells nothing.

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
        # More digits than any count has are not worth converting.
        return ((-1 if digits[0] == "-" else MAX_COUNT + 1) if digits.strip("-0") else 0) if endless else None
    if _NUMBER.fullmatch(text) is None:
        return None
    return float(text) if "." in text or "e" in text.lower() else int(text)
