"""Who is connected to the gRPC port: gRPC itself does not tell strangers from callers.

Every connection is a socket of this process. The doorman looks at them now and then, and shuts those down over which no
good key has come: the oldest when there are too many, or too many of one address, and each after half a minute.
"""

import os
import socket
import stat
import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

STRANGER_SECONDS = 30.0
"""How long a connection may be there without a key. A client that is closed too early connects again when it sends."""
_FULL = 0.8
"""From this share of the connections on strangers have to go."""
_DESCRIPTORS = "/dev/fd"


class _Seen(NamedTuple):
    since_s: float
    descriptor: int


class CallAdmission:
    """Watches one port. `note_key` is for the event loop, `round` for a thread."""

    def __init__(self, limit: int, strangers_of_peer: int, clock_s: Callable[[], float] = monotonic) -> None:
        """At most `limit` connections in all, and `strangers_of_peer` without a good key from one address."""
        self.port = 0
        """The port to watch; 0 for none yet."""
        self._limit = limit
        self._strangers_of_peer = strangers_of_peer
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._seen: dict[str, _Seen] = {}

    def note_key(self, peer: str) -> None:
        """A good key came from this peer, as gRPC writes it: `ipv4:127.0.0.1:50000`."""
        if peer not in self._known:
            with self._lock:
                self._known.add(peer)

    def round(self) -> int:
        """Shut down those who have to go; returns how many."""
        if not self.port:
            return 0
        now_s, found = self._clock_s(), _connected_to(self.port)
        with self._lock:
            # A client that comes again may have the same port: what is gone is forgotten.
            self._known &= found.keys()
            known = set(self._known)
        self._seen = {
            peer: self._seen[peer]
            if peer in self._seen and self._seen[peer].descriptor == descriptor
            else _Seen(now_s, descriptor)
            for peer, descriptor in found.items()
        }
        strangers = sorted((seen.since_s, peer) for peer, seen in self._seen.items() if peer not in known)
        of_peer = Counter(_address(peer) for _, peer in strangers)
        too_many = len(found) - int(self._limit * _FULL)
        shut = 0
        for since_s, peer in strangers:
            address = _address(peer)
            if too_many > 0 or of_peer[address] > self._strangers_of_peer or now_s - since_s > STRANGER_SECONDS:
                shut += _shut(self._seen[peer].descriptor, peer)
                too_many -= 1
                of_peer[address] -= 1
        return shut


def _address(peer: str) -> str:
    return peer.rpartition(":")[0]


def _connected_to(port: int) -> dict[str, int]:
    """Peer → descriptor of every connection to a port of ours."""
    found: dict[str, int] = {}
    for name in os.listdir(_DESCRIPTORS):
        peer = _peer(int(name), port)
        if peer is not None:
            found[peer] = int(name)
    return found


def _peer(descriptor: int, port: int) -> str | None:
    """Who is at the other end of a connection to a port, as gRPC writes it; None for whatever else it is."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        # A descriptor of our own: the other may be closed, and given out again, at any moment.
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.getsockname()[1] != port:
                return None
            return _name(connection)
    except OSError:
        return None


def _name(connection: socket.socket) -> str:
    host, port = connection.getpeername()[:2]
    if ":" not in host:
        return f"ipv4:{host}:{port}"
    mapped = host.removeprefix("::ffff:")
    return f"ipv4:{mapped}:{port}" if "." in mapped else f"ipv6:%5B{host}%5D:{port}"


def _shut(descriptor: int, peer: str) -> bool:
    """End a connection from below, if the descriptor is still its; gRPC finds it closed by its client."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if connection.family not in (socket.AF_INET, socket.AF_INET6) or _name(connection) != peer:
                return False
            connection.shutdown(socket.SHUT_RDWR)
            return True
    except OSError:
        return False
