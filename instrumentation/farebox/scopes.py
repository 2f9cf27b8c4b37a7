"""``farebox.action`` and ``farebox.tags``: context managers and decorators that attribute calls."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from types import MappingProxyType, TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from farebox import span_attributes, tag_sources
from farebox.attribution import Activity, Attribution, Frame, MeteringState, current_frame, new_action_id
from farebox.guard import guarded, report_once
from farebox.holds import HoldTerms, Unreachable

P = ParamSpec("P")
R = TypeVar("R")


class Scope:
    """The result of :func:`action` and :func:`tags`: a sync and async context manager and a decorator.

    A scope may be entered any number of times, also concurrently by threads or tasks. Each entry of an action is a new
    occurrence.
    """

    def __init__(self, labels: Mapping[str, object | None], terms: HoldTerms | None = None) -> None:
        """Take the span attributes to set; None and empty values are skipped, others become text.

        With ``terms``, each occurrence starts with a hold.
        """
        self._labels: dict[str, str | bool] = {}
        self._terms = terms
        with guarded("reading the labels of an action"):
            for key, value in labels.items():
                if value is None:
                    continue
                # Wallets are often row keys: numbers and UUIDs become text. Empty means none.
                if key == span_attributes.CACHE_HIT and isinstance(value, bool):
                    self._labels[key] = value
                elif text := str(value):
                    self._labels[key] = text

    def _frame(self) -> Frame:
        if not MeteringState.begun:
            report_once(
                "not instrumented",
                "an action or tags without farebox.instrument(): no call is metered. Call farebox.instrument() once, "
                "where the process starts",
            )
        outer = current_frame.get()
        inherited = outer.attribution.attributes if outer else {}
        activity = outer.attribution.activity if outer else Activity()
        attributes = {**inherited, **self._labels}
        if span_attributes.EVENT in self._labels and not self._goes_on(inherited, attributes):
            attributes[span_attributes.ACTION_ID] = new_action_id()
            activity = Activity()
        return Frame(Attribution(MappingProxyType(attributes), activity), self, outer)

    @staticmethod
    def _goes_on(inherited: Mapping[str, str | bool], attributes: Mapping[str, str | bool]) -> bool:
        """Return whether this is a nested entry of the same event and wallet, which is the same occurrence."""
        return span_attributes.ACTION_ID in inherited and all(
            inherited.get(key) == attributes.get(key) for key in (span_attributes.EVENT, span_attributes.WALLET)
        )

    def _with_hold(self, frame: Frame) -> Frame:
        """Hold credits for a new occurrence. Raises InsufficientCredits, and HoldUnavailable by the terms."""
        begun = frame.outer is None or frame.outer.attribution.action_id != frame.attribution.action_id
        if self._terms is None or not begun:
            return frame
        return frame._replace(hold=self._terms.take(frame.attribution.attributes))

    async def _with_hold_async(self, frame: Frame) -> Frame:
        return frame if self._terms is None else await asyncio.to_thread(self._with_hold, frame)

    def __enter__(self) -> Attribution:
        """Tag calls that start from now on in this context."""
        frame = self._with_hold(self._frame())
        current_frame.set(frame)
        return frame.attribution

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the previous tags; in a context that never entered (a moved generator), do nothing."""
        frame = current_frame.get()
        while frame is not None and frame.scope is not self:
            frame = frame.outer
        if frame is not None:
            current_frame.set(frame.outer)
            _release_hold(frame)

    async def __aenter__(self) -> Attribution:
        """As ``__enter__``, requesting a hold without blocking the event loop."""
        frame = await self._with_hold_async(self._frame())
        current_frame.set(frame)
        return frame.attribution

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As ``__exit__``."""
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
            async with self:
                return await function(*args, **kwargs)

        return call

    # A generator runs in the context of its caller, and a web framework may advance each step in another context. So
    # the scope is entered for each step only, and code between the steps never sees it.

    def _around_generator(self, function: Callable[P, Generator[Any, Any, R]]) -> Callable[P, Generator[Any, Any, R]]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
            frame = self._with_hold(self._frame())
            try:
                return (yield from steps_of(_Steps(frame), args, kwargs))
            finally:
                _release_hold(frame)

        def steps_of(steps: _Steps, args: Any, kwargs: Any) -> Generator[Any, Any, R]:
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
            frame = await self._with_hold_async(self._frame())
            steps = _Steps(frame)
            with steps.one():
                generator = function(*args, **kwargs)
            advance: Callable[[], Awaitable[Any]] = generator.__anext__
            try:
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
            finally:
                _release_hold(frame)

        return call


def _release_hold(frame: Frame) -> None:
    """Release what an action has not used of its hold."""
    if frame.hold is not None:
        with guarded("voiding a hold"):
            activity = frame.attribution.activity
            frame.hold.end(calls=activity.calls, ended=activity.ended)


class _Steps:
    """Enters a generator's frame for one step, and keeps the frame that the step leaves for the next one."""

    def __init__(self, frame: Frame | None) -> None:
        self._frame = frame

    @contextmanager
    def one(self) -> Iterator[None]:
        outside = current_frame.get()
        current_frame.set(self._frame)
        try:
            yield
        finally:
            self._frame = current_frame.get()
            current_frame.set(outside)


def action(
    event: str,
    wallet: object | None = None,
    *,
    dept: str | None = None,
    project: str | None = None,
    task: str | None = None,
    route: str | None = None,
    cache_hit: bool | None = None,
    hold: Decimal | int | str | None = None,
    hold_expires_s: int = 600,
    hold_unreachable: Unreachable = "allow",
    hold_key_refused: Unreachable = "refuse",
) -> Scope:
    """Tag the calls made inside with a product event, the wallet that pays, and tags.

        with farebox.action("chat.reply", wallet="ada", project="help") as reply:
            log.info("action %s", reply.action_id)

        @farebox.action("agent.run", hold=5)
        async def run(task: str) -> str: ...

    An inner action inherits omitted values from the outer one. Each entry is an action with its own id, unless it is
    inside an action of the same event and wallet.

    Args:
        event: the product action, as users know it, such as ``chat.reply``.
        wallet: the payer: a customer, a user or a team. Any value; its text is used.
        dept: the department, for reports.
        project: the project, for reports.
        task: the kind of task, for reports.
        route: the chosen model route or variant, for reports.
        cache_hit: whether the application's own cache contributed to the answer, for reports.
        hold: credits to reserve before anything is spent; a whole number, a Decimal or its text. The collector
            settles them when it charges the calls; the rest is released when the action ends.
        hold_expires_s: seconds until the collector releases the rest.
        hold_unreachable: if the collector is unreachable, ``allow`` continues without a hold and logs it, ``refuse``
            raises.
        hold_key_refused: if the collector refuses the key (401, 403), ``refuse`` raises, ``allow`` continues without
            a hold and logs it.

    Raises:
        InsufficientCredits: the wallet has too little for the hold. Raised on entering.
        HoldUnavailable: the collector was unreachable, with ``hold_unreachable="refuse"``, or refused the key.
            Raised on entering.
        ValueError: ``hold_unreachable`` or ``hold_key_refused`` is neither ``allow`` nor ``refuse``.
    """
    labels = {span_attributes.EVENT: event, span_attributes.WALLET: wallet}
    terms = None if hold is None else HoldTerms(str(hold), hold_expires_s, hold_unreachable, hold_key_refused)
    return Scope({**labels, **_tag_labels(dept, project, task, route, cache_hit)}, terms)


def tags(
    *,
    wallet: object | None = None,
    dept: str | None = None,
    project: str | None = None,
    task: str | None = None,
    route: str | None = None,
    cache_hit: bool | None = None,
) -> Scope:
    """Tag the calls made inside without starting an action, for example in a middleware that knows the wallet.

    Arguments and inheritance are those of :func:`action`.
    """
    return Scope({span_attributes.WALLET: wallet, **_tag_labels(dept, project, task, route, cache_hit)})


def incoming(headers: Mapping[str, str], *, trusted: bool = False) -> Scope:
    """Tag the calls made inside with the ``baggage`` header of a request or message.

    For servers and workers without an OpenTelemetry instrumentation, which would read the header itself.

    Args:
        headers: the request's headers, named in any case.
        trusted: also accept wallet, event and action. Use it only if no other than the application's own services
            can send the header.
    """
    labels: dict[str, str] = {}
    with guarded("reading a baggage header"):
        labels = tag_sources.tags_of_headers(headers, trusted=trusted)
    return _Carried(labels)


class _Carried(Scope):
    """A scope with labels from another service: it continues the incoming action."""

    def _frame(self) -> Frame:
        outer = current_frame.get()
        inherited = outer.attribution.attributes if outer else {}
        activity = outer.attribution.activity if outer else Activity()
        return Frame(Attribution(MappingProxyType({**inherited, **self._labels}), activity), self, outer)


def _tag_labels(
    dept: str | None, project: str | None, task: str | None, route: str | None, cache_hit: bool | None
) -> dict[str, object | None]:
    return {
        span_attributes.DEPT: dept,
        span_attributes.PROJECT: project,
        span_attributes.TASK: task,
        span_attributes.ROUTE: route,
        span_attributes.CACHE_HIT: cache_hit,
    }
