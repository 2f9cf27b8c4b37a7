"""Send the current tags with every request of OpenTelemetry's HTTP and queue instrumentations.

Off by default. The HTTP instrumentation that Farebox turns on sends tags to the application's own hosts only. One
that the application turned on sends them with all its headers.
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
"""True in the context of a request to a third party, which receives no tags."""


class TagPropagator(TextMapPropagator):
    """Adds the current tags to the ``baggage`` header; placed after the existing propagators."""

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """Return the context unchanged: the baggage propagator has read the header."""
        return context if context is not None else get_current()

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Write the header again, including the tags."""
        with guarded("writing a baggage header"):
            if get_value(FOREIGN_HOST, context):
                return
            tag_sources.inject(carrier, context, setter)

    @property
    def fields(self) -> set[str]:
        """Return the written header's name."""
        return {"baggage"}


class TagPropagation:
    """Installs and removes the propagator."""

    def __init__(self) -> None:
        """Install nothing yet."""
        self._before: Any = None
        self._ours: Any = None

    def start(self) -> None:
        """Install the propagator."""
        self._before = propagate.get_global_textmap()
        self._ours = CompositePropagator([self._before, TagPropagator()])
        propagate.set_global_textmap(self._ours)

    def stop(self) -> None:
        """Remove the propagator, unless other propagators were set since."""
        if self._ours is not None and propagate.get_global_textmap() is self._ours:
            propagate.set_global_textmap(self._before)
        self._ours = None
