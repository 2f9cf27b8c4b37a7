"""Farebox as an OpenTelemetry instrumentor, so that ``opentelemetry-instrument`` turns it on without code."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from farebox.lifecycle import instrument, uninstrument


class FareboxInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """``instrument`` takes what :func:`farebox.instrument` takes; ``uninstrument`` restores everything."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: every library is metered that is there."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        # opentelemetry-instrument passes things to all instrumentors that only some of them know.
        known = {name: value for name, value in kwargs.items() if name in _ARGUMENTS}
        instrument(**known)

    def _uninstrument(self, **kwargs: Any) -> None:
        uninstrument()


_ARGUMENTS = frozenset(instrument.__kwdefaults__ or ())
