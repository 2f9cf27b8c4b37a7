"""Amounts of credits and prices in customers' currencies, in requests and responses."""

from pydantic import BaseModel, ConfigDict, Field

from farebox_collector.model.minor_units import format_minor, parse_minor
from farebox_collector.model.money import AmountError, parse_nano
from farebox_collector.pricing.currencies import is_currency
from farebox_collector.surfaces.api.problems import ApiError


class PackPrice(BaseModel):
    """A price in the customer's currency."""

    model_config = ConfigDict(extra="forbid", strict=True)

    value: str = Field(description="Decimal with at most the currency's number of decimals.", examples=["10.00"])
    currency: str = Field("USD", description="ISO 4217, three capital letters.")


def show_price(minor: int, currency: str) -> PackPrice:
    """Convert a price to its API model."""
    return PackPrice(value=format_minor(minor, currency), currency=currency)


def price_minor(price: PackPrice, field: str) -> int:
    """Return a positive price in its currency's smallest unit. Raises ApiError 422, which names the field."""
    if not is_currency(price.currency):
        raise ApiError(422, f"{field}: a currency must have three capital letters, such as EUR")
    try:
        return parse_minor(price.value, price.currency)
    except AmountError as error:
        raise ApiError(422, f"{field}: {error}") from None


def positive_nanocredits(text: str, what: str) -> int:
    """Return a positive amount in nanocredits. Raises ApiError 422 otherwise; `what` names the amount in the error."""
    try:
        amount = parse_nano(text)
    except AmountError as error:
        raise ApiError(422, f"amount_credits: {error}") from None
    if amount <= 0:
        raise ApiError(422, f"amount_credits: {what} must be positive")
    return amount
