"""Who a span belongs to (wallet, event, action, tags): the same keys whatever the dialect."""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from farebox_collector.dialects.answer_quality import QUALITY_KEYS, quality_of
from farebox_collector.dialects.text import clean, first_identity, identity, is_clean
from farebox_collector.records import NO_EVENT, NO_QUALITY, UNATTRIBUTED, AttributeValue, Quality, Span

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
    get = attributes.get
    region = get(_REGION) or span.resource.get(_REGION)
    names = _names(region, *map(get, _TAGS), get("farebox.wallet"), *map(get, wallet_attributes))
    action_id = first_identity(attributes, "farebox.action.id")
    return Origin(names[0], names[1], action_id, *names[2:-1], quality_of(attributes), names[-1])


_TAGS = ("farebox.event", "farebox.dept", "farebox.project", "farebox.task", "farebox.route")
_REGION = "cloud.region"
_Value = AttributeValue | None


# Spans of one wallet and purpose say the same again and again. Typed, since 1 and True are equal and not the same name.
@lru_cache(maxsize=16_384, typed=True)
def _names(
    region: _Value, event: _Value, dept: _Value, project: _Value, task: _Value, route: _Value, *wallets: _Value
) -> tuple[str, str, str, str, str, str, str, tuple[str, ...], str]:
    """Wallet, event, the tags, what was assumed, and the user."""
    wallet, assumptions = _wallet(wallets)
    tags = _text(dept), _text(project), _text(task), _text(route), _text(region)
    return wallet, _text(event) or NO_EVENT, *tags, assumptions, _user(wallet, *wallets)


def _wallet(candidates: Iterable[_Value]) -> tuple[str, tuple[str, ...]]:
    """The first name that is there, and what was assumed."""
    for value in candidates:
        if value is None or value == "":
            continue
        # A name that would have to be altered could become somebody else's: nobody pays for a stranger.
        usable = isinstance(value, str | int) and not isinstance(value, bool) and is_clean(str(value))
        return (str(value), ()) if usable else (UNATTRIBUTED, ("wallet_name_unusable",))
    return UNATTRIBUTED, ("wallet_missing",)


def _user(wallet: str, named: _Value, *others: _Value) -> str:
    """Who spends from a wallet that the application named; nobody apart where the wallet is named after the user."""
    if named is None:
        return ""
    user_id = next((identity(value) for value in others if value is not None and value != ""), "")
    return "" if user_id == wallet else user_id


def _text(value: _Value) -> str:
    return "" if value is None or value == "" else clean(value)
