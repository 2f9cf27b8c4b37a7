"""Read a file of recordings as a stream of exchanges, in bounded memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from farebox_collector.recordings import har, vcr
from farebox_collector.recordings.exchanges import ENTRY_BYTES_MAX, BrokenRecording, Exchange

_BEGINNING_BYTES = 64 * 1024
_BOM = b"\xef\xbb\xbf"


def exchanges_in(path: Path) -> Iterator[Exchange]:
    """Yield the exchanges of a HAR file (JSON) or a VCR cassette (YAML or JSON), in order.

    Raises BrokenRecording for a file or an entry that cannot be read.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING_BYTES)
            file.seek(len(_BOM) if beginning.startswith(_BOM) else 0)
            yield from _exchanges(path, file, beginning.removeprefix(_BOM).lstrip())
    except OSError as error:
        raise BrokenRecording(f"{path}: {error.strerror or error}") from None


def _exchanges(path: Path, file: BinaryIO, beginning: bytes) -> Iterator[Exchange]:
    if beginning.startswith(b"{"):
        is_cassette = b'"interactions"' in beginning or b'"http_interactions"' in beginning
        if is_cassette and b'"entries"' not in beginning:
            name = "interactions" if b'"interactions"' in beginning else "http_interactions"
            found, read = _json_items(file, f"{name}.item"), vcr.exchange_of
        else:
            found, read = _json_items(file, "log.entries.item"), har.exchange_of
    elif any(line.rstrip() in vcr.LISTS for line in beginning.splitlines()):
        found, read = vcr.interactions(file), vcr.exchange_of
    else:
        raise BrokenRecording(
            f"{path}: not a recording; give a HAR file (JSON with log.entries) or a VCR cassette (YAML or JSON with"
            " interactions)"
        )
    entry = 0
    try:
        for entry, recorded in enumerate(found, start=1):
            try:
                exchange = read(entry, recorded)
            except ValueError as error:
                exchange = Exchange(entry, "", "", "", b"", 0, (), b"", unusable=f"the entry cannot be read: {error}")
            yield exchange
            entry += 1
    except ValueError as error:
        raise BrokenRecording(f"{path}, entry {max(entry, 1)}: {error}") from None
    if not entry:
        raise BrokenRecording(f"{path}: the file has no exchanges")


class _Bounded:
    """A file with a bound on the bytes read between two items."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.since_item = 0

    def read(self, size: int = -1) -> bytes:
        if size == 0:  # ijson reads 0 bytes to find out whether the file is binary
            return b""
        chunk = self._file.read(size)
        self.since_item += len(chunk)
        if self.since_item > ENTRY_BYTES_MAX:
            raise ValueError(f"the entry is longer than {ENTRY_BYTES_MAX >> 20} MiB")
        return chunk


def _json_items(file: BinaryIO, prefix: str) -> Iterator[Any]:
    bounded = _Bounded(file)
    try:
        for item in ijson.items(bounded, prefix, use_float=True):
            bounded.since_item = 0
            yield item
    except ijson.JSONError as error:
        raise ValueError(f"the JSON is invalid or truncated: {' '.join(str(error).split())[:200]}") from None
