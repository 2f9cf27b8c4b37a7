"""Restrict webhooks to public addresses over TLS, and to hosts that the operator names in the settings.

A URL comes from a tenant. Unrestricted, it could make a collector call databases, metadata services and consoles on the
operator's network. So this module resolves the name, checks every address, and the connection goes to a checked
address.
"""

import asyncio
import ipaddress
import socket
from typing import NamedTuple

import httpx2

MAX_URL = 2_000
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.175.48.0/24",  # AS112
            "2001::/23",  # protocols of the IETF, Teredo among them
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which wraps any IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
"""Ranges that IANA reserves within the reachable addresses."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"https": 443, "http": 80}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadDestination(Exception):
    """A webhook must not call this URL; the message says why."""


class Destination(NamedTuple):
    """A URL and its resolved address."""

    url: httpx2.URL
    address: str

    @property
    def name(self) -> str:
        """The host name as in certificates: in ASCII, also for international names."""
        return _name(self.url)

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        return self.url.netloc.decode("ascii")

    @property
    def direct_url(self) -> httpx2.URL:
        """The URL with the address instead of the name."""
        return self.url.copy_with(host=self.address)


def read_url(text: str, private_hosts: tuple[str, ...]) -> httpx2.URL:
    """Parse and check a URL for a webhook. Raises BadDestination."""
    if len(text) > MAX_URL or not text.isascii() or not text.isprintable():
        raise BadDestination(f"use a URL of at most {MAX_URL} printable ASCII characters")
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise BadDestination(f"not a URL: {error}") from None
    if url.scheme not in _PORTS or not url.host:
        raise BadDestination("use an https URL")
    if url.userinfo or url.fragment:
        raise BadDestination("remove the user and the fragment from the URL")
    if _name(url) not in private_hosts:
        if url.scheme != "https":
            raise BadDestination("use an https URL; http is only for hosts in FAREBOX_WEBHOOK_PRIVATE_HOSTS")
        _check_if_address(_name(url))
    return url


async def resolve(text: str, private_hosts: tuple[str, ...]) -> Destination:
    """Resolve the address to call. Raises BadDestination if any address of the name is not public."""
    url = read_url(text, private_hosts)
    port = url.port or _PORTS[url.scheme]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(_name(url), port, type=socket.SOCK_STREAM)
    except OSError:
        raise BadDestination("the host name cannot be resolved") from None
    addresses = [str(entry[4][0]) for entry in found]
    if _name(url) not in private_hosts:
        for address in addresses:
            if not is_public(ipaddress.ip_address(address.partition("%")[0])):
                raise BadDestination("the host name resolves to an address that is not public")
    return Destination(url, addresses[0])


def is_public(address: Address) -> bool:
    """Whether an address is public: global unicast, and in no reserved range.

    An IPv6 address may embed an IPv4 address (mapped or NAT64), which is then checked.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        return address in _GLOBAL_UNICAST and address.is_global and not _is_special(address)
    return address.is_global and not address.is_multicast and not address.is_reserved and not _is_special(address)


def _is_special(address: Address) -> bool:
    return any(address in network for network in _SPECIAL)


def _name(url: httpx2.URL) -> str:
    return url.raw_host.decode("ascii").lower()


def _check_if_address(host: str) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not is_public(address):
        raise BadDestination("the address is not public")
