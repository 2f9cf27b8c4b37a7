"""Decide which hosts are the application's own and may receive its users' names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

BAGGAGE_HOSTS: Final = "FAREBOX_BAGGAGE_HOSTS"
KNOWN_HOSTS_MAX: Final = 512
"""Maximum cached hosts."""
_OWN_NAMES: Final = (".localhost", ".local", ".internal")


class OwnHosts:
    """Loopback and private addresses, names without a dot, ``.local``, ``.internal``, and named hosts.

    All other hosts, such as model providers' APIs, are third parties.
    """

    def __init__(self, named: Iterable[str] = ()) -> None:
        """``named``: ``api.example.com`` is that host, ``*.example.com`` its subdomains, ``*`` every host."""
        self._exact: set[str] = set()
        self._below: list[str] = []
        self._known: dict[str, bool] = {}
        for name in (entry.strip().lower() for entry in named):
            if name.startswith("*"):
                self._below.append(name[1:])
            elif name:
                self._exact.add(name)

    def includes(self, host: str) -> bool:
        """Return whether a URL's host is one of them."""
        known = self._known.get(host)
        if known is None:
            known = self._includes(host.lower().rstrip("."))
            if len(self._known) < KNOWN_HOSTS_MAX:
                self._known[host] = known
        return known

    def _includes(self, host: str) -> bool:
        if host in self._exact or any(host.endswith(end) for end in self._below):
            return True
        try:
            address = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return bool(host) and ("." not in host or host.endswith(_OWN_NAMES))
        return address.is_loopback or address.is_private


def named_hosts(named: Iterable[str], environment: str) -> list[str]:
    """Combine the hosts of an argument and a comma-separated environment variable."""
    named = [named] if isinstance(named, str) else list(named)
    return [*named, *filter(None, (part.strip() for part in environment.split(",")))]
