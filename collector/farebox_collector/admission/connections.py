"""Limit the connections to a port, and choose which to close when there are too many.

A connection is unauthenticated until a valid key has arrived over it. Unauthenticated ones are closed first: the oldest
of an address that has too many, then the oldest of all. An authenticated connection is closed only while idle, and only
if its tenant has more of them than any other.
"""

from collections import Counter
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

from farebox_collector.model.credentials import Caller

CONNECTION = "farebox.connection"
"""Key of the `Connection` in a request's scope."""


class Connection:
    """One connection to a port."""

    def __init__(self, peer: str, end: Callable[[], None]) -> None:
        """`peer` is the client's address; `end` closes the connection at once."""
        self.peer = peer
        self.end = end
        self.note_key: Callable[[int], None] = lambda _tenant_id: None
        """Called when a valid key of a tenant arrives over the connection."""
        self.busy = False
        """Whether a request is being answered."""
        self.tenant_id = 0
        """The tenant whose key arrived over the connection; 0 while it is unauthenticated."""


def note_key(scope: MutableMapping[str, Any], caller: Caller) -> None:
    """Note that the request with this scope has a valid key."""
    connection: Connection | None = scope.get(CONNECTION)
    if connection is not None and not connection.tenant_id:
        connection.note_key(caller.tenant_id)


class Connections:
    """The connections of one port. Use on one event loop; not thread-safe."""

    def __init__(self, limit: int, unauthenticated_per_peer: int) -> None:
        """Allow `limit` in all, and `unauthenticated_per_peer` without a valid key from one address."""
        self._limit = limit
        self._unauthenticated_per_peer = unauthenticated_per_peer
        self._unauthenticated: dict[str, dict[Connection, None]] = {}
        self._oldest: dict[Connection, None] = {}
        self._known: dict[Connection, None] = {}
        self._of_tenant: Counter[int] = Counter()
        self.evicted = 0
        """Number of connections closed to make room."""

    def __len__(self) -> int:
        """Number of open connections."""
        return len(self._oldest) + len(self._known)

    def add(self, connection: Connection) -> bool:
        """Add a connection, closing another if there are too many. Return False if the new one was closed."""
        connection.note_key = partial(self.note_key, connection)
        of_peer = self._unauthenticated.setdefault(connection.peer, {})
        of_peer[connection] = None
        self._oldest[connection] = None
        if len(of_peer) > self._unauthenticated_per_peer:
            self._evict(next(iter(of_peer)))
        elif len(self) > self._limit:
            self._evict(self._least_wanted(connection))
        return connection in self._oldest

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        if connection in self._oldest:
            self._forget_unauthenticated(connection)
        elif connection in self._known:
            del self._known[connection]
            self._of_tenant[connection.tenant_id] -= 1

    def note_key(self, connection: Connection, tenant_id: int) -> None:
        """Mark a connection as authenticated by a key of a tenant."""
        if connection in self._oldest:
            self._forget_unauthenticated(connection)
            connection.tenant_id = tenant_id
            self._known[connection] = None
            self._of_tenant[tenant_id] += 1

    def _least_wanted(self, new: Connection) -> Connection:
        oldest = next(iter(self._oldest))
        if oldest is not new:
            return oldest
        busiest = max(self._of_tenant, key=lambda tenant_id: self._of_tenant[tenant_id], default=0)
        idle = (one for one in self._known if one.tenant_id == busiest and not one.busy)
        return next(idle, new)

    def _evict(self, connection: Connection) -> None:
        self.evicted += 1
        self.remove(connection)
        connection.end()

    def _forget_unauthenticated(self, connection: Connection) -> None:
        del self._oldest[connection]
        of_peer = self._unauthenticated[connection.peer]
        del of_peer[connection]
        if not of_peer:
            del self._unauthenticated[connection.peer]
