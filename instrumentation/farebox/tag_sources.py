"""Read tags from W3C baggage and the environment, in addition to ``farebox.action`` and ``farebox.tags``.

Baggage crosses services: a server tags a request, and a worker's model calls for it carry the tags. But any client can
send a header. So incoming baggage only sets tags for reports, unless the application trusts it: then it also sets the
wallet, the event and the action.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context

from farebox import span_attributes
from farebox.attribution import Attribution, current
from farebox.guard import guarded, report

TAGS: Final = "FAREBOX_TAGS"
TRUST_BAGGAGE: Final = "FAREBOX_TRUST_BAGGAGE"
PROPAGATE_TAGS: Final = "FAREBOX_PROPAGATE_TAGS"
VALUE_CHARACTERS_MAX: Final = 200
"""Maximum length of a tag from baggage or the environment; longer ones are truncated."""

REPORT_TAGS: Final = (span_attributes.DEPT, span_attributes.PROJECT, span_attributes.TASK, span_attributes.ROUTE)
IDENTITY_TAGS: Final = (span_attributes.WALLET, span_attributes.EVENT, span_attributes.ACTION_ID)

_propagator: Final = W3CBaggagePropagator()


class TagSources:
    """The tags of a span from all sources: innermost scope first, then baggage, then the environment."""

    def __init__(self, *, trust_baggage: bool = False) -> None:
        """Read ``FAREBOX_TAGS`` for the process."""
        self._taken = (*REPORT_TAGS, *IDENTITY_TAGS) if trust_baggage else REPORT_TAGS
        self._process = MappingProxyType(tags_in(os.environ.get(TAGS, "")))

    def tags(self, scope: Attribution | None, context: Context | None) -> Mapping[str, str | bool]:
        """Return the tags of a span that starts in this context; None for the current one."""
        carried = baggage.get_all(context)
        if not carried and not self._process:
            return scope.attributes if scope is not None else self._process
        return {**self._process, **_taken(carried, self._taken), **(scope.attributes if scope is not None else {})}


def tags_in(text: str) -> dict[str, str]:
    """Read ``dept=support,project=help``; also ``task``, ``route``, ``wallet`` and ``event``. Report other keys."""
    known = {name.removeprefix("farebox."): name for name in (*REPORT_TAGS, *IDENTITY_TAGS[:2])}
    tags: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = pair.partition("=")
        key = known.get(name.strip().removeprefix("farebox."))
        if key is None or not value.strip():
            report("tags", f"{TAGS} has {pair!r}, which is none of {', '.join(known)} with a value")
        else:
            tags[key] = value.strip()[:VALUE_CHARACTERS_MAX]
    return tags


def outgoing_headers() -> dict[str, str]:
    """Return the current wallet, event, action and tags as a ``baggage`` header for the application's own services.

    Never send it to third parties: it names the user. Empty without tags.
    """
    headers: dict[str, str] = {}
    with guarded("writing a baggage header"):
        inject(headers, None)
    return headers


def inject(carrier: Any, context: Context | None, setter: Any = None) -> None:
    """Write the context's baggage with the current tags into the carrier."""
    scope = current()
    for key, value in (scope.attributes if scope is not None else {}).items():
        context = baggage.set_baggage(key, str(value), context)
    if setter is None:
        _propagator.inject(carrier, context)
    else:
        _propagator.inject(carrier, context, setter)


def tags_of_headers(headers: Mapping[str, str], *, trusted: bool) -> dict[str, str]:
    """Return the tags in a ``baggage`` header, named in any case."""
    lower = {name.lower(): value for name, value in headers.items()}
    carried = baggage.get_all(_propagator.extract(lower))
    return _taken(carried, (*REPORT_TAGS, *IDENTITY_TAGS) if trusted else REPORT_TAGS)


def flag(variable: str, stated: bool | None) -> bool:
    """Return the application's setting, else the environment's."""
    return stated if stated is not None else os.environ.get(variable, "").strip().lower() in ("true", "1", "yes")


def _taken(carried: Mapping[str, object], keys: tuple[str, ...]) -> dict[str, str]:
    return {key: str(carried[key])[:VALUE_CHARACTERS_MAX] for key in keys if carried.get(key)}
