"""Provide Farebox as an OpenTelemetry instrumentor, so that ``opentelemetry-instrument`` enables it without code."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from farebox.lifecycle import instrument, uninstrument


class FareboxInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """``instrument`` takes the arguments of :func:`farebox.instrument`; ``uninstrument`` restores everything."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return none: every installed library is metered."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        # opentelemetry-instrument passes all instrumentors arguments that only some of them know.
        known = {name: value for name, value in kwargs.items() if name in _ARGUMENTS}
        instrument(**known)

    def _uninstrument(self, **kwargs: Any) -> None:
        uninstrument()


_ARGUMENTS = frozenset(instrument.__kwdefaults__ or ())
