"""Names with slashes in paths: `/v1/wallets/team/a/lots` are the lots of `team/a`, and `%2F` always belongs to a name.

Servers decode `%2F` before anybody looks for a route, so that a wallet `team/lots` could never be asked for: its path
would be that of the lots of `team`. Here an encoded slash becomes a character that no name has, until there is a route.
"""

import re
from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

# Of Unicode's private use: what a name may be kept as is printable, and this is not.
_SLASH = "\ue000"
_ENCODED = re.compile(rb"%2[fF]")


class NameConvertor(Convertor[str]):
    """A name in a path; it may have slashes, encoded or not."""

    regex = ".*"

    def convert(self, value: str) -> str:
        """The name that a path has."""
        return value.replace(_SLASH, "/")

    def to_string(self, value: str) -> str:
        """The name as a path has it."""
        return quote(value, safe="")


register_url_convertor("name", NameConvertor())


class EncodedSlashes:
    """ASGI middleware that keeps encoded slashes apart from those that divide a path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        raw = scope.get("raw_path") if scope["type"] == "http" else None
        if raw and _ENCODED.search(raw):
            path = unquote(_ENCODED.sub(quote(_SLASH).encode(), raw).decode("latin-1"))
            scope = {**scope, "path": path}
        await self._app(scope, receive, send)
