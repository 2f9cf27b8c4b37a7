"""Which names our HTTP ports answer to.

A web page can make a browser call a port of this machine under a name of the page's own (DNS rebinding); that call
carries the page's name as its host, and is refused.
"""

import ipaddress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from farebox_collector.surfaces.problems import problem

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class AllowedHosts:
    """ASGI middleware that refuses requests whose Host is neither this machine's own name nor one of `names`.

    With `any_address`, for ports that other machines reach, IP addresses are taken too: no page can be rebound to one.
    """

    def __init__(self, app: ASGIApp, names: tuple[str, ...] = (), *, any_address: bool = False) -> None:
        self._app = app
        self._names = _LOOPBACK | {name.lower() for name in names}
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400."""
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
            if name.lower() not in self._names and not (self._any_address and _is_address(name)):
                refusal = problem(400, "this port does not answer to that name; FAREBOX_ALLOWED_HOSTS adds names")
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
