"""Turn on metering in each client library: at once if imported, otherwise on import.

An application pays neither time nor memory for an installed library that it does not use.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Final, Protocol

from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from wrapt import register_post_import_hook

from farebox.call_metrics import CallMetrics
from farebox.endpoints import ModelEndpoints, known_providers
from farebox.exposed_calls import ExposedCalls
from farebox.fast_streams import FastStreams
from farebox.guard import guarded
from farebox.http_spans import HttpSpans
from farebox.httpx_hooks import HttpxHooks
from farebox.version import __version__

# The official instrumentation of each client. The hooks in httpx and httpx2, which these clients use, add no spans
# within its spans.
_OFFICIAL: Final = {
    "openai": ("opentelemetry.instrumentation.genai.openai", "OpenAIInstrumentor"),
    "anthropic": ("opentelemetry.instrumentation.genai.anthropic", "AnthropicInstrumentor"),
    "google.genai": ("opentelemetry.instrumentation.google_genai", "GoogleGenAiSdkInstrumentor"),
}
_logger = logging.getLogger("farebox")
_HOOKED: Final = ("httpx", "httpx2")
LIBRARIES: Final = (*_OFFICIAL, *_HOOKED)


class _Instrumentor(Protocol):
    """The used part of ``BaseInstrumentor``, which has no types."""

    is_instrumented_by_opentelemetry: bool

    def instrument(
        self,
        *,
        tracer_provider: TracerProvider,
        meter_provider: MeterProvider | None,
        raise_exception_on_conflict: bool,
    ) -> None: ...

    def uninstrument(self) -> None: ...


class ClientLibraries:
    """The metered libraries, and how to turn each off."""

    def __init__(
        self,
        provider: TracerProvider,
        model_urls: Mapping[str, str | None],
        *,
        meter_provider: MeterProvider | None = None,
        request_stream_usage: bool = False,
        http_spans: HttpSpans | None = None,
        exposed: ExposedCalls | None = None,
    ) -> None:
        """Turn nothing on yet.

        Args:
            provider: the tracer provider of the spans.
            model_urls: base URLs named by the user, each with the provider's name or None.
            meter_provider: the provider of the metrics; None for the global one.
            request_stream_usage: whether to request usage of streams that do not report it by default.
            http_spans: traces the requests of HTTP libraries; None traces none.
            exposed: records exposures on the spans of instrumented clients.
        """
        self._http_spans = http_spans
        self._exposed = exposed or ExposedCalls()
        self._provider = provider
        self._model_urls = model_urls
        self._meter_provider = meter_provider
        self._request_stream_usage = request_stream_usage
        self._on: dict[str, Callable[[], None]] = {}

    def turn_on(self, library: str) -> None:
        """Meter calls through an imported library. Turning it on twice changes nothing."""
        with guarded(f"turning on the metering of {library}"):
            if library in self._on:
                return
            if library in _OFFICIAL:
                self._turn_on_official(library)
            else:
                self._turn_on_http(library)

    def turn_off(self) -> None:
        """Restore every library."""
        for library, turn_off in self._on.items():
            with guarded(f"turning off the metering of {library}"):
                turn_off()
        self._on.clear()

    def _turn_on_http(self, library: str) -> None:
        self._hooks.install(library)
        self._on[library] = functools.partial(self._hooks.remove, library)
        spans = self._http_spans
        if spans is not None:
            with guarded(f"turning on the HTTP spans of {library}"):
                spans.install(library)
                self._on[f"HTTP spans of {library}"] = functools.partial(spans.remove, library)

    def _turn_on_official(self, library: str) -> None:
        name, class_name = _OFFICIAL[library]
        module = importlib.import_module(name)
        instrumentor: _Instrumentor = getattr(module, class_name)()
        # The application turns off what it turned on itself.
        if instrumentor.is_instrumented_by_opentelemetry:
            return
        try:
            with _fast_calls(module):
                instrumentor.instrument(
                    tracer_provider=self._provider,
                    meter_provider=self._meter_provider,
                    raise_exception_on_conflict=True,
                )
        except DependencyConflictError as conflict:
            _logger.info("farebox: %s is metered by its HTTP requests: %s", library, conflict)
            return
        fast = FastStreams()
        if library == "openai":
            fast.install()

        def turn_off() -> None:
            fast.remove()
            instrumentor.uninstrument()

        self._on[library] = turn_off

    @functools.cached_property
    def _hooks(self) -> HttpxHooks:
        endpoints = ModelEndpoints(self._model_urls, known_providers())
        return HttpxHooks(
            self._provider.get_tracer("farebox", __version__),
            CallMetrics(self._meter_provider),
            endpoints,
            self._exposed,
            request_stream_usage=self._request_stream_usage,
        )


def _fast_calls(instrumentation: ModuleType) -> AbstractContextManager[object]:
    try:
        from farebox.fast_calls import FastCalls
    except ImportError:  # a later version of its dependency is built differently
        return nullcontext()
    return FastCalls(instrumentation)


def when_imported(turn_on: Callable[[str], None]) -> None:
    """Call ``turn_on`` with the name of each library: now if imported, otherwise on import.

    The import hook is permanent; call this once per process.
    """
    for library in LIBRARIES:
        register_post_import_hook(lambda module: turn_on(module.__name__), library)


def imported() -> list[str]:
    """Return the libraries that are already imported."""
    return [library for library in LIBRARIES if library in sys.modules]
