"""The actor of a change: its name and address for the audit log.

The API sets it for a request, the command line for a command. The actor of the collector's own work is `system`.
"""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from farebox_collector.model.credentials import Caller

MAX_ADDRESS = 64
"""Longest stored address, in characters."""


class Actor(NamedTuple):
    """The actor of a change."""

    name: str
    """`person:<number>`, `key:<id>`, `link:<its id>`, `cli:<OS user>`, `local` or `system`."""
    address: str = ""
    """The address of the peer; empty if the change came from no network."""
    person: int = 0
    """The number of the person behind it; 0 if unknown."""
    label: str = ""
    """Display name, such as a login; empty for `name`."""

    @property
    def author(self) -> str:
        """The author that rules, prices and other versions store."""
        return self.label or self.name


SYSTEM = Actor("system")
LOCAL = "local"
"""Any caller on loopback while no key exists."""


def actor_of(who: Caller, address: str) -> Actor:
    """Return the actor of a caller."""
    if who.session_id:
        return Actor(f"person:{who.person}", address, who.person, who.login)
    if who.key_id:
        return Actor(f"key:{who.key_id}", address, who.person)
    return Actor(f"link:{who.link_id}" if who.wallet else LOCAL, address)


_acting: ContextVar[Actor] = ContextVar("acting", default=SYSTEM)


def acting() -> Actor:
    """Return the current actor."""
    return _acting.get()


def set_actor(actor: Actor) -> None:
    """Set the actor for the rest of this context."""
    _acting.set(actor)


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Set the actor for a block."""
    before = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(before)


def command_line() -> Actor:
    """Return the actor of a command: the user of the operating system, behind sudo too."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Actor(f"cli:{user[:MAX_ADDRESS]}")
