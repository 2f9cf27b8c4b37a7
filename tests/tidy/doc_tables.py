"""The tables of the documentation, made from the code. `make docs` writes them; a test compares.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`.
"""

import ast
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sdk_tables
import typer
import yaml
from api_page import anchor, api_page, endpoints, models
from farebox_collector.cli import app
from farebox_collector.dialects.assumptions import ASSUMPTIONS
from farebox_collector.ledger.audit.books_audit import CHECKS
from farebox_collector.metrics.catalogue import CATALOGUE
from farebox_collector.model import credentials, verdicts
from farebox_collector.model.units import UNITS
from farebox_collector.settings import Settings
from farebox_collector.surfaces.api.application import SCOPES, documentation

REPOSITORY = Path(__file__).parents[2]


def settings_table() -> str:
    """Every setting with its variable, default and meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        flag = f"`--{name.replace('_', '-')}`" if name in _serve_flags() else ""
        shown = "" if default in (None, "") else f"`{default}`"
        rows.append((f"`FAREBOX_{name.upper()}`", flag, shown, field.description or ""))
    return _table(("variable", "flag of `serve`", "default", "meaning"), rows)


def metrics_table() -> str:
    """Every metric with its type, labels and meaning."""
    rows = [
        (f"`{metric.name}`", metric.kind.value, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning)
        for metric in CATALOGUE
    ]
    return _table(("metric", "type", "labels", "meaning"), rows)


def roles_table() -> str:
    """Every role with its scopes, and what it is for, which is the docstring under it."""
    tree = ast.parse(Path(credentials.__file__).read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Role").body
    rows = []
    for assignment, docstring in itertools.pairwise(body):
        if isinstance(assignment, ast.Assign) and isinstance(assignment.value, ast.Constant):
            role = credentials.Role(str(assignment.value.value))
            scopes = [f"`{scope}`" for scope in credentials.Scope if scope in credentials.SCOPES_OF[role]]
            meaning = docstring.value.value  # type: ignore[attr-defined]
            rows.append((f"`{role}`", ", ".join(scopes), " ".join(meaning.split())))
    return _table(("role", "scopes", "what it is for"), rows)


def verdicts_table() -> str:
    """Every verdict with its meaning, which is the docstring under it, and whether it leaves a record."""
    tree = ast.parse(Path(verdicts.__file__).read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Verdict").body
    rows = []
    for assignment, docstring in itertools.pairwise(body):
        if isinstance(assignment, ast.Assign) and isinstance(assignment.value, ast.Constant):
            name = str(assignment.value.value)
            kept = "yes" if verdicts.Verdict(name) in verdicts.STORED else ""
            meaning = docstring.value.value  # type: ignore[attr-defined]
            rows.append((f"`{name}`", kept, " ".join(meaning.split())))
    return _table(("verdict", "kept as a usage record", "meaning"), rows)


def commands_table() -> str:
    """Every command with the first sentence of its help."""
    root = typer.main.get_command(app)
    rows = [(f"`farebox {name}`", help_text) for name, help_text in _commands(root)]
    return _table(("command", "what it does"), rows)


def units_table() -> str:
    """Every unit that can have a price."""
    return _table(("unit", "what is counted"), [(f"`{unit}`", meaning) for unit, meaning in UNITS.items()])


def audit_table() -> str:
    """Every check of the audit."""
    return _table(("check", "what must hold"), [(f"`{check.name}`", check.meaning) for check in CHECKS])


def alerts_table() -> str:
    """Every alert with whom it tells what."""
    rows = []
    for path in sorted((REPOSITORY / "alerts").glob("*.yml")):
        for group in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("groups", ()):
            for rule in group["rules"]:
                if "alert" in rule:
                    labels = rule["labels"]
                    link = f"[{rule['alert']}](../how-to/runbook.md#{rule['alert'].lower()})"
                    summary = re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", rule["annotations"]["summary"])
                    summary = re.sub(r"\{\{[^}]*\$value[^}]*\}\}", "*value*", summary)
                    rows.append((link, labels["severity"], labels["team"], rule.get("for", "at once"), summary))
    return _table(("alert", "severity", "team", "after", "what it says"), rows)


def assumptions_table() -> str:
    """Everything that a dialect may have to assume."""
    return _table(("flag", "meaning"), [(f"`{name}`", meaning) for name, meaning in ASSUMPTIONS.items()])


def endpoints_table() -> str:
    """Every endpoint, what it needs and what it does."""
    rows = []
    for method, path, operation in endpoints(documentation()):
        needs = " or ".join(
            " and ".join(f"`{scope}`" for scope in together.split()) for together in operation.get(SCOPES, ())
        )
        rows.append(
            (f"[`{method} {path}`](api.md#{anchor(method, path)})", needs, operation["description"].split("\n")[0])
        )
    return _table(("endpoint", "scope", "what it does"), rows)


def sdk_options_table() -> str:
    """What `farebox.instrument` takes."""
    return _table(("argument", "default", "meaning"), sdk_tables.options())


def sdk_action_table() -> str:
    """What `farebox.action` takes."""
    return _table(("argument", "default", "meaning"), sdk_tables.action_arguments())


def sdk_line_table() -> str:
    """What a line of the SDK's request log says."""
    return _table(("key", "meaning"), sdk_tables.line_fields())


def sdk_limits_table() -> str:
    """What the SDK bounds."""
    return _table(("bound", "value", "meaning"), sdk_tables.limits())


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "settings": ("docs/reference/settings.md", settings_table),
    "commands": ("docs/reference/commands.md", commands_table),
    "metrics": ("docs/reference/metrics.md", metrics_table),
    "roles": ("docs/explanation/security.md", roles_table),
    "verdicts": ("docs/reference/verdicts.md", verdicts_table),
    "assumptions": ("docs/reference/dialects.md", assumptions_table),
    "audit": ("docs/explanation/reliability.md", audit_table),
    "units": ("docs/explanation/prices.md", units_table),
    "endpoints": ("docs/reference/endpoints.md", endpoints_table),
    "api": ("docs/reference/api.md", api_page),
    "answers": ("docs/reference/api.md", models),
    "alerts": ("docs/reference/alerts.md", alerts_table),
    "sdk-options": ("docs/reference/sdk.md", sdk_options_table),
    "sdk-action": ("docs/reference/sdk.md", sdk_action_table),
    "sdk-line": ("docs/reference/sdk.md", sdk_line_table),
    "sdk-limits": ("docs/reference/sdk.md", sdk_limits_table),
}


def documented(name: str) -> str:
    """The table as it stands in the documentation."""
    found = _between(name).search(_page(name).read_text(encoding="utf-8"))
    assert found, f"{TABLES[name][0]} has no <!-- {name} --> … <!-- /{name} -->"
    return found.group(2)


def write(name: str) -> None:
    """Put the table of today's code into the documentation."""
    page, made = _page(name), TABLES[name][1]()
    text = page.read_text(encoding="utf-8")
    page.write_text(_between(name).sub(lambda found: found.group(1) + made + found.group(3), text), encoding="utf-8")


def _page(name: str) -> Path:
    return REPOSITORY / TABLES[name][0]


def _between(name: str) -> re.Pattern[str]:
    return re.compile(f"(<!-- {name} -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _commands(command: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _commands(child, f"{prefix} {name}".strip())
    else:
        yield prefix, (command.help or "").split("\n\n")[0].replace("\n", " ")


def _serve_flags() -> set[str]:
    # Typer brings its own command classes, which share no base with click's.
    root: Any = typer.main.get_command(app)
    return {parameter.name for parameter in root.commands["serve"].params}


if __name__ == "__main__":
    for table in sys.argv[1:] or TABLES:
        write(table)
