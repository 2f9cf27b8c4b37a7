"""Who is connected to a port, and who has to go when too many are.

A connection is a stranger's until a good key has come over it. Strangers go first: the oldest of an address that has
too many of them, then the oldest of all. A connection that has shown a key goes only when it is idle, and its tenant
has more of them than any other.
"""

from collections import Counter
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

from farebox_collector.model.credentials import Caller

CONNECTION = "farebox.connection"
"""Where a request's scope has its `Connection`."""


class Connection:
    """One connection to a port."""

    def __init__(self, peer: str, end: Callable[[], None]) -> None:
        """`peer` is the address that it comes from; `end` closes it at once."""
        self.peer = peer
        self.end = end
        self.note_key: Callable[[int], None] = lambda _tenant_id: None
        """Tells that a good key of a tenant came over it."""
        self.busy = False
        """Whether a request is being answered."""
        self.tenant_id = 0
        """The tenant whose key came over it; 0 for a stranger."""


def note_key(scope: MutableMapping[str, Any], caller: Caller) -> None:
    """The request with this scope came with a good key."""
    connection: Connection | None = scope.get(CONNECTION)
    if connection is not None and not connection.tenant_id:
        connection.note_key(caller.tenant_id)


class Connections:
    """The connections of one port. One event loop's; not thread-safe."""

    def __init__(self, limit: int, strangers_of_peer: int) -> None:
        """At most `limit` in all, and at most `strangers_of_peer` without a good key from one address."""
        self._limit = limit
        self._strangers_of_peer = strangers_of_peer
        self._strangers: dict[str, dict[Connection, None]] = {}
        self._oldest: dict[Connection, None] = {}
        self._known: dict[Connection, None] = {}
        self._of_tenant: Counter[int] = Counter()
        self.evicted = 0
        """Connections that were closed to make room."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self._oldest) + len(self._known)

    def add(self, connection: Connection) -> bool:
        """Take a new connection in, closing another where there is no room; False where it cannot be had."""
        connection.note_key = partial(self.note_key, connection)
        of_peer = self._strangers.setdefault(connection.peer, {})
        of_peer[connection] = None
        self._oldest[connection] = None
        if len(of_peer) > self._strangers_of_peer:
            self._evict(next(iter(of_peer)))
        elif len(self) > self._limit:
            self._evict(self._least_wanted(connection))
        return connection in self._oldest

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        if connection in self._oldest:
            self._forget_stranger(connection)
        elif connection in self._known:
            del self._known[connection]
            self._of_tenant[connection.tenant_id] -= 1

    def note_key(self, connection: Connection, tenant_id: int) -> None:
        """A good key of a tenant came over this connection."""
        if connection in self._oldest:
            self._forget_stranger(connection)
            connection.tenant_id = tenant_id
            self._known[connection] = None
            self._of_tenant[tenant_id] += 1

    def _least_wanted(self, new: Connection) -> Connection:
        stranger = next(iter(self._oldest))
        if stranger is not new:
            return stranger
        busiest = max(self._of_tenant, key=lambda tenant_id: self._of_tenant[tenant_id], default=0)
        idle = (one for one in self._known if one.tenant_id == busiest and not one.busy)
        return next(idle, new)

    def _evict(self, connection: Connection) -> None:
        self.evicted += 1
        self.remove(connection)
        connection.end()

    def _forget_stranger(self, connection: Connection) -> None:
        del self._oldest[connection]
        of_peer = self._strangers[connection.peer]
        del of_peer[connection]
        if not of_peer:
            del self._strangers[connection.peer]
