"""Attribution of a span (wallet, event, action, tags). The keys are the same in every dialect."""

from collections.abc import Iterable
from typing import NamedTuple

from farebox_collector.dialects.answer_quality import QUALITY_KEYS
from farebox_collector.dialects.memo import SpanShape
from farebox_collector.dialects.text import first_text, identity
from farebox_collector.model.names import is_valid_text
from farebox_collector.model.records import NO_EVENT, UNATTRIBUTED, Attributes, AttributeValue

ACTION_ID = "farebox.action.id"
REGION = "cloud.region"
WALLET = "farebox.wallet"
_TAGS = ("farebox.event", "farebox.dept", "farebox.project", "farebox.task", "farebox.route")
ORIGIN_NAMES = (WALLET, *_TAGS, REGION)
"""The attributes read here, besides the configured wallet attributes."""
MEASURED = QUALITY_KEYS | {ACTION_ID}
"""Attributes read from every span because they differ between calls."""
ATTRIBUTION_KEYS = MEASURED.union(ORIGIN_NAMES)

_SHARED = (WALLET, *_TAGS)

_Value = AttributeValue | None


def shared_attributes(resource: Attributes) -> dict[str, AttributeValue]:
    """Return the wallet, event and tags that a resource states for all its spans (`OTEL_RESOURCE_ATTRIBUTES`); those
    of a span come first."""
    return {name: resource[name] for name in _SHARED if name in resource} if resource else {}


class Origin(NamedTuple):
    """Who pays for a span, and the event, action and tags it belongs to."""

    wallet: str
    event: str
    dept: str
    project: str
    task: str
    route: str
    region: str
    assumptions: tuple[str, ...]
    user_id: str
    has_action: bool
    """Whether the span names its action."""
    has_quality: bool
    """Whether the span reports the quality of its answer."""
    of_agent: bool = False
    """Whether it was found by the names of coding agents too; see `agents.agent_origin`."""


def origin_of(shape: SpanShape, wallet_attributes: tuple[str, ...]) -> Origin:
    """Read the origin of a span: `farebox.*` first, then the configured wallet attributes, else `unattributed`."""
    get = shape.names.get
    wallets = (get(WALLET), *map(get, wallet_attributes))
    wallet, assumptions = _wallet(wallets)
    event, dept, project, task, route = [first_text(shape.names, tag) for tag in _TAGS]
    region = first_text({REGION: get(REGION) or shape.region}, REGION)
    user_id = _user(wallet, *wallets)
    has_action, has_quality = ACTION_ID in shape.keys, not QUALITY_KEYS.isdisjoint(shape.keys)
    return Origin(
        wallet, event or NO_EVENT, dept, project, task, route, region, assumptions, user_id, has_action, has_quality
    )


def _wallet(candidates: Iterable[_Value]) -> tuple[str, tuple[str, ...]]:
    """Return the first name that is present, and the assumption."""
    for value in candidates:
        if value is None or value == "":
            continue
        # Altering the name could produce another customer's name and charge the wrong wallet.
        usable = isinstance(value, str | int) and not isinstance(value, bool) and is_valid_text(str(value))
        return (str(value), ()) if usable else (UNATTRIBUTED, ("wallet_name_unusable",))
    return UNATTRIBUTED, ("wallet_missing",)


def _user(wallet: str, named: _Value, *others: _Value) -> str:
    """Return the user of a wallet that the application named; empty if the wallet is named after the user."""
    if named is None:
        return ""
    user_id = next((identity(value) for value in others if value is not None and value != ""), "")
    return "" if user_id == wallet else user_id
