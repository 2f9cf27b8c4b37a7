"""Which names our HTTP ports answer to.

A web page can make a browser call a port of this machine under a name of the page's own (DNS rebinding); that call
carries the page's name as its host, and is refused.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from farebox_collector.surfaces.problems import problem

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class LoopbackHosts:
    """ASGI middleware that refuses requests whose Host is not this machine's own name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400."""
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
            if name not in _LOOPBACK:
                await problem(400, "this port answers to the names of its own machine only")(scope, receive, send)
                return
        await self._app(scope, receive, send)
