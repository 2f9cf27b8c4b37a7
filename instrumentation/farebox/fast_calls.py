"""Skip work of the official instrumentations that does not affect spans while no content is captured.

They all open and end their spans through one package, which prepares each call to record messages and to merge data of
nested instrumentations. This preparation takes a third of its time. The invocation here does the rest of the official
work. The official one is used if content is captured, a conversation is named, another official instrumentation is
around or inside, or the package has an untested version.
"""

from __future__ import annotations

import dataclasses
import functools
import timeit
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

from opentelemetry.context import attach, get_current, get_value, set_value
from opentelemetry.trace import SpanKind, set_span_in_context
from opentelemetry.util.genai import version
from opentelemetry.util.genai._conversation_context import get_ambient_conversation_id
from opentelemetry.util.genai._inference_invocation import (
    CLIENT_INFERENCE_CONTEXT_KEY,
    InferenceData,
    InferenceInvocation,
    _should_emit_event,
)
from opentelemetry.util.genai.handler import TelemetryHandler

from farebox import span_attributes
from farebox.call_metrics import goes_nowhere
from farebox.span_notes import note

KNOWN_VERSIONS: Final = frozenset({"1.3b0"})


class _Data(InferenceData):
    """The facts of a call; unset ones are None, the class's default."""

    def __init__(self, provider: str, request_model: str | None, address: str | None, port: int | None) -> None:
        self.attributes = {}
        self.metric_attributes = {}
        self.operation_name = "chat"
        self.provider_name = provider
        self.request_model = request_model
        self.server_address = address
        self.server_port = port


class _Inside(InferenceData):
    """Receives the data of instrumentations inside a call."""

    has_data = False

    def __init__(self) -> None:
        self.attributes = {}
        self.metric_attributes = {}

    def merge(self, other: Any, *, overwrite: bool = True) -> None:
        self.has_data = True
        super().merge(other, overwrite=overwrite)


class FastInvocation(InferenceInvocation):
    """A chat call without its content."""

    def __init__(
        self,
        handler: FastHandler,
        provider: str,
        request_model: str | None,
        address: str | None,
        port: int | None,
    ) -> None:
        self._instruments = handler._instruments
        self._completion_hook = handler._completion_hook
        self._content_capturing_mode = handler._content_capturing_mode
        self._error_type_resolver = None
        self._emit_event = False
        self._operation_name = "chat"
        self.conversation_id = None
        self.data = data = _Data(provider, request_model, address, port)
        self.attributes = data.attributes
        self.metric_attributes = data.metric_attributes
        start: dict[str, Any] = {
            span_attributes.OPERATION_NAME: "chat",
            span_attributes.PROVIDER_NAME: provider,
        }
        if request_model is not None:
            start[span_attributes.REQUEST_MODEL] = request_model
        if address is not None:
            start[span_attributes.SERVER_ADDRESS] = address
        if port is not None:
            start[span_attributes.SERVER_PORT] = port
        self._start_attributes = start
        name = f"chat {request_model}" if request_model else "chat"
        self._start_span = True
        self.span = handler._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=start)
        self._inside = _Inside()
        self._context_key = CLIENT_INFERENCE_CONTEXT_KEY
        self._span_context = set_value(
            CLIENT_INFERENCE_CONTEXT_KEY, self._inside, set_span_in_context(self.span, get_current())
        )
        self._attach_to_context = True
        self._context_token = attach(self._span_context)
        self._monotonic_start_s = timeit.default_timer()
        self._request_stream = None
        self._ttfc_seconds = None
        self._stream_last_chunk_at = None
        self._finished = False

    def _get_attributes(self) -> dict[str, Any]:
        names, with_empty, excluded = _names()
        known: dict[str, Any] = {}
        for name, value in vars(self.data).items():
            if value is None:
                continue
            if name in names:
                if value or name in with_empty:
                    known[names[name]] = value
            elif value and name in excluded:
                return super()._get_attributes()
        return known

    def _apply_finish(self, error: Any = None) -> None:
        if self._inside.has_data:
            super()._apply_finish(error)
            return
        if error is not None:
            self._apply_error_attributes(error)
        if self._request_stream is not None:
            self.data.request_stream = self._request_stream
        known = {**self._get_attributes(), **self.attributes}  # an instrumentation may have set further attributes
        for key in self._start_attributes:
            known.pop(key, None)
        note(self.span, known)
        if not goes_nowhere(self._instruments.operation_duration):
            self._record_client_metrics()


@functools.cache
def _names() -> tuple[Mapping[str, str], frozenset[str], frozenset[str]]:
    """Find out which fields the official class turns into attributes, by setting each field.

    Returns the attribute names by field, the fields that become attributes even if empty, and those whose attribute
    differs from their value.
    """
    names: dict[str, str] = {}
    with_empty: set[str] = set()
    excluded = {"output_messages", "conversation_id"}  # one holds objects, the other is stored in two places
    for name in (field.name for field in dataclasses.fields(InferenceData) if field.name not in excluded):
        asked: dict[bool, dict[str, Any]] = {}
        for empty in (True, False):
            invocation: Any = InferenceInvocation.__new__(InferenceInvocation)
            invocation.conversation_id = invocation._request_stream = None
            invocation.data = InferenceData()
            setattr(invocation.data, name, [] if empty else [name])
            asked[empty] = InferenceInvocation._get_attributes(invocation)
        if list(asked[False].values()) == [[name]]:
            (names[name],) = asked[False]
            if asked[True]:
                with_empty.add(name)
        elif asked[False]:
            excluded.add(name)
    return names, frozenset(with_empty), frozenset(excluded)


class FastHandler(TelemetryHandler):
    """The official handler, with fast invocations of chat calls where possible."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fast = not self.should_capture_content() and not _should_emit_event(self._content_capturing_mode)

    def inference(self, provider: str, **details: Any) -> InferenceInvocation:
        """As the official handler."""
        if (
            self._fast
            and details.keys() <= _UNDERSTOOD
            and get_value(CLIENT_INFERENCE_CONTEXT_KEY) is None
            and get_ambient_conversation_id() is None
        ):
            return FastInvocation(
                self,
                provider,
                details.get("request_model"),
                details.get("server_address"),
                details.get("server_port"),
            )
        return super().inference(provider, **details)


_UNDERSTOOD: Final = frozenset({"request_model", "server_address", "server_port"})


class FastCalls:
    """Replaces the official handler with the fast one while an instrumentation creates its own."""

    def __init__(self, instrumentation: ModuleType) -> None:
        """``instrumentation`` is the module that creates the handler when turned on."""
        self._instrumentation: Any = instrumentation
        self._official: Any = None

    def __enter__(self) -> None:
        """Replace the handler if its version is supported."""
        official = getattr(self._instrumentation, "TelemetryHandler", None)
        if version.__version__ in KNOWN_VERSIONS and official is TelemetryHandler:
            self._official, self._instrumentation.TelemetryHandler = official, FastHandler

    def __exit__(self, *_: object) -> None:
        """Restore the official handler."""
        if self._official is not None:
            self._instrumentation.TelemetryHandler, self._official = self._official, None
