"""The tree says what it does: documentation against code, sizes, names, and nothing that belongs elsewhere."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import doc_tables
import pytest
from api_page import endpoints
from farebox_collector.surfaces.api.application import KNOWN_BY_OTHER_MEANS, SCOPES, documentation

REPOSITORY = Path(__file__).parents[2]
MAX_FUNCTION_LINES = 76
NOT_AT_A_START = {"alembic", "arro3", "genai_prices", "pygments", "stripe"}
SERVING = {"fastapi", "grpc", "prometheus_client", "uvicorn", *NOT_AT_A_START}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def tracked(*patterns: str) -> list[Path]:
    """Files that git tracks, or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [REPOSITORY / name for name in listed.stdout.splitlines() if (REPOSITORY / name).exists()]


@pytest.mark.parametrize("table", doc_tables.TABLES)
def test_documented_tables_are_those_of_the_code(table: str) -> None:
    assert doc_tables.documented(table) == doc_tables.TABLES[table][1](), "run `make docs`"


def test_every_endpoint_says_what_it_does_who_may_and_how_it_fails() -> None:
    found = list(endpoints(documentation()))
    assert len(found) > 40
    open_to_all = {"/readyz", *KNOWN_BY_OTHER_MEANS}
    for method, path, operation in found:
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"][0].isalnum(), where
        assert operation["description"].rstrip().endswith("."), where
        assert bool(operation.get(SCOPES)) is (path not in open_to_all), where
        problem = operation["responses"]["default"]["content"]["application/problem+json"]
        assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}, where


def test_no_two_answers_have_the_same_name() -> None:
    titles = Counter(schema.get("title") for schema in documentation()["components"]["schemas"].values())
    assert [title for title, times in titles.items() if times > 1] == []


def test_a_start_imports_only_what_it_needs() -> None:
    """Of what takes long: the command first, then what the collector adds to it."""
    asked = "import farebox_collector.cli; print(*{0} & set(sys.modules)); import farebox_collector.assembly"
    program = f"import sys; {asked.format(SERVING)}; print(*{NOT_AT_A_START} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "\n\n"


def test_commands_in_the_pages_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    known = set(re.findall(r"`farebox ([a-z -]+)`", doc_tables.commands_table()))
    for page in tracked("*.md"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"
        for command in re.findall(r"\.venv/bin/farebox ([a-z-]+(?: [a-z-]+)?)", text):
            # A command without a group is followed by its arguments.
            exists = command.split()[0] in known or any(f"{name} ".startswith(f"{command} ") for name in known)
            assert exists, f"{page.name}: farebox {command}"


def test_the_readme_shows_commands() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^    make demo", readme, re.MULTILINE)
    assert re.findall(r"^    \.venv/bin/farebox serve", readme, re.MULTILINE)


def test_functions_stay_short() -> None:
    """Migrations are exempt: each is one list of steps, and is never read again once it has run everywhere."""
    long = {
        f"{path.relative_to(REPOSITORY)}: {node.name}": lines
        for path in tracked("*.py")
        if "versions" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not long


def test_only_storage_tells_databases_apart() -> None:
    """Other packages ask `storage.differences` or `Database`."""
    ledger = REPOSITORY / "collector/farebox_collector/ledger"
    products = {"farebox_collector.ledger.storage.sqlite", "farebox_collector.ledger.storage.postgresql"}
    apart = {
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path in tracked("collector/*.py")
        if not any(path.is_relative_to(ledger / package) for package in ("storage", "migrations"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and ast.unparse(node).endswith(("dialect.name", "dialect.paramstyle")))
        or (isinstance(node, ast.ImportFrom) and node.module in products)
    }
    assert not apart


def test_names_say_something() -> None:
    assert not [path for path in tracked() if {path.stem, path.parent.name} & VAGUE]


def test_nothing_names_this_machine_or_a_registry() -> None:
    home = f"{REPOSITORY}/"
    # Put together here, or this file would name them.
    forbidden = [home, "pypi" + ".org", "pythonhosted" + ".org", "--index" + "-url", "--extra-index" + "-url"]
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        # The Makefile tells the resolver to leave the address out.
        text = text.replace("--no-emit-index" + "-url", "")
        assert not [word for word in forbidden if word in text], path


def test_the_lock_pins_every_package_with_hashes() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    packages = re.split(r"\n(?=[a-z0-9])", lock.strip())
    assert len(packages) > 50
    for package in packages:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==", package), package.splitlines()[0]
        assert "--hash=sha256:" in package, package.splitlines()[0]


def test_public_python_of_the_sdk_is_marked_typed() -> None:
    assert (REPOSITORY / "instrumentation/farebox/py.typed").exists()
