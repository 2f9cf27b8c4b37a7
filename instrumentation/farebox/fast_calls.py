"""Takes work off the official instrumentations that leaves no trace on a span while no content is captured.

They all open and end their spans through one package, which prepares each call for messages to be written down, and
for other instrumentations inside it to add what they know: a third of the time that it takes. The invocation here does
what the official one does but for that. Where content is captured, where a conversation is named, or where another
official instrumentation is around or inside, the official one does its work; and so it does in a version of the package
that these classes were not held against.
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
    """What is known of a call; what is not set is None, the class's own default."""

    def __init__(self, provider: str, request_model: str | None, address: str | None, port: int | None) -> None:
        self.attributes = {}
        self.metric_attributes = {}
        self.operation_name = "chat"
        self.provider_name = provider
        self.request_model = request_model
        self.server_address = address
        self.server_port = port


class _Inside(InferenceData):
    """Where the instrumentations inside a call put what they know."""

    told = False

    def __init__(self) -> None:
        self.attributes = {}
        self.metric_attributes = {}

    def merge(self, other: Any, *, overwrite: bool = True) -> None:
        self.told = True
        super().merge(other, overwrite=overwrite)


class FastInvocation(InferenceInvocation):
    """One chat call without its content."""

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
        names, with_empty, others = _names()
        known: dict[str, Any] = {}
        for name, value in vars(self.data).items():
            if value is None:
                continue
            if name in names:
                if value or name in with_empty:
                    known[names[name]] = value
            elif value and name in others:
                return super()._get_attributes()
        return known

    def _apply_finish(self, error: Any = None) -> None:
        if self._inside.told:
            super()._apply_finish(error)
            return
        if error is not None:
            self._apply_error_attributes(error)
        if self._request_stream is not None:
            self.data.request_stream = self._request_stream
        known = {**self._get_attributes(), **self.attributes}  # an instrumentation may have set others
        for key in self._start_attributes:
            known.pop(key, None)
        note(self.span, known)
        if not goes_nowhere(self._instruments.operation_duration):
            self._record_client_metrics()


@functools.cache
def _names() -> tuple[Mapping[str, str], frozenset[str], frozenset[str]]:
    """What the official class makes attributes of, found by asking it about each field.

    Returns the attributes by the names of the fields, the fields that become attributes also where they are empty,
    and those that become something else than what they hold.
    """
    names: dict[str, str] = {}
    with_empty: set[str] = set()
    others = {"output_messages", "conversation_id"}  # one is of objects, the other is kept in two places
    for name in (field.name for field in dataclasses.fields(InferenceData) if field.name not in others):
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
            others.add(name)
    return names, frozenset(with_empty), frozenset(others)


class FastHandler(TelemetryHandler):
    """The official handler, which makes lean invocations of chat calls where these will do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lean = not self.should_capture_content() and not _should_emit_event(self._content_capturing_mode)

    def inference(self, provider: str, **details: Any) -> InferenceInvocation:
        """As the official one."""
        if (
            self._lean
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


class LeanCalls:
    """Puts the lean handler in the place of the official one while an instrumentation makes its own, and back."""

    def __init__(self, instrumentation: ModuleType) -> None:
        """``instrumentation`` is the module that makes the handler when it is turned on."""
        self._instrumentation: Any = instrumentation
        self._official: Any = None

    def __enter__(self) -> None:
        """Replace it, if it is what it was when this was written."""
        official = getattr(self._instrumentation, "TelemetryHandler", None)
        if version.__version__ in KNOWN_VERSIONS and official is TelemetryHandler:
            self._official, self._instrumentation.TelemetryHandler = official, FastHandler

    def __exit__(self, *_: object) -> None:
        """Put the official one back."""
        if self._official is not None:
            self._instrumentation.TelemetryHandler, self._official = self._official, None
