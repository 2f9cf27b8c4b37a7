"""Takes the OpenAI instrumentation's work off the chunks of a stream that only bring text.

The official instrumentation looks at each chunk as it looks at the first: some ten microseconds, a thousand times a
stream. Of all chunks the first, those with a finish reason and those with usage tell it anything, so it is shown
those. With content captured every chunk matters, and all is left as it is; so is all that these classes do not know:
where a later version of the instrumentation is built otherwise, it runs as its makers wrote it.
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


def _chunk_tells(chunk: Any) -> bool:
    if chunk.usage is not None:
        return True
    choices = chunk.choices
    if len(choices) == 1:  # nearly always
        # A refusal or the call of a tool is content, which is not captured here.
        return choices[0].finish_reason is not None
    return any(choice.finish_reason is not None for choice in choices)


def _event_tells(event: Any) -> bool:
    return event.type in _TELLING_EVENTS or event.type.startswith("response.output_item")


def _show_first(wrapper: Any, chunk: Any) -> None:
    arrived_at = timeit.default_timer()
    wrapper._process_chunk(chunk)
    wrapper._self_invocation._on_stream_chunk(arrived_at)


def _lean(official: Any, tells: Callable[[Any], bool]) -> Any:
    class Lean(official):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            if self._self_capture_content:
                return cast(Iterator[Any], super().__iter__())
            return self._lean_chunks()

        def _lean_chunks(self) -> Iterator[Any]:
            awaited = True
            try:
                for chunk in self._self_iterator:
                    if awaited:
                        awaited = False
                        _show_first(self, chunk)
                    elif tells(chunk):
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

    return _named_as(official, Lean)


def _lean_async(official: Any, tells: Callable[[Any], bool]) -> Any:
    class LeanAsync(official):  # type: ignore[misc]
        def __aiter__(self) -> AsyncIterator[Any]:
            if self._self_capture_content:
                return cast(AsyncIterator[Any], super().__aiter__())
            return self._lean_chunks()

        async def _lean_chunks(self) -> AsyncIterator[Any]:
            awaited = True
            try:
                async for chunk in self._self_aiter:
                    if awaited:
                        awaited = False
                        _show_first(self, chunk)
                    elif tells(chunk):
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

    return _named_as(official, LeanAsync)


def _named_as(official: Any, lean: Any) -> Any:
    lean.__name__, lean.__qualname__, lean.__doc__ = official.__name__, official.__qualname__, official.__doc__
    return lean


# Where the instrumentation looks a wrapper up by its name when a stream begins.
_WRAPPERS: Final = (
    ("patch", "ChatStreamWrapper", _lean, _chunk_tells),
    ("patch", "AsyncChatStreamWrapper", _lean_async, _chunk_tells),
    ("patch_responses", "ResponseStreamWrapper", _lean, _event_tells),
    ("patch_responses", "AsyncResponseStreamWrapper", _lean_async, _event_tells),
)


class LeanStreams:
    """Puts the lean classes in place of the official ones, and back."""

    def __init__(self) -> None:
        """Change nothing yet."""
        self._replaced: list[tuple[ModuleType, str, Any]] = []

    def install(self) -> None:
        """Replace the classes that are built as expected; leave the others."""
        for part, name, make, tells in _WRAPPERS:
            module = importlib.import_module(f"{_PACKAGE}.{part}")
            official = getattr(module, name, None)
            if official is not None and all(hasattr(official, needed) for needed in _NEEDED):
                setattr(module, name, make(official, tells))
                self._replaced.append((module, name, official))

    def remove(self) -> None:
        """Put the official classes back."""
        for module, name, official in self._replaced:
            setattr(module, name, official)
        self._replaced.clear()
