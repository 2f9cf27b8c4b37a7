"""Who and what a call is for: the wallet, the product event, the action and the tags, carried by contextvars.

A context is inherited by the tasks of asyncio and by ``asyncio.to_thread``; ``threads`` carries it to plain threads.
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

_ids = random.Random()  # noqa: S311, an id has to be unique, not secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


def new_action_id() -> str:
    """32 hex digits that no other action has. Asking the system for each costs up to a millisecond where it is slow."""
    return f"{_ids.getrandbits(128):032x}"


class MeteringState:
    """Whether :func:`farebox.instrument` was called, for those who tag calls without it."""

    begun = False


class Activity:
    """What has happened in one action so far."""

    __slots__ = ("calls", "ended")

    def __init__(self) -> None:
        """Nothing."""
        self.calls = 0
        """How many calls of a model have begun."""
        self.ended = 0
        """How many of them are over and on their way to the collector."""


@dataclass(frozen=True)
class Attribution:
    """What the calls that start now are tagged with.

    ``attributes`` are the span attributes, ``farebox.*``. ``action_id`` and ``event`` are None outside any
    action.
    """

    attributes: Mapping[str, str | bool]
    activity: Activity = field(default_factory=Activity, compare=False, repr=False)

    @property
    def action_id(self) -> str | None:
        """The id of this occurrence of the event."""
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
    """One entered scope. Frames link outwards, so leaving needs no token that is bound to one context."""

    attribution: Attribution
    scope: object
    outer: Frame | None
    hold: Hold | None = None


current_frame: ContextVar[Frame | None] = ContextVar("farebox_attribution", default=None)


def current() -> Attribution | None:
    """What calls that start now are tagged with; None outside every scope."""
    frame = current_frame.get()
    return frame.attribution if frame else None
