"""The attribution of a call: wallet, product event, action and tags, carried by contextvars.

asyncio tasks and ``asyncio.to_thread`` inherit the context; ``threads`` carries it to plain threads.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from farebox import span_attributes
from farebox.holds import Hold

_ids = random.Random()  # noqa: S311, an id must be unique, not secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


def new_action_id() -> str:
    """Return 32 unique hex digits. Not from the system's source, which may take up to a millisecond per id."""
    return f"{_ids.getrandbits(128):032x}"


class MeteringState:
    """Whether :func:`farebox.instrument` was called, to warn about tags without it."""

    begun = False


class Activity:
    """The calls of an action so far."""

    __slots__ = ("calls", "ended")

    def __init__(self) -> None:
        """Nothing."""
        self.calls = 0
        """Number of started model calls."""
        self.ended = 0
        """Number of ended calls that are queued for the collector."""


@dataclass(frozen=True)
class Attribution:
    """The tags of calls that start now.

    ``attributes`` are the span attributes, ``farebox.*``. ``action_id`` and ``event`` are None outside an action.
    """

    attributes: Mapping[str, str | bool]
    activity: Activity = field(default_factory=Activity, compare=False, repr=False)

    @property
    def action_id(self) -> str | None:
        """The id of the current action."""
        return self._text(span_attributes.ACTION_ID)

    @property
    def event(self) -> str | None:
        """The product action, such as ``chat.reply``."""
        return self._text(span_attributes.EVENT)

    @property
    def wallet(self) -> str | None:
        """What pays."""
        return self._text(span_attributes.WALLET)

    def _text(self, key: str) -> str | None:
        value = self.attributes.get(key)
        return value if isinstance(value, str) else None


class Frame(NamedTuple):
    """An entered scope. Frames link outwards, so leaving needs no context-bound token."""

    attribution: Attribution
    scope: object
    outer: Frame | None
    hold: Hold | None = None


current_frame: ContextVar[Frame | None] = ContextVar("farebox_attribution", default=None)


def current() -> Attribution | None:
    """Return the tags of calls that start now; None outside every scope."""
    frame = current_frame.get()
    return frame.attribution if frame else None
