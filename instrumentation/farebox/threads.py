"""Carry the current action and tags to new threads and to work submitted to thread pools.

Only Farebox's tags are carried; OpenTelemetry's threading instrumentation carries its context.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import wrapt

from farebox.attribution import Frame, current_frame
from farebox.guard import guarded


class ThreadCarrier:
    """Hooks ``Thread.start`` and ``ThreadPoolExecutor.submit`` between ``install`` and ``remove``."""

    def __init__(self) -> None:
        """Hook nothing yet."""
        self._on = False
        self._hooked: list[tuple[type, str, wrapt.FunctionWrapper[..., Any]]] = []

    def install(self) -> None:
        """Install the hooks."""
        self._on = True
        for owner, name, hook in (
            (threading.Thread, "start", self._start),
            (ThreadPoolExecutor, "submit", self._submit),
        ):
            wrapper = wrapt.FunctionWrapper(owner.__dict__[name], hook)
            setattr(owner, name, wrapper)
            self._hooked.append((owner, name, wrapper))

    def remove(self) -> None:
        """Remove the hooks. A hook that other code has wrapped since stays, and does nothing."""
        self._on = False
        for owner, name, wrapper in self._hooked:
            if owner.__dict__.get(name) is wrapper:
                setattr(owner, name, wrapper.__wrapped__)
        self._hooked.clear()

    def _start(
        self, start: Callable[..., None], thread: threading.Thread, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        with guarded("carrying the tags to a thread"):
            frame = current_frame.get()
            if self._on and frame is not None:
                run = thread.run

                def run_in_frame() -> None:
                    # A thread keeps its attributes permanently; do not keep the frame.
                    thread.__dict__.pop("run", None)
                    _in_frame(frame, run)

                thread.run = run_in_frame  # type: ignore[method-assign]
        start(*args, **kwargs)

    def _submit(
        self, submit: Callable[..., Any], _pool: ThreadPoolExecutor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        frame = current_frame.get()
        if self._on and frame is not None and args:
            args = (functools.partial(_in_frame, frame, args[0]), *args[1:])
            # The pool may start a thread for this work, which will do other work later.
            return _in_frame(None, submit, *args, **kwargs)
        return submit(*args, **kwargs)


def _in_frame(frame: Frame | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    token = current_frame.set(frame)
    try:
        return function(*args, **kwargs)
    finally:
        current_frame.reset(token)
