"""Amounts of credits as requests state them."""

from farebox_collector.money import AmountError, parse_nano
from farebox_collector.surfaces.problems import ApiError


def positive_nanocredits(text: str, what: str) -> int:
    """A positive amount in nanocredits. Raises ApiError 422 for anything else; `what` is for its sentence."""
    try:
        amount = parse_nano(text)
    except AmountError as error:
        raise ApiError(422, f"amount_credits: {error}") from None
    if amount <= 0:
        raise ApiError(422, f"amount_credits: {what} is positive")
    return amount
