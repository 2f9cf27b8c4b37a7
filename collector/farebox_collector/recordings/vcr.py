"""Read the interactions of cassettes by VCR.py, pytest-recording, betamax and Ruby's VCR, in YAML or JSON."""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import yaml

from farebox_collector.recordings.exchanges import (
    ENTRY_BYTES_MAX,
    Exchange,
    answer_headers,
    bytes_of,
    header,
    moment_in,
    pairs_of,
)

_NAMES = ("interactions", "http_interactions")
LISTS = tuple(f"{quote}{name}{quote}:".encode() for name in _NAMES for quote in ("", '"', "'"))
"""The lines that begin the list of interactions."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Load plain values only. Python tags in old cassettes become text."""


def _plain_text(loader: Any, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    raise yaml.constructor.ConstructorError(None, None, f"{node.tag} is not read", node.start_mark)


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _plain_text)


def interactions(file: BinaryIO) -> Iterator[Any]:
    """Yield the interactions of a YAML cassette. Raises ValueError for an invalid or too long one.

    Each item of the list is parsed separately, so that a file of any size is read in bounded memory.
    """
    begin = file.tell()
    for number, text in enumerate(_items(file)):
        try:
            loaded = _loaded(text)
        except _AliasToOutside:
            # Interactions share a part by an alias: parse the whole file.
            file.seek(begin)
            yield from _whole(file, number)
            return
        yield loaded[0] if isinstance(loaded, list) and loaded else loaded


class _AliasToOutside(Exception):
    """An item refers to a part of another item."""


def _loaded(text: bytes) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506, a safe loader
    except (yaml.YAMLError, RecursionError) as error:
        if "undefined alias" in str(getattr(error, "problem", "")):
            raise _AliasToOutside from None
        raise ValueError(f"the YAML is invalid: {_brief(error)}") from None


def _whole(file: BinaryIO, begin: int) -> Iterator[Any]:
    text = file.read(ENTRY_BYTES_MAX + 1)
    if len(text) > ENTRY_BYTES_MAX:
        raise ValueError(f"the entry uses an alias, and the file is longer than {ENTRY_BYTES_MAX >> 20} MiB")
    try:
        loaded = _loaded(text)
    except _AliasToOutside:
        raise ValueError("the entry uses an undefined alias") from None
    found: Any = next((loaded[name] for name in _NAMES if name in loaded), []) if isinstance(loaded, Mapping) else []
    yield from (found if isinstance(found, list) else [])[begin:]


def _items(file: BinaryIO) -> Iterator[bytes]:
    """Yield the text of each item of the list of interactions."""
    marker: bytes | None = None
    inside = False
    lines: list[bytes] = []
    size = 0
    for line in iter(lambda: file.readline(ENTRY_BYTES_MAX + 1), b""):
        if not inside:
            inside = line.rstrip() in LISTS
            continue
        if marker is None:
            stripped = line.lstrip(b" ")
            if not stripped.startswith(b"- ") and stripped.strip() != b"-":
                continue
            marker = line[: len(line) - len(stripped)] + b"-"
        if line.startswith((marker + b" ", marker + b"\n", marker + b"\r")) and lines:
            yield b"".join(lines)
            lines, size = [], 0
        elif lines and _indent(line) < len(marker):
            break  # the next key of the file
        lines.append(line)
        size += len(line)
        if size > ENTRY_BYTES_MAX:
            raise ValueError(f"the entry is longer than {ENTRY_BYTES_MAX >> 20} MiB")
    if lines:
        yield b"".join(lines)


def _indent(line: bytes) -> int:
    """The indentation of a line; unlimited for blank lines and comments."""
    content = line.strip()
    return ENTRY_BYTES_MAX if not content or content.startswith(b"#") else len(line) - len(line.lstrip(b" "))


def exchange_of(entry: int, recorded: Any) -> Exchange:
    """Read one interaction. Raises ValueError if it is invalid."""
    if not isinstance(recorded, Mapping):
        raise ValueError("the interaction is not a mapping")
    request, response = recorded.get("request"), recorded.get("response")
    if not isinstance(request, Mapping) or not isinstance(response, Mapping):
        raise ValueError("the interaction lacks a request or a response")
    url = request.get("uri") or request.get("url")
    status = response.get("status", response.get("status_code"))
    code = status.get("code") if isinstance(status, Mapping) else status
    if not isinstance(url, str) or not isinstance(code, int):
        raise ValueError("the request lacks a uri, or the response a status")
    headers = answer_headers(pairs_of(response.get("headers")))
    return Exchange(
        entry,
        str(request.get("method", "GET")).upper(),
        url,
        header(pairs_of(request.get("headers")), "content-type"),
        _body_of(request),
        code,
        headers,
        _body_of(response),
        moment_in(recorded.get("recorded_at")) or moment_in(header(headers, "date")),
    )


def _body_of(message: Mapping[Any, Any]) -> bytes:
    """The body of a request or an answer. Some serializers write JSON as YAML under `parsed_body`."""
    parsed = message.get("parsed_body")
    if parsed is not None:
        # YAML parses some texts as dates: turn them back into texts.
        return json.dumps(parsed, default=str).encode()
    return _body(message.get("body", message.get("content")))


def _body(body: Any) -> bytes:
    if isinstance(body, Mapping):
        if body.get("base64_string") is not None:
            try:
                return base64.b64decode(bytes_of(body["base64_string"]))
            except binascii.Error as error:
                raise ValueError(f"a body is not valid base64: {error}") from None
        return bytes_of(body.get("string"))
    return bytes_of(body)


def _brief(error: BaseException) -> str:
    problem = getattr(error, "problem", None)
    mark = getattr(error, "problem_mark", None)
    where = f" in its line {mark.line + 1}" if mark is not None else ""
    return f"{problem or type(error).__name__}{where}"
