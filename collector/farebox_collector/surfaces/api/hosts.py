"""The host names that the HTTP ports accept, and the web pages that may call them.

A web page can make a browser call a port of this machine. With DNS rebinding the request's Host is the page's own
name, and is refused. A request from another origin carries `Origin` or `Sec-Fetch-Site`; it may only follow a link.
"""

import ipaddress
import re

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from farebox_collector.surfaces.api.problems import problem

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?)(:[0-9]{1,5})?")
_ORIGIN = re.compile(r"(https?)://([^/]+)")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_READING = frozenset({"GET", "HEAD"})


class AllowedHosts:
    """ASGI middleware that refuses requests whose Host is neither local nor one of `names`.

    With `any_address`, for ports that other machines reach, IP addresses are accepted too: DNS cannot rebind one.
    """

    def __init__(self, app: ASGIApp, names: tuple[str, ...] = (), *, any_address: bool = False) -> None:
        self._app = app
        self._names = _LOOPBACK | {name.lower() for name in names}
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or answer 400 or 403."""
        if scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None:
            return problem(400, "send one Host header: a name or an IP address, and a port if it is not the default")
        if name not in self._names and not (self._any_address and _is_address(name)):
            return problem(400, "this port does not accept that host name; add it to FAREBOX_ALLOWED_HOSTS")
        if is_foreign(scope["method"], headers, hosts[0]):
            return problem(403, "web pages of another origin may not call this port")
        return None


def host_name(host: str) -> str | None:
    """Return the name of a Host header in lower case, without port; None if invalid."""
    found = _HOST.fullmatch(host)
    return found.group(1).lower() if found and int((found.group(3) or ":0")[1:]) < 65536 else None


def is_foreign(method: str, headers: Headers, host: str) -> bool:
    """Return whether a page of another origin caused this request, other than by a link."""
    sites = headers.getlist("sec-fetch-site")
    if any(site not in ("same-origin", "none") for site in sites):
        follows = method in _READING and headers.get("sec-fetch-mode") == "navigate"
        if not follows:
            return True
    origins = headers.getlist("origin")
    return any(not _is_own(origin, host) for origin in origins)


def _is_own(origin: str, host: str) -> bool:
    """Return whether an Origin is the requested host and port; a TLS proxy may change the scheme."""
    found = _ORIGIN.fullmatch(origin.lower())
    if found is None:
        return False
    scheme, asked = found[1], host.lower()
    return found[2] in (asked, asked.removesuffix(_DEFAULT_PORTS[scheme])) or found[2] + _DEFAULT_PORTS[scheme] == asked


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
