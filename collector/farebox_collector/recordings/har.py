"""Read the entries of HAR files by browsers, proxies and Polly."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from farebox_collector.recordings.exchanges import (
    Exchange,
    answer_headers,
    bytes_of,
    header,
    moment_in,
    pairs_of,
)


def exchange_of(entry: int, recorded: Any) -> Exchange:
    """Read one entry of `log.entries`. Raises ValueError if it is invalid."""
    if not isinstance(recorded, Mapping):
        raise ValueError("the entry is not an object")
    request, response = recorded.get("request"), recorded.get("response")
    if not isinstance(request, Mapping) or not isinstance(response, Mapping):
        raise ValueError("the entry lacks a request or a response")
    url, status = request.get("url"), response.get("status")
    if not isinstance(url, str) or not isinstance(status, int):
        raise ValueError("the request lacks a url, or the response a status")
    content = response.get("content")
    content = content if isinstance(content, Mapping) else {}
    body, missing = _body(content)
    headers = answer_headers(pairs_of(response.get("headers")))
    if not header(headers, "content-type") and isinstance(content.get("mimeType"), str):
        headers = (*headers, ("content-type", content["mimeType"]))
    took_ms = recorded.get("time")
    posted = request.get("postData")
    posted = posted if isinstance(posted, Mapping) else {}
    unusable = "the answer is missing" if not 100 <= status <= 599 else missing
    return Exchange(
        entry,
        str(request.get("method", "GET")).upper(),
        url,
        header(pairs_of(request.get("headers")), "content-type") or str(posted.get("mimeType") or ""),
        _decoded(posted.get("text"), posted.get("encoding")),
        status,
        headers,
        body,
        moment_in(recorded.get("startedDateTime")),
        int(took_ms * 1_000_000) if isinstance(took_ms, int | float) and 0 <= took_ms < 10**9 else None,
        "WebSockets are not metered" if url.startswith(("ws:", "wss:")) else unusable,
    )


def _body(content: Mapping[str, Any]) -> tuple[bytes, str]:
    text, size = content.get("text"), content.get("size")
    if text is None and isinstance(size, int) and size > 0:
        return b"", "the recording lacks bodies; record again with response contents"
    return _decoded(text, content.get("encoding")), ""


def _decoded(text: Any, encoding: Any) -> bytes:
    if encoding == "base64":
        try:
            return base64.b64decode(bytes_of(text), validate=False)
        except binascii.Error as error:
            raise ValueError(f"a body is not valid base64: {error}") from None
    return bytes_of(text)
