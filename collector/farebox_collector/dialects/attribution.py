"""Who a span belongs to (wallet, event, action, tags): the same keys whatever the dialect."""

from typing import NamedTuple

from farebox_collector.dialects.answer_quality import QUALITY_KEYS, quality_of
from farebox_collector.dialects.text import first_identity, first_text, is_clean
from farebox_collector.records import NO_EVENT, NO_QUALITY, UNATTRIBUTED, Attributes, Quality, Span

ATTRIBUTION_KEYS = QUALITY_KEYS | frozenset(
    {
        "farebox.wallet",
        "farebox.event",
        "farebox.action.id",
        "farebox.dept",
        "farebox.project",
        "farebox.task",
        "farebox.route",
        "cloud.region",
    }
)


class Origin(NamedTuple):
    """Who pays for a span and what it was for."""

    wallet: str
    event: str
    action_id: str
    dept: str
    project: str
    task: str
    route: str
    region: str
    assumptions: tuple[str, ...]
    quality: Quality = NO_QUALITY
    user_id: str = ""


def attribute_span(span: Span, wallet_attributes: tuple[str, ...]) -> Origin:
    """Read the origin of a span: `farebox.*` first, then the configured wallet attributes, else `unattributed`."""
    attributes = span.attributes
    wallet = UNATTRIBUTED
    assumptions: tuple[str, ...] = ("wallet_missing",)
    for key in ("farebox.wallet", *wallet_attributes):
        value = attributes.get(key)
        if value is None or value == "":
            continue
        # A name that would have to be altered could become somebody else's: nobody pays for a stranger.
        usable = isinstance(value, str | int) and not isinstance(value, bool) and is_clean(str(value))
        wallet, assumptions = (str(value), ()) if usable else (UNATTRIBUTED, ("wallet_name_unusable",))
        break
    return Origin(
        wallet,
        first_text(attributes, "farebox.event") or NO_EVENT,
        first_identity(attributes, "farebox.action.id"),
        first_text(attributes, "farebox.dept"),
        first_text(attributes, "farebox.project"),
        first_text(attributes, "farebox.task"),
        first_text(attributes, "farebox.route"),
        first_text(attributes, "cloud.region") or first_text(span.resource, "cloud.region"),
        assumptions,
        quality_of(attributes),
        _user_of(attributes, wallet, wallet_attributes),
    )


def _user_of(attributes: Attributes, wallet: str, wallet_attributes: tuple[str, ...]) -> str:
    """Who spends from a wallet that the application named; nobody apart where the wallet is named after the user."""
    if "farebox.wallet" not in attributes:
        return ""
    user_id = first_identity(attributes, *wallet_attributes)
    return "" if user_id == wallet else user_id
