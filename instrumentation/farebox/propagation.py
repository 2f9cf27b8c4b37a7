"""Sends the current tags along with every request that OpenTelemetry's instrumentations of HTTP and queues make.

Off unless asked for. The HTTP instrumentation that Farebox turns on sends tags to the application's own hosts only. One
that the application turned on sends them wherever it sends its headers.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import propagate
from opentelemetry.context import Context, create_key, get_current, get_value
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from farebox import tag_sources
from farebox.guard import guarded

FOREIGN_HOST: Final = create_key("farebox-foreign-host")
"""True in the context of a request to a third party, which is told no tags."""


class TagPropagator(TextMapPropagator):
    """Adds the current tags to the ``baggage`` header; to be put behind the propagators that are there."""

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """Nothing of its own: the baggage propagator has read the header."""
        return context if context is not None else get_current()

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Write the header again, with the tags in it."""
        with guarded("writing a baggage header"):
            if get_value(FOREIGN_HOST, context):
                return
            tag_sources.inject(carrier, context, setter)

    @property
    def fields(self) -> set[str]:
        """The header that is written."""
        return {"baggage"}


class TagPropagation:
    """Puts the propagator in place, and takes it out."""

    def __init__(self) -> None:
        """Change nothing yet."""
        self._before: Any = None
        self._ours: Any = None

    def start(self) -> None:
        """Send tags along from now on."""
        self._before = propagate.get_global_textmap()
        self._ours = CompositePropagator([self._before, TagPropagator()])
        propagate.set_global_textmap(self._ours)

    def stop(self) -> None:
        """Send them no more, unless somebody has set other propagators since."""
        if self._ours is not None and propagate.get_global_textmap() is self._ours:
            propagate.set_global_textmap(self._before)
        self._ours = None
