"""Who and what a call is for: the wallet, the product event, the action and the tags, carried by contextvars.

A context is inherited by the tasks of asyncio and by ``asyncio.to_thread``. A plain thread starts without
one: start it with ``contextvars.copy_context().run``.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

from farebox import span_attributes
from farebox.guard import guarded

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Attribution:
    """What the calls that start now are tagged with.

    ``attributes`` are the span attributes, ``farebox.*``. ``action_id`` and ``event`` are None outside any
    action.
    """

    attributes: Mapping[str, str]

    @property
    def action_id(self) -> str | None:
        """The id of this occurrence of the event."""
        return self.attributes.get(span_attributes.ACTION_ID)

    @property
    def event(self) -> str | None:
        """The product action, such as ``chat.reply``."""
        return self.attributes.get(span_attributes.EVENT)

    @property
    def wallet(self) -> str | None:
        """What pays."""
        return self.attributes.get(span_attributes.WALLET)


class _Frame(NamedTuple):
    """One entered scope. Frames link outwards, so leaving needs no token that is bound to one context."""

    attribution: Attribution
    scope: Scope
    outer: _Frame | None


_current: ContextVar[_Frame | None] = ContextVar("farebox_attribution", default=None)


def current() -> Attribution | None:
    """What calls that start now are tagged with; None outside every scope."""
    frame = _current.get()
    return frame.attribution if frame else None


class Scope:
    """What :func:`action` and :func:`tags` return: a context manager, with or without async, and a decorator.

    One scope may be entered any number of times, also at once by several threads or tasks; as an action, each
    entry is an occurrence of its own.
    """

    def __init__(self, labels: Mapping[str, object | None]) -> None:
        """Take the span attributes to set; None and empty values are left out, others become text."""
        self._labels: dict[str, str] = {}
        with guarded("reading the labels of an action"):
            for key, value in labels.items():
                # A wallet is often the key of a row: numbers and UUIDs become text. Empty is as good as none.
                if value is not None and (text := str(value)):
                    self._labels[key] = text

    def _frame(self) -> _Frame:
        outer = _current.get()
        inherited = outer.attribution.attributes if outer else {}
        attributes = {**inherited, **self._labels}
        if span_attributes.EVENT in self._labels:
            # The same event for the same wallet, entered again further in, is still the same occurrence.
            again = span_attributes.ACTION_ID in inherited and all(
                inherited.get(key) == attributes.get(key) for key in (span_attributes.EVENT, span_attributes.WALLET)
            )
            if not again:
                attributes[span_attributes.ACTION_ID] = uuid.uuid4().hex
        return _Frame(Attribution(MappingProxyType(attributes)), self, outer)

    def __enter__(self) -> Attribution:
        """Tag the calls that start from now on in this context."""
        frame = self._frame()
        _current.set(frame)
        return frame.attribution

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Go back to what was before; in a context that never entered (a generator moved), do nothing."""
        frame = _current.get()
        while frame is not None and frame.scope is not self:
            frame = frame.outer
        if frame is not None:
            _current.set(frame.outer)

    async def __aenter__(self) -> Attribution:
        """As without async."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As without async."""
        self.__exit__(kind, error, traceback)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, a coroutine function, or a generator function of either kind."""
        if inspect.isasyncgenfunction(function):
            return cast(Callable[P, R], self._around_async_generator(function))
        if inspect.isgeneratorfunction(function):
            return cast(Callable[P, R], self._around_generator(function))
        if inspect.iscoroutinefunction(function):
            return cast(Callable[P, R], self._around_coroutine(function))

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return call

    def _around_coroutine(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return await function(*args, **kwargs)

        return call

    # A generator runs in the context of whoever advances it, and a web framework may advance each step in
    # another one. So the scope is put in place for the length of a step, and what runs between the steps
    # never sees it.

    def _around_generator(self, function: Callable[P, Generator[Any, Any, R]]) -> Callable[P, Generator[Any, Any, R]]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
            steps = _Steps(self._frame())
            with steps.one():
                generator = function(*args, **kwargs)
            advance: Callable[[], Any] = functools.partial(next, generator)
            while True:
                try:
                    with steps.one():
                        value = advance()
                except StopIteration as stop:
                    return cast(R, stop.value)
                try:
                    advance = functools.partial(generator.send, (yield value))
                except GeneratorExit:
                    with steps.one():
                        generator.close()
                    raise
                except BaseException as error:
                    advance = functools.partial(generator.throw, error)

        return call

    def _around_async_generator(
        self, function: Callable[P, AsyncGenerator[Any, Any]]
    ) -> Callable[P, AsyncGenerator[Any, Any]]:
        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
            steps = _Steps(self._frame())
            with steps.one():
                generator = function(*args, **kwargs)
            advance: Callable[[], Awaitable[Any]] = generator.__anext__
            while True:
                try:
                    with steps.one():
                        value = await advance()
                except StopAsyncIteration:
                    return
                try:
                    advance = functools.partial(generator.asend, (yield value))
                except GeneratorExit:
                    with steps.one():
                        await generator.aclose()
                    raise
                except BaseException as error:
                    advance = functools.partial(generator.athrow, error)

        return call


class _Steps:
    """Puts a generator's frame in place for one step, and keeps what the step left for the next one."""

    def __init__(self, frame: _Frame | None) -> None:
        self._frame = frame

    @contextmanager
    def one(self) -> Iterator[None]:
        outside = _current.get()
        _current.set(self._frame)
        try:
            yield
        finally:
            self._frame = _current.get()
            _current.set(outside)


def action(
    event: str,
    wallet: object | None = None,
    *,
    dept: str | None = None,
    project: str | None = None,
    task: str | None = None,
    route: str | None = None,
) -> Scope:
    """Tag the calls made inside with a product event, the wallet that pays, and tags.

        with farebox.action("chat.reply", wallet="ada", project="help") as reply:
            log.info("action %s", reply.action_id)

        @farebox.action("agent.run")
        async def run(task: str) -> str: ...

    What an inner action leaves out it inherits from the outer one. Each entry is an action with an id of
    its own, unless it stands inside an action of the same event and wallet.

    Args:
        event: the product action, as users know it: ``chat.reply``.
        wallet: what pays: a customer, a user or a team. Any value; its text is used.
        dept: the department, for reports.
        project: the project, for reports.
        task: the kind of task, for reports.
        route: the model route or variant that was chosen, for reports.
    """
    labels = {span_attributes.EVENT: event, span_attributes.WALLET: wallet}
    return Scope({**labels, **_tag_labels(dept, project, task, route)})


def tags(
    *,
    wallet: object | None = None,
    dept: str | None = None,
    project: str | None = None,
    task: str | None = None,
    route: str | None = None,
) -> Scope:
    """Tag the calls made inside, without starting an action: say, in a middleware that knows the wallet.

    Takes and inherits the same as :func:`action`.
    """
    return Scope({span_attributes.WALLET: wallet, **_tag_labels(dept, project, task, route)})


def _tag_labels(dept: str | None, project: str | None, task: str | None, route: str | None) -> dict[str, object | None]:
    return {
        span_attributes.DEPT: dept,
        span_attributes.PROJECT: project,
        span_attributes.TASK: task,
        span_attributes.ROUTE: route,
    }
