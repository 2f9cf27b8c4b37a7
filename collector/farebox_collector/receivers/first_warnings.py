"""Warn each sender once: a warning in every answer would fill the log of the application that sends."""

from collections import OrderedDict

MAX_SENDERS = 10_000
"""Most senders that are remembered. The one that was not heard for longest is forgotten, and warned again."""

Sender = tuple[int, str, str, str]
"""Tenant, key, address and signal."""


class FirstWarnings:
    """Remembers who was warned. Call it from one thread."""

    def __init__(self, senders: int = MAX_SENDERS) -> None:
        self._limit = senders
        self._warned: OrderedDict[Sender, None] = OrderedDict()

    def is_first(self, sender: Sender) -> bool:
        """Return whether to warn a sender, and remember it."""
        known = sender in self._warned
        self._warned[sender] = None
        self._warned.move_to_end(sender)
        if len(self._warned) > self._limit:
            self._warned.popitem(last=False)
        return not known
