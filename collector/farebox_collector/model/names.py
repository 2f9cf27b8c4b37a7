"""Names: the rule that every name from outside keeps, whether a span, a request or a command line states it."""

MAX_NAME = 200
"""Longest name, in characters."""


class InvalidName(ValueError):
    """A name breaks the rule; the message states the rule."""


def is_valid_text(text: str) -> bool:
    """Return whether a text can be stored unchanged: short enough, without control characters or lone surrogates."""
    return len(text) <= MAX_NAME and text.isprintable()


def require_name(name: str, subject: str) -> str:
    """Return a name that can be stored unchanged; raise InvalidName otherwise. `subject` begins the message."""
    if not name or not is_valid_text(name):
        raise InvalidName(f"{subject} must have 1 to {MAX_NAME} printable characters")
    return name
