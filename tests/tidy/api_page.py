"""The page about the HTTP API, made from its OpenAPI document: what every endpoint takes, needs and answers."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from farebox_collector.surfaces.api.application import SCOPES, documentation

Json = dict[str, Any]

METHODS = ("get", "post", "put", "patch", "delete")


def endpoints(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Every (method, path, operation) of a document."""
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                yield method.upper(), path, operations[method]


def api_page() -> str:
    """All endpoints by what they are about."""
    document = documentation()
    by_tag: defaultdict[str, list[str]] = defaultdict(list)
    for method, path, operation in endpoints(document):
        by_tag[operation["tags"][0]].append(_endpoint(document, method, path, operation))
    return "".join(f"\n## {tag.capitalize()}\n{''.join(parts)}" for tag, parts in by_tag.items()) + "\n"


def anchor(method: str, path: str) -> str:
    """What GitHub makes of an endpoint's heading."""
    return re.sub(r"[^a-z0-9_ -]", "", f"{method} {path}".lower()).replace(" ", "-")


def _endpoint(document: Json, method: str, path: str, operation: Json) -> str:
    scopes = " or ".join(
        " and ".join(f"`{scope}`" for scope in together.split()) for together in operation.get(SCOPES, ())
    )
    needs = f"Scope: {scopes}." if scopes else "No key."
    parts = [f"\n### `{method} {path}`\n\n{_plain(operation['description'])} {needs}\n"]
    parameters = [
        (f"`{parameter['name']}`", parameter["in"], _type(document, parameter["schema"]), _about(parameter))
        for parameter in operation.get("parameters", ())
    ]
    parts.append(_table(("parameter", "in", "type", "meaning"), parameters))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        parts.append(_table(("field of the body", "type", "meaning"), _fields(document, body)))
    answers = []
    for status, answer in operation["responses"].items():
        if status.isdigit():
            content = answer.get("content", {})
            kinds = [f"`{_type(document, one['schema'])}`" for kind, one in content.items() if kind.endswith("json")]
            others = [f"`{kind.partition(';')[0]}`" for kind in content if not kind.endswith("json")]
            if kinds or others or status == "204":
                answers.append(f"{status} {', '.join([*kinds, *others])}".strip())
    parts.append(f"\nAnswers {'; '.join(answers)}.\n")
    return "".join(parts)


def models() -> str:
    """What endpoints answer with, field by field."""
    document = documentation()
    wanted = _answered(document)
    parts = []
    for name in sorted(wanted, key=lambda key: (_name(document, key), key)):
        schema = document["components"]["schemas"][name]
        if "properties" in schema:
            about = _plain(schema.get("description", ""))
            table = _table(("field", "type", "meaning"), _fields(document, schema))
            parts.append(f"\n### {_name(document, name)}\n\n{about}\n{table}")
    return "".join(parts) + "\n"


def _answered(document: Json) -> set[str]:
    """The schemas that answers are made of, and those within these."""
    found: set[str] = set()
    open_ends = [operation["responses"] for _, _, operation in endpoints(document)]
    while open_ends:
        for reference in re.findall(r"'#/components/schemas/([^']+)'", str(open_ends.pop())):
            if reference not in found:
                found.add(reference)
                open_ends.append(document["components"]["schemas"][reference])
    return found


def _fields(document: Json, schema: Json) -> Sequence[tuple[str, ...]]:
    schema = _resolved(document, schema)
    required = set(schema.get("required", ()))
    return [
        (
            f"`{name}`",
            _type(document, field),
            ("" if name in required or "default" not in field else _default(field)) + _about(field),
        )
        for name, field in schema.get("properties", {}).items()
    ]


def _about(field: Json) -> str:
    return _plain(field.get("description") or "")


def _default(field: Json) -> str:
    return "" if field["default"] in (None, "", [], {}) else f"(`{field['default']}`) "


def _type(document: Json, schema: Json) -> str:
    """The type in a few words."""
    if "$ref" in schema:
        resolved = _resolved(document, schema)
        if "enum" in resolved:
            return " or ".join(map(str, resolved["enum"]))
        return _name(document, schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(document, one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(str(value) or '""' for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"]) or '""'
    if schema.get("type") == "array":
        return f"list of {_type(document, schema.get('items', {}))}"
    if schema.get("pattern", "").startswith(r"^-?\d+\.\d{9}"):
        return "amount"
    return str(schema.get("format") or schema.get("type") or "any")


def _name(document: Json, key: str) -> str:
    """A schema's name as people would write it: `Page_Wallet_` is Page of Wallet."""
    title = str(document["components"]["schemas"][key].get("title", key))
    return re.sub(r"\[(.*)\]", r" of \1", title)


def _resolved(document: Json, schema: Json) -> Json:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _plain(text: str) -> str:
    return " ".join(text.split())


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n" + "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
