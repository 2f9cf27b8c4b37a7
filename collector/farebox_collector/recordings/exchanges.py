"""A recorded request with its answer, independent of the file format."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

ENTRY_BYTES_MAX = 64 * 1024 * 1024
"""Longest entry of a recording that is read, to bound memory for files of any size."""
_WITHHELD_HEADERS = frozenset({"set-cookie", "cookie", "authorization"})


class BrokenRecording(Exception):
    """A recording, or one entry of it, cannot be read; the message names the file, the entry and the reason."""


class Exchange(NamedTuple):
    """One request with its answer."""

    entry: int
    """Number of the exchange in the file, from 1."""
    method: str
    url: str
    content_type: str
    """Of the request."""
    request: bytes
    status: int
    headers: tuple[tuple[str, str], ...]
    """Of the answer, without cookies."""
    body: bytes
    began_ns: int | None = None
    """When the request was sent, nanoseconds since the epoch; None if not recorded."""
    took_ns: int | None = None
    unusable: str = ""
    """Why this exchange cannot be replayed; empty if it can."""

    @property
    def place(self) -> str:
        """The address without its query, which may hold a key."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


AT_THE_END = Exchange(0, "", "", "", b"", 0, (), b"")
"""Stands for the calls that the SDK reports at the end of a file: those whose answers were never fetched."""


def pairs_of(headers: Any) -> list[tuple[str, str]]:
    """Headers as pairs: from a mapping of names to texts or lists of texts, or from a list of names and values."""
    found: list[tuple[str, str]] = []
    if isinstance(headers, Mapping):
        for name, values in headers.items():
            for value in values if isinstance(values, list | tuple) else [values]:
                found.append((str(name), _text(value)))  # noqa: PERF401
    elif isinstance(headers, Iterable) and not isinstance(headers, str | bytes):
        for header in headers:
            if isinstance(header, Mapping) and "name" in header:
                found.append((str(header["name"]), _text(header.get("value", ""))))  # noqa: PERF401
    return [(name, value) for name, value in found if name and not name.startswith(":")]


def answer_headers(headers: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The headers of an answer without cookies and credentials."""
    return tuple((name, value) for name, value in headers if name.lower() not in _WITHHELD_HEADERS)


def header(headers: Iterable[tuple[str, str]], name: str) -> str:
    """The value of a header by its lower-case name; empty if missing."""
    return next((value for present, value in headers if present.lower() == name), "")


def bytes_of(text: Any) -> bytes:
    """A body, given as text or as bytes, as bytes."""
    if isinstance(text, bytes):
        return text
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b""


def moment_in(text: Any) -> int | None:
    """Parse a date in ISO 8601 or HTTP format to nanoseconds since the epoch; None for anything else."""
    if isinstance(text, datetime):
        moment = text
    elif not isinstance(text, str) or not text:
        return None
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            try:
                moment = parsedate_to_datetime(text)
            except ValueError:
                return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    seconds = moment.timestamp()
    return int(seconds * 1_000) * 1_000_000 if 0 < seconds < 4_102_444_800 else None


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
