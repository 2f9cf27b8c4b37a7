"""Who acts: the name under which the audit log keeps a change, and the address that it came from.

The doors of the house set it: the API for a request, the command line for a command. What a collector does by itself is
done by `system`.
"""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from farebox_collector.model.credentials import Caller

MAX_ADDRESS = 64
"""Longest address that is kept, in characters."""


class Actor(NamedTuple):
    """Who does something."""

    name: str
    """`person:<number>`, `key:<id>`, `link:<its id>`, `cli:<OS user>`, `local` or `system`."""
    address: str = ""
    """The address of the peer; empty for what came from no network."""
    person: int = 0
    """The number of the person behind it; 0 where none is known."""
    label: str = ""
    """The name that people read, such as a login; empty for `name`."""

    @property
    def author(self) -> str:
        """What rules, prices and other versions keep as their author."""
        return self.label or self.name


SYSTEM = Actor("system")
LOCAL = "local"
"""Every caller on loopback, as long as there is no key."""


def actor_of(who: Caller, address: str) -> Actor:
    """A caller as the audit log names it."""
    if who.session_id:
        return Actor(f"person:{who.person}", address, who.person, who.login)
    if who.key_id:
        return Actor(f"key:{who.key_id}", address, who.person)
    return Actor(f"link:{who.link_id}" if who.wallet else LOCAL, address)


_acting: ContextVar[Actor] = ContextVar("acting", default=SYSTEM)


def acting() -> Actor:
    """Who acts now."""
    return _acting.get()


def set_actor(actor: Actor) -> None:
    """Let everything that follows in this context be done by an actor."""
    _acting.set(actor)


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Let a block be done by an actor."""
    before = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(before)


def command_line() -> Actor:
    """The actor of a command: the user of the operating system, also behind sudo."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Actor(f"cli:{user[:MAX_ADDRESS]}")
