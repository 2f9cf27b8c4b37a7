"""Changes the code of money and access, one place at a time, and asks the tests whether they notice.

python tests/mutation/run.py [--seed 1] [--sample 60] [--modules PART…] [--target 0.95]

A first run records which test reaches which line, and how long it takes. Each mutation then meets the tests that reach
its line, the fastest first, until one fails. Each worker has a copy of the tree: the checkout is not touched.
Ends with 0 when the share of noticed mutations reaches the target. A mutation that no test reaches counts as unnoticed.
Mutations that change nothing a test could see are listed in `equivalent.txt`, with the reason, and left out.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
WORK = REPOSITORY / ".bench" / "mutate"
SOURCES = Path("collector/farebox_collector")
TESTS = ("dialects", "ledger", "money", "payments", "pipeline", "pricing", "surfaces", "wallets")
"""Packages of tests that may notice. Tests of faults and crashes take too long, and begin processes of their own."""
TOO_SLOW_S = 20.0
"""A test that takes longer is left out."""
BUDGET_S = 60.0
"""The tests that one mutation meets take no longer than this together, by the times of the first run."""
MODULES = (
    "farebox_collector.credentials",
    "farebox_collector.keyring",
    "farebox_collector.minor_units",
    "farebox_collector.money",
    "farebox_collector.units",
    "farebox_collector.ledger.access",
    "farebox_collector.ledger.actions",
    "farebox_collector.ledger.auto_topups",
    "farebox_collector.ledger.call_claims",
    "farebox_collector.ledger.corrections",
    "farebox_collector.ledger.hold_ends",
    "farebox_collector.ledger.holds",
    "farebox_collector.ledger.journal",
    "farebox_collector.ledger.keys",
    "farebox_collector.ledger.legs",
    "farebox_collector.ledger.limits",
    "farebox_collector.ledger.lot",
    "farebox_collector.ledger.lots",
    "farebox_collector.ledger.money_days",
    "farebox_collector.ledger.money_reports",
    "farebox_collector.ledger.movements",
    "farebox_collector.ledger.one_charge",
    "farebox_collector.ledger.packs",
    "farebox_collector.ledger.payment_fees",
    "farebox_collector.ledger.payment_returns",
    "farebox_collector.ledger.payments",
    "farebox_collector.ledger.policies",
    "farebox_collector.ledger.quick_holds",
    "farebox_collector.ledger.retirement",
    "farebox_collector.ledger.returned_credits",
    "farebox_collector.ledger.spending",
    "farebox_collector.ledger.topups",
    "farebox_collector.ledger.totals",
    "farebox_collector.ledger.unmatched",
    "farebox_collector.ledger.unsettled",
    "farebox_collector.ledger.usage",
    "farebox_collector.ledger.wallets",
    "farebox_collector.ledger.witnesses",
    "farebox_collector.pricing",
    "farebox_collector.surfaces.callers",
)
"""What is mutated: modules, and packages with all that is in them."""
NOT_MUTATED = ("pricing/bundled.py",)


class Mutation(NamedTuple):
    """One change of one module."""

    module: Path
    operator: str
    occurrence: int
    line: int

    def __str__(self) -> str:
        """How a person finds it."""
        return f"{self.module.relative_to(SOURCES)}:{self.line} {self.operator} {self.occurrence}"


class Reach(NamedTuple):
    """Which tests reach which lines, and how long each takes."""

    tests: dict[tuple[str, int], list[str]]
    """(module, line) → tests, the fastest first"""
    seconds: dict[str, float]


class Worker:
    """A copy of the tree."""

    def __init__(self, number: int) -> None:
        self.tree = WORK / f"tree-{number}"
        shutil.rmtree(self.tree, ignore_errors=True)
        self.tree.mkdir(parents=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            **{"cwd": REPOSITORY, "check": True, "capture_output": True},
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            if (REPOSITORY / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, self.tree / name)
        (self.tree / ".venv").symlink_to(REPOSITORY / ".venv")

    def pytest(self, *arguments: str, timeout: float) -> int | None:
        """Run tests over the copy; returns pytest's status, or None where it took too long."""
        paths = os.pathsep.join(str(self.tree / part) for part in ("collector", "instrumentation", "tests"))
        command = [str(REPOSITORY / ".venv/bin/python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("CI", None)
        with subprocess.Popen(
            command, cwd=self.tree, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                return process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                return None


def main() -> None:
    """Sample, run, and say what was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="which mutations are drawn")
    parser.add_argument("--sample", type=int, default=60, help="how many")
    parser.add_argument("--modules", nargs="*", default=[], help="only modules with one of these in their name")
    parser.add_argument("--target", type=float, default=0.95, help="the share that must be noticed")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    python = _environment()
    modules = [module for module in _modules() if not options.modules or any(m in str(module) for m in options.modules)]
    workers = [Worker(number) for number in range(options.workers)]
    reach = _reach(workers[0])
    every = [mutation for module in modules for mutation in _mutations(python, module)]
    equivalent = _equivalent()
    drawn = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    started = time.monotonic()
    outcomes = _try_all(python, workers, drawn, reach)
    unnoticed = [(m, diff) for m, (noticed, diff) in outcomes.items() if not noticed and diff not in equivalent]
    judged = [m for m, (noticed, diff) in outcomes.items() if noticed or diff not in equivalent]
    for mutation, diff in sorted(unnoticed):
        print(f"\nUNNOTICED {mutation}\n{diff}")
    _table(judged, {mutation for mutation, _ in unnoticed})
    share = 1 - len(unnoticed) / max(1, len(judged))
    print(
        f"\nseed {options.seed}: {len(judged) - len(unnoticed)} of {len(judged)} noticed ({share:.1%}),"
        f" {len(outcomes) - len(judged)} equivalent, of {len(every)} in {len(modules)} modules,"
        f" in {time.monotonic() - started:.0f} s"
    )
    sys.exit(share < options.target)


def _environment() -> Path:
    """The Python with cosmic-ray, made the first time."""
    requirements = HERE / "requirements.txt"
    home = WORK / f"environment-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if not (home / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r"]
        subprocess.run([*install, str(requirements)], check=True)
        (home / "made").touch()
    return python


def _modules() -> list[Path]:
    found: list[Path] = []
    for name in MODULES:
        path = SOURCES.parent / Path(*name.split("."))
        if path.with_suffix(".py").exists():
            found.append(path.with_suffix(".py"))
        else:
            found += sorted(p for p in path.glob("*.py") if not str(p).endswith(NOT_MUTATED))
    return found


def _mutations(python: Path, module: Path) -> list[Mutation]:
    listed = subprocess.run(
        [str(python), str(HERE / "mutations.py"), str(module)], cwd=REPOSITORY, check=True, capture_output=True
    )
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    return [Mutation(module, row["operator"], row["occurrence"], row["line"]) for row in rows]


def _reach(worker: Worker) -> Reach:
    """Run all tests once with coverage; remembered until a file changes."""
    parts = ("collector", "instrumentation", *(f"tests/{name}" for name in TESTS))
    files = sorted(path for part in parts for path in (worker.tree / part).rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    kept = WORK / f"reach-{digest}.sqlite"
    times = WORK / f"reach-{digest}.json"
    if not (kept.exists() and times.exists()):
        print("finding out which test reaches which line: some minutes", flush=True)
        report = worker.tree / "times.xml"
        chosen = [f"tests/{name}" for name in TESTS]
        worker.pytest(
            *chosen, "-n", "2", "--cov=farebox_collector", "--cov-context=test", "--cov-report=",
            f"--junitxml={report}", timeout=3600,
        )  # fmt: skip
        seconds: dict[str, float] = {}
        pattern = re.compile(r'<testcase classname="([^"]*)" name="([^"]*)" time="([^"]*)"')
        for where, name, took in pattern.findall(report.read_text(encoding="utf-8")):
            seconds[f"{where}::{name}"] = float(took)
        times.write_text(json.dumps(seconds), encoding="utf-8")
        shutil.copy(worker.tree / ".coverage", kept)
    return _read_reach(kept, json.loads(times.read_text(encoding="utf-8")))


def _read_reach(kept: Path, times: dict[str, float]) -> Reach:
    from coverage.numbits import numbits_to_nums

    tests: dict[tuple[str, int], list[str]] = defaultdict(list)
    with sqlite3.connect(kept) as data:
        rows = data.execute(
            "SELECT f.path, c.context, l.numbits FROM line_bits l JOIN file f ON f.id = l.file_id"
            " JOIN context c ON c.id = l.context_id WHERE c.context <> ''"
        )
        for path, context, numbits in rows:
            test = context.partition("|")[0]
            _, found, module = path.rpartition(f"/{SOURCES.name}/")
            if found:
                for line in numbits_to_nums(numbits):
                    tests[module, line].append(test)
    seconds: dict[str, float] = {}
    for test in {test for some in tests.values() for test in some}:
        file, _, name = test.partition("::")
        seconds[test] = times.get(f"{file.removesuffix('.py').replace('/', '.')}::{name.replace('::', '.')}", 1.0)
    for some in tests.values():
        some[:] = sorted(set(some), key=lambda test: (seconds[test], test))
    return Reach(tests, seconds)


def _try_all(
    python: Path, workers: Sequence[Worker], drawn: Sequence[Mutation], reach: Reach
) -> dict[Mutation, tuple[bool, str]]:
    """Whether each mutation was noticed, and its difference."""
    free: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def one(mutation: Mutation) -> tuple[bool, str]:
        worker = free.get()
        try:
            return _try_one(python, worker, mutation, reach)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        return dict(zip(drawn, pool.map(one, drawn), strict=True))


def _try_one(python: Path, worker: Worker, mutation: Mutation, reach: Reach) -> tuple[bool, str]:
    path = worker.tree / mutation.module
    before = path.read_text(encoding="utf-8")
    made = subprocess.run(
        [str(python), str(HERE / "mutations.py"), str(path), mutation.operator, str(mutation.occurrence)],
        **{"check": True, "capture_output": True, "text": True},
    ).stdout
    diff = "\n".join(
        line for line in unified_diff(before.splitlines(), made.splitlines(), n=0, lineterm="") if line[:2] != "@@"
    )
    diff = f"{mutation.module.relative_to(SOURCES)}\n" + "\n".join(diff.splitlines()[2:])
    chosen: list[str] = []
    left = BUDGET_S
    for test in reach.tests.get((str(mutation.module.relative_to(SOURCES)), mutation.line), ()):
        left -= reach.seconds[test]
        if left < 0 or reach.seconds[test] > TOO_SLOW_S:
            break
        chosen.append(test)
    if not chosen:
        return False, diff
    arguments = worker.tree / "chosen.txt"
    arguments.write_text("\n".join(chosen), encoding="utf-8")
    path.write_text(made, encoding="utf-8")
    try:
        status = worker.pytest("-x", f"@{arguments}", timeout=4 * BUDGET_S)
    finally:
        path.write_text(before, encoding="utf-8")
    return status != 0, diff


def _equivalent() -> set[str]:
    """Differences that no test can see: paragraphs of `equivalent.txt`, each ending with its reason behind `#`."""
    kept = HERE / "equivalent.txt"
    if not kept.exists():
        return set()
    paragraphs = kept.read_text(encoding="utf-8").split("\n\n")
    return {"\n".join(line for line in part.splitlines() if not line.startswith("#")).strip() for part in paragraphs}


def _table(judged: Sequence[Mutation], unnoticed: set[Mutation]) -> None:
    tried = Counter(mutation.module for mutation in judged)
    missed = Counter(mutation.module for mutation in unnoticed)
    print("\n| module | tried | unnoticed |\n| --- | --- | --- |")
    for module, number in sorted(tried.items()):
        print(f"| {module.relative_to(SOURCES)} | {number} | {missed[module] or ''} |")


if __name__ == "__main__":
    main()
