"""Names with slashes in paths: `/v1/wallets/team/a/lots` are the lots of `team/a`; `%2F` always belongs to a name.

Servers decode `%2F` before routing, so the path of a wallet `team/lots` would be that of the lots of `team`. Until
routing, an encoded slash is replaced by a character that no name has.
"""

import re
from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

# A private-use character of Unicode: names are printable, and this is not.
_SLASH = "\ue000"
_ENCODED = re.compile(rb"%2[fF]")


class NameConvertor(Convertor[str]):
    """A name in a path, with slashes encoded or not."""

    regex = ".*"

    def convert(self, value: str) -> str:
        """Return the name in a path."""
        return value.replace(_SLASH, "/")

    def to_string(self, value: str) -> str:
        """Return the name for a path."""
        return quote(value, safe="")


register_url_convertor("name", NameConvertor())


class EncodedSlashes:
    """ASGI middleware that distinguishes encoded slashes from path separators."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request with encoded slashes marked."""
        raw = scope.get("raw_path") if scope["type"] == "http" else None
        if raw and _ENCODED.search(raw):
            path = unquote(_ENCODED.sub(quote(_SLASH).encode(), raw).decode("latin-1"))
            scope = {**scope, "path": path}
        await self._app(scope, receive, send)
