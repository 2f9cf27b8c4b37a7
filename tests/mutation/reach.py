"""Records which test reaches which line, and how long each test takes.

The recordings are kept in `.bench/mutate/reach`, one file for each file of tests, with digests of all files that its
tests reach: sources, fixtures, and itself. A file of tests is recorded again when one of these changes, and only then.
"""

import hashlib
import html
import json
import re
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from coverage.numbits import numbits_to_nums
from trees import SOURCES, WORK, Tree

TESTS = ("access", "dialects", "ledger", "money", "payments", "pricing", "surfaces", "wallets")
"""Packages of tests that may notice. Those of doors, pipelines, faults and crashes talk to processes."""
NOT_RECORDED = tuple(
    f"tests/{name}.py"
    for name in (
        "access/test_browser",
        "surfaces/test_cli",
        "surfaces/test_exported_counters",
        "surfaces/test_metrics",
        "surfaces/test_metrics_of_replicas",
        "surfaces/test_openapi_fuzz",
        "surfaces/test_replays",
        "surfaces/test_rules_over_http",
    )
)
"""Files whose tests start processes, or ask for no outcome in particular; `in_process` leaves out single tests."""
KEPT = WORK / "reach"
FORMAT = 1
"""Counts changes of what a recording holds."""


class Reach(NamedTuple):
    """Which tests reach which lines, and how long each takes."""

    tests: dict[tuple[str, int], list[str]]
    """(module, line) → tests, the fastest first"""
    seconds: dict[str, float]


def reach_of(tree: Tree) -> Reach:
    """Record what is not recorded yet or has changed, and read all."""
    KEPT.mkdir(parents=True, exist_ok=True)
    files = [
        path.relative_to(tree.root)
        for name in TESTS
        for path in sorted((tree.root / "tests" / name).glob("test_*.py"))
        if str(path.relative_to(tree.root)) not in NOT_RECORDED
    ]
    for old in set(KEPT.glob("*.json")) - {_kept(file) for file in files}:
        old.unlink()
    digests = _Digests(tree.root)
    stale = [file for file in files if not _stands(file, digests)]
    if stale:
        print(f"recording which lines are reached by {len(stale)} of {len(files)} files of tests", flush=True)
    for package, some in groupby(stale, key=lambda file: file.parent):
        started = time.monotonic()
        _record(tree, list(some), digests)
        print(f"  {package}: {time.monotonic() - started:.0f} s", flush=True)
    return _read(files)


class _Digests:
    """Digests of files of a tree, each read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        if name not in self._known:
            path = self._root / name
            text = path.read_bytes() if path.exists() else b""
            self._known[name] = hashlib.sha256(text).hexdigest()[:16]
        return self._known[name]


def _kept(file: Path) -> Path:
    return KEPT / f"{str(file).replace('/', '.')}.json"


def _stands(file: Path, digests: _Digests) -> bool:
    if not _kept(file).exists():
        return False
    recorded = json.loads(_kept(file).read_text(encoding="utf-8"))
    return recorded["format"] == FORMAT and all(digests.of(name) == old for name, old in recorded["files"].items())


def _record(tree: Tree, files: list[Path], digests: _Digests) -> None:
    """Run files of tests with coverage, and keep a recording of each."""
    report = tree.root / "times.xml"
    data = tree.root / ".coverage"
    for old in (report, data):
        old.unlink(missing_ok=True)
    tree.pytest(
        *map(str, files), "-p", "in_process", "--cov=farebox_collector", "--cov=tests", "--cov-context=test",
        "--cov-report=", f"--junitxml={report}", timeout=3600,
    )  # fmt: skip
    seconds: dict[str, float] = {}
    pattern = re.compile(r'<testcase classname="([^"]*)" name="([^"]*)" time="([^"]*)"')
    for where, name, took in pattern.findall(report.read_text(encoding="utf-8")):
        seconds[html.unescape(f"{where}::{name}")] = float(took)
    reached: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for test, path, numbits in _lines(data):
        reached[test.partition("::")[0]][test][str(Path(path).relative_to(tree.root))] = numbits
    for file in files:
        tests = reached[str(file)]
        names = {str(file), "tests/conftest.py", f"{file.parent}/conftest.py"}.union(*tests.values())
        recording: dict[str, Any] = {
            "format": FORMAT,
            "files": {name: digests.of(name) for name in sorted(names)},
            "tests": {
                test: {
                    "seconds": seconds.get(_name_in_report(test), 1.0),
                    "lines": {name: bits for name, bits in lines.items() if name.startswith(str(SOURCES))},
                }
                for test, lines in sorted(tests.items())
            },
        }
        _kept(file).write_text(json.dumps(recording), encoding="utf-8")


def _lines(data: Path) -> Iterable[tuple[str, str, str]]:
    """(test, path, the lines that it reaches as hexadecimal bits), of set-up and run together."""
    lines: dict[tuple[str, str], int] = defaultdict(int)
    with sqlite3.connect(data) as database:
        rows = database.execute(
            "SELECT f.path, c.context, l.numbits FROM line_bits l JOIN file f ON f.id = l.file_id"
            " JOIN context c ON c.id = l.context_id WHERE c.context <> ''"
        )
        for path, context, numbits in rows:
            lines[context.rpartition("|")[0], path] |= int.from_bytes(numbits, "little")
    for (test, path), bits in lines.items():
        yield test, path, bits.to_bytes((bits.bit_length() + 7) // 8, "little").hex()


def _name_in_report(test: str) -> str:
    file, _, name = test.partition("::")
    *classes, name = name.split("::") if "[" not in name else [name]
    return "::".join([".".join([file.removesuffix(".py").replace("/", "."), *classes]), name])


def _read(files: list[Path]) -> Reach:
    tests: dict[tuple[str, int], list[str]] = defaultdict(list)
    seconds: dict[str, float] = {}
    for file in files:
        for test, recorded in json.loads(_kept(file).read_text(encoding="utf-8"))["tests"].items():
            seconds[test] = recorded["seconds"]
            for name, bits in recorded["lines"].items():
                module = str(Path(name).relative_to(SOURCES))
                for line in numbits_to_nums(bytes.fromhex(bits)):
                    tests[module, line].append(test)
    for some in tests.values():
        some.sort(key=lambda test: (seconds[test], test))
    return Reach(tests, seconds)
