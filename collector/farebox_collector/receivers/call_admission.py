"""Close gRPC connections without a valid key; gRPC cannot distinguish them from those of callers.

Every connection is a socket of this process. A periodic job lists them and shuts down those that have sent no valid
key: the oldest if there are too many in all or from one address, and each after 30 seconds.
"""

import os
import socket
import stat
import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

UNAUTHENTICATED_SECONDS = 30.0
"""Longest life of a connection without a key. A client that is cut off too early reconnects when it sends."""
_FULL = 0.8
"""Above this share of the limit the oldest connections without a key are closed."""
_DESCRIPTORS = "/dev/fd"


class _Seen(NamedTuple):
    since_s: float
    descriptor: int


class CallAdmission:
    """Watch the connections of one port. Call `note_key` on the event loop, `round` in a thread."""

    def __init__(self, limit: int, unauthenticated_per_peer: int, clock_s: Callable[[], float] = monotonic) -> None:
        """Allow `limit` connections in all, and `unauthenticated_per_peer` without a valid key from one address."""
        self.port = 0
        """The port to watch; 0 until it is bound."""
        self._limit = limit
        self._unauthenticated_per_peer = unauthenticated_per_peer
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._seen: dict[str, _Seen] = {}

    def note_key(self, peer: str) -> None:
        """Note that a valid key came from this peer, in gRPC's notation: `ipv4:127.0.0.1:50000`."""
        if peer not in self._known:
            with self._lock:
                self._known.add(peer)

    def round(self) -> int:
        """Shut down the connections that are over a limit. Return how many."""
        if not self.port:
            return 0
        now_s, found = self._clock_s(), _connected_to(self.port)
        with self._lock:
            # A new connection may reuse the port of a closed one: forget closed ones.
            self._known &= found.keys()
            known = set(self._known)
        self._seen = {
            peer: self._seen[peer]
            if peer in self._seen and self._seen[peer].descriptor == descriptor
            else _Seen(now_s, descriptor)
            for peer, descriptor in found.items()
        }
        unauthenticated = sorted((seen.since_s, peer) for peer, seen in self._seen.items() if peer not in known)
        of_peer = Counter(_address(peer) for _, peer in unauthenticated)
        too_many = len(found) - int(self._limit * _FULL)
        shut = 0
        for since_s, peer in unauthenticated:
            address = _address(peer)
            if (
                too_many > 0
                or of_peer[address] > self._unauthenticated_per_peer
                or now_s - since_s > UNAUTHENTICATED_SECONDS
            ):
                shut += _shut(self._seen[peer].descriptor, peer)
                too_many -= 1
                of_peer[address] -= 1
        return shut


def _address(peer: str) -> str:
    return peer.rpartition(":")[0]


def _connected_to(port: int) -> dict[str, int]:
    """Map the peer of every connection to a local port to its descriptor."""
    found: dict[str, int] = {}
    for name in os.listdir(_DESCRIPTORS):
        peer = _peer(int(name), port)
        if peer is not None:
            found[peer] = int(name)
    return found


def _peer(descriptor: int, port: int) -> str | None:
    """The peer of a connection to a local port, in gRPC's notation; None if the descriptor is anything else."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        # Duplicate the descriptor: the original may be closed and reused at any moment.
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
    """Shut down a connection's socket if the descriptor still belongs to it. To gRPC its client has closed it."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if connection.family not in (socket.AF_INET, socket.AF_INET6) or _name(connection) != peer:
                return False
            connection.shutdown(socket.SHUT_RDWR)
            return True
    except OSError:
        return False
