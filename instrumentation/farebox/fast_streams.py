"""Skip the OpenAI instrumentation's work on stream chunks that only bring text.

The official instrumentation inspects each chunk fully: some ten microseconds, a thousand times a stream. It needs only
the first chunk and those with a finish reason or usage, so it gets only those. With content captured every chunk
matters and nothing is replaced. A later version of the instrumentation with a different structure runs unchanged.
"""

from __future__ import annotations

import importlib
import timeit
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any, Final, cast

_PACKAGE: Final = "opentelemetry.instrumentation.genai.openai"
_NEEDED: Final = ("_process_chunk", "_finalize_success", "_finalize_failure", "_execution_context", "_bind_stream")
_TELLING_EVENTS: Final = frozenset(
    {"response.created", "response.completed", "response.incomplete", "response.failed", "error"}
)


def _chunk_has_facts(chunk: Any) -> bool:
    if chunk.usage is not None:
        return True
    choices = chunk.choices
    if len(choices) == 1:  # nearly always
        # A refusal or tool call is content, which is not captured here.
        return choices[0].finish_reason is not None
    return any(choice.finish_reason is not None for choice in choices)


def _event_has_facts(event: Any) -> bool:
    return event.type in _TELLING_EVENTS or event.type.startswith("response.output_item")


def _show_first(wrapper: Any, chunk: Any) -> None:
    arrived_at = timeit.default_timer()
    wrapper._process_chunk(chunk)
    wrapper._self_invocation._on_stream_chunk(arrived_at)


def _fast(official: Any, needed: Callable[[Any], bool]) -> Any:
    class Fast(official):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            if self._self_capture_content:
                return cast(Iterator[Any], super().__iter__())
            return self._fast_chunks()

        def _fast_chunks(self) -> Iterator[Any]:
            awaited = True
            try:
                for chunk in self._self_iterator:
                    if awaited:
                        awaited = False
                        _show_first(self, chunk)
                    elif needed(chunk):
                        self._process_chunk(chunk)
                    yield chunk
            except GeneratorExit:
                raise
            except BaseException as error:
                with self._execution_context():
                    self._finalize_failure(error)
                raise
            with self._execution_context():
                self._finalize_success()

    return _named_as(official, Fast)


def _fast_async(official: Any, needed: Callable[[Any], bool]) -> Any:
    class FastAsync(official):  # type: ignore[misc]
        def __aiter__(self) -> AsyncIterator[Any]:
            if self._self_capture_content:
                return cast(AsyncIterator[Any], super().__aiter__())
            return self._fast_chunks()

        async def _fast_chunks(self) -> AsyncIterator[Any]:
            awaited = True
            try:
                async for chunk in self._self_aiter:
                    if awaited:
                        awaited = False
                        _show_first(self, chunk)
                    elif needed(chunk):
                        self._process_chunk(chunk)
                    yield chunk
            except GeneratorExit:
                raise
            except BaseException as error:
                with self._execution_context():
                    self._finalize_failure(error)
                raise
            with self._execution_context():
                self._finalize_success()

    return _named_as(official, FastAsync)


def _named_as(official: Any, fast: Any) -> Any:
    fast.__name__, fast.__qualname__, fast.__doc__ = official.__name__, official.__qualname__, official.__doc__
    return fast


# Where the instrumentation looks up a wrapper by name when a stream begins.
_WRAPPERS: Final = (
    ("patch", "ChatStreamWrapper", _fast, _chunk_has_facts),
    ("patch", "AsyncChatStreamWrapper", _fast_async, _chunk_has_facts),
    ("patch_responses", "ResponseStreamWrapper", _fast, _event_has_facts),
    ("patch_responses", "AsyncResponseStreamWrapper", _fast_async, _event_has_facts),
)


class FastStreams:
    """Replaces the official stream classes with the fast ones, and restores them."""

    def __init__(self) -> None:
        """Replace nothing yet."""
        self._replaced: list[tuple[ModuleType, str, Any]] = []

    def install(self) -> None:
        """Replace the classes with the expected structure; leave all others."""
        for part, name, make, needed in _WRAPPERS:
            module = importlib.import_module(f"{_PACKAGE}.{part}")
            official = getattr(module, name, None)
            if official is not None and all(hasattr(official, needed) for needed in _NEEDED):
                setattr(module, name, make(official, needed))
                self._replaced.append((module, name, official))

    def remove(self) -> None:
        """Restore the official classes."""
        for module, name, official in self._replaced:
            setattr(module, name, official)
        self._replaced.clear()
