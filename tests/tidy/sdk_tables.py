"""The tables of docs/reference/sdk.md, made from the SDK's signatures, docstrings and constants."""

import ast
import importlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import farebox
from farebox.request_log import FIELDS

PACKAGE = Path(farebox.__file__).parent
_LIMIT = re.compile(r"[A-Z].*_(?:MAX|MIN|S|BYTES)$|.*_BYTES_|.*_(?:MAX|MIN)_S$")

Row = tuple[str, ...]


def options() -> list[Row]:
    """The arguments of `farebox.instrument`."""
    return list(_arguments(farebox.instrument))


def action_arguments() -> list[Row]:
    """The arguments of `farebox.action`."""
    return list(_arguments(farebox.action))


def line_fields() -> list[Row]:
    """The keys of a line of the request log, in order."""
    return [(f"`{name}`", meaning) for name, meaning in FIELDS.items()]


def limits() -> list[Row]:
    """Every bound that says what it is for: a constant with a docstring under it."""
    rows: list[Row] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for assignment, docstring in itertools.pairwise(body):
            if not isinstance(assignment, ast.AnnAssign) or not isinstance(assignment.target, ast.Name):
                continue
            name = assignment.target.id
            if _LIMIT.match(name) and isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant):
                module = ".".join(["farebox", *path.relative_to(PACKAGE).with_suffix("").parts])
                value = getattr(importlib.import_module(module), name)
                rows.append((f"`{module}.{name}`", f"{value:,}", " ".join(str(docstring.value.value).split())))
    return rows


def _arguments(function: Callable[..., object]) -> Iterator[Row]:
    meanings = _meanings(inspect.getdoc(function) or "")
    for name, parameter in inspect.signature(function).parameters.items():
        default = "" if parameter.default is inspect.Parameter.empty else f"`{parameter.default!r}`"
        yield f"`{name}`", default, meanings[name].replace("``", "`").replace(":func:", "")


def _meanings(docstring: str) -> dict[str, str]:
    """What a docstring says under `Args:`, by the argument."""
    section = docstring.split("Args:\n", 1)[1].split("\n\n", 1)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
