"""Turns metering on in each client library: at once in those that are imported, in the others when they are.

So an application pays neither time nor memory for a library that is installed and that it does not use.
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
from farebox.fast_streams import LeanStreams
from farebox.guard import guarded
from farebox.http_spans import HttpSpans
from farebox.httpx_hooks import HttpxHooks
from farebox.version import __version__

# The official instrumentation of a client. The hooks in httpx and httpx2, on which these clients sit, stay
# silent within its spans.
_OFFICIAL: Final = {
    "openai": ("opentelemetry.instrumentation.genai.openai", "OpenAIInstrumentor"),
    "anthropic": ("opentelemetry.instrumentation.genai.anthropic", "AnthropicInstrumentor"),
    "google.genai": ("opentelemetry.instrumentation.google_genai", "GoogleGenAiSdkInstrumentor"),
}
_logger = logging.getLogger("farebox")
_HOOKED: Final = ("httpx", "httpx2")
LIBRARIES: Final = (*_OFFICIAL, *_HOOKED)


class _Instrumentor(Protocol):
    """The part used here of ``BaseInstrumentor``, which has no types."""

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
    """What is turned on, and how to turn it off."""

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
            provider: where the spans come from.
            model_urls: base URLs that the user named, each with the provider's name or None.
            meter_provider: where the metrics go; None is the global one.
            request_stream_usage: whether streams are asked for the usage that they do not tell by themselves.
            http_spans: what traces the requests of HTTP libraries; None traces none.
            exposed: what notes exposures on the spans of instrumented clients.
        """
        self._http_spans = http_spans
        self._exposed = exposed or ExposedCalls()
        self._provider = provider
        self._model_urls = model_urls
        self._meter_provider = meter_provider
        self._request_stream_usage = request_stream_usage
        self._on: dict[str, Callable[[], None]] = {}

    def turn_on(self, library: str) -> None:
        """Meter the calls made through a library that is imported. Turning it on twice changes nothing."""
        with guarded(f"turning on the metering of {library}"):
            if library in self._on:
                return
            if library in _OFFICIAL:
                self._turn_on_official(library)
            else:
                self._turn_on_http(library)

    def turn_off(self) -> None:
        """Leave every library as it was found."""
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
        # One that the application turned on itself is the application's to turn off.
        if instrumentor.is_instrumented_by_opentelemetry:
            return
        try:
            with _lean_calls(module):
                instrumentor.instrument(
                    tracer_provider=self._provider,
                    meter_provider=self._meter_provider,
                    raise_exception_on_conflict=True,
                )
        except DependencyConflictError as conflict:
            _logger.info("farebox: %s is metered by its HTTP requests: %s", library, conflict)
            return
        lean = LeanStreams()
        if library == "openai":
            lean.install()

        def turn_off() -> None:
            lean.remove()
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


def _lean_calls(instrumentation: ModuleType) -> AbstractContextManager[object]:
    try:
        from farebox.fast_calls import LeanCalls
    except ImportError:  # a later version of what it builds on is built otherwise
        return nullcontext()
    return LeanCalls(instrumentation)


def when_imported(turn_on: Callable[[str], None]) -> None:
    """Call ``turn_on`` with the name of each library, now for those that are imported, later for the others.

    An import hook stays for good, so this is to be called once in a process.
    """
    for library in LIBRARIES:
        register_post_import_hook(lambda module: turn_on(module.__name__), library)


def imported() -> list[str]:
    """The libraries that are imported already."""
    return [library for library in LIBRARIES if library in sys.modules]
