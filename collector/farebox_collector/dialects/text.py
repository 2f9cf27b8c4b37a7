"""Text and counts from outside, made safe to keep: bounded, printable, whole."""

import math
from collections.abc import Callable, Mapping
from hashlib import blake2b

from farebox_collector.records import Attributes, AttributeValue

MAX_TEXT = 200
"""Longest name that is kept, in characters; longer ones are cut, but never those that tell things apart."""
MAX_COUNT = 10**10
"""Most tokens one call can have used; more is a broken sender."""


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
        if value is not None:
            return count_of(key, value)
    return None


def count_of(key: str, value: AttributeValue) -> int:
    """A reported value as a count. Raises InvalidCount."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise InvalidCount(f"{key} is not a whole number")
    if value < 0:
        raise InvalidCount(f"{key} is negative")
    if value > MAX_COUNT:
        raise InvalidCount(f"{key} is over {MAX_COUNT}")
    return value
