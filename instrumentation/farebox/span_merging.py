"""Merge the spans of the same model call into one.

The OpenAI client may be instrumented by OpenTelemetry and by OpenLLMetry or OpenInference at once, and the Anthropic
and Mistral clients open spans of their own: then one call ends two spans or three, one inside the other, with the same
counts. All of them stay in the application's tracer provider, for its other exporters. What Farebox sends is one.

Spans of calls that are open inside each other are one call, unless one of them holds two that are not inside each
other: then it is a summary of two calls, which are sent, and it is not.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

from farebox import span_attributes
from farebox.exposures import Exposure

# Preferred accounts of a call, best first: Farebox's and OpenTelemetry's, the clients' own, then all other ones.
_OFFICIAL_SCOPES: Final = (
    "opentelemetry.instrumentation.genai.",
    "opentelemetry.instrumentation.google_genai",
    "farebox",
)
_CLIENT_SCOPES: Final = ("com.anthropic.", "mistralai")
# Attributes copied from another account; not counts, since vocabularies count differently.
_SHARED: Final = frozenset(
    {
        span_attributes.FINISH_REASONS,
        span_attributes.RESPONSE_ID,
        span_attributes.RESPONSE_MODEL,
        span_attributes.TIME_TO_FIRST_CHUNK,
        span_attributes.REQUEST_STREAM,
        span_attributes.ANTHROPIC_CACHE_WRITE_1H,
        span_attributes.ANTHROPIC_CACHE_WRITE_5M,
        span_attributes.ANTHROPIC_SERVICE_TIER,
        span_attributes.OPENAI_SERVICE_TIER,
        span_attributes.USAGE_REASONING,
    }
)
_USAGE_KEYS: Final = (
    span_attributes.USAGE_INPUT,
    span_attributes.USAGE_OUTPUT,
    "gen_ai.usage.prompt_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.prompt",
    "llm.token_count.completion",
)

ANSWERS_MAX: Final = 1_000
"""Maximum kept calls by response id."""

_lock = threading.Lock()

Ended = tuple[ReadableSpan, Mapping[str, Any]]
"""An ended span, and its attributes including those kept separately."""


class OpenCall:
    """An open span of a model call, and the enclosing one."""

    __slots__ = ("account", "around", "exposure", "family", "inside", "over")

    def __init__(self, around: OpenCall | None, family: str) -> None:
        """``family`` is the kind of call; a nested call of another kind is a separate call."""
        self.family: str = family
        self.around: OpenCall | None = around if around is not None and around.family == family else None
        self.account: Account | None = None
        self.inside: list[Account] = []
        self.exposure: Exposure | None = None
        """What the provider may bill for the latest attempt, if its end was not observed."""
        self.over = False
        """Whether the span has ended and the account has the exposure."""

    def ended(self, ended: Ended) -> Account | None:
        """Record the ended span. Returns an account to send, unless this one is part of another."""
        with _lock:
            if len(self.inside) > 1:
                return None  # a summary
            if self.inside and self.inside[0].add(ended):
                self.account = self.inside[0]
                return None
            around = self.around
            while around is not None:
                if around.account is not None and around.account.add(ended):
                    self.account = around.account
                    return None
                around = around.around
            # Two instrumentations side by side within a third; two calls would be of the same one.
            beside = (
                next((other for other in self.around.inside if other.covers(ended[0])), None) if self.around else None
            )
            if beside is not None and beside.add(ended):
                self.account = beside
                return None
            self.account = account = Account(ended)
            around = self.around
            while around is not None:
                around.inside.append(account)
                around = around.around
            return account


class Account:
    """The ended spans of one call until they are merged."""

    __slots__ = ("_sent", "_spans", "exposure")

    def __init__(self, ended: Ended) -> None:
        """Start with the first ended span."""
        self._spans = [ended]
        self._sent: bool | None = None
        self.exposure: Mapping[str, Any] = {}
        """Attributes of the exposure, if the call's end was not observed."""

    def expose(self, exposure: Mapping[str, Any]) -> bool:
        """Record an exposure. Returns False if the account was already sent."""
        with _lock:
            if self._sent is not None:
                return False
            self.exposure = exposure
            return True

    def add(self, ended: Ended) -> bool:
        """Add a span. Returns False if an account without usage was already sent and this span may have the usage."""
        if self._sent is None:
            self._spans.append(ended)
            return True
        return self._sent

    def covers(self, span: ReadableSpan) -> bool:
        """Return whether another instrumentation's concurrent span is of this call, by its response id."""
        scope = _scope(span)
        return all(
            _scope(other) != scope
            and (other.start_time or 0) <= (span.end_time or 0)
            and (span.start_time or 0) <= (other.end_time or 0)
            for other, _ in self._spans
        )

    def best(self) -> tuple[ReadableSpan, Mapping[str, Any], dict[str, Any]]:
        """Return the best account of the call, its attributes, and attributes that only other accounts have.

        Closes the account to further spans.
        """
        with _lock:
            (first, present), *others = sorted(self._spans, key=_rank)
            self._sent = _has_usage(present)
        lacking: dict[str, Any] = {}
        for _, attributes in others:
            for key, value in attributes.items():
                if (key in _SHARED or key.startswith("farebox.")) and key not in present:
                    lacking.setdefault(key, value)
        return first, present, lacking


class Answers:
    """The latest calls by response id: not all instrumentations open their span before the call."""

    def __init__(self) -> None:
        """None yet."""
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def part_of_another(self, ended: Ended, response_id: object, account: Account) -> bool:
        """Return whether the span was added to a known call's account; otherwise remember its own.

        Some servers always answer with the same id, so the id alone is not enough.
        """
        if not isinstance(response_id, str) or not response_id:
            return False
        with _lock:
            known = self._accounts.get(response_id)
            if known is not None and known is not account and known.covers(ended[0]) and known.add(ended):
                return True
            self._accounts[response_id] = account
            if len(self._accounts) > ANSWERS_MAX:
                self._accounts.popitem(last=False)
        return False


def family_of(attributes: Mapping[str, Any] | None) -> str | None:
    """Return the kind of call of a span with these attributes; None if it is not a call."""
    # An attempt sent as an exposure is not part of another call's account.
    if not span_attributes.is_inference(attributes) or span_attributes.EXPOSURE in (attributes or {}):
        return None
    known = attributes or {}
    embeds = (
        known.get(span_attributes.OPERATION_NAME) == "embeddings"
        or known.get("openinference.span.kind") == "EMBEDDING"
        or known.get("llm.request.type") == "embedding"
    )
    return "embeddings" if embeds else "text"


def is_first_hand(span: Any) -> bool:
    """Return whether a span is Farebox's, OpenTelemetry's or the client's own."""
    scope = getattr(span, "instrumentation_scope", None)
    return scope is not None and scope.name.startswith((*_OFFICIAL_SCOPES, *_CLIENT_SCOPES))


def _rank(ended: Ended) -> tuple[bool, int, int]:
    span, attributes = ended
    scope = _scope(span)
    if scope.startswith(_OFFICIAL_SCOPES):
        standing = 0
    elif scope.startswith(_CLIENT_SCOPES):
        standing = 1
    else:
        standing = 2
    return not _has_usage(attributes), standing, span.start_time or 0


def _scope(span: ReadableSpan) -> str:
    return span.instrumentation_scope.name if span.instrumentation_scope else ""


def _has_usage(attributes: Mapping[str, Any]) -> bool:
    return any(key in attributes for key in _USAGE_KEYS) or any(
        key.startswith(span_attributes.UNITS) for key in attributes
    )
