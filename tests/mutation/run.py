"""Changes the code of money and access, one place at a time, and asks the tests whether they notice.

python tests/mutation/run.py [--seed 1] [--sample 60] [--modules PART…] [--target 0.95]

Each mutation meets the tests that reach its line, the fastest first, until one fails. Which test reaches which line is
recorded first: all tests in a first run, later only tests that changed, or whose sources did (`reach.py`).
Each worker has a copy of the tree: the checkout is not touched. Tests that also fail without a change do not count.
Ends with 0 when the share of noticed mutations reaches the target. A mutation that no test reaches counts as unnoticed.
Mutations that change nothing a test could see are listed in `equivalent.txt`, with the reason, and left out.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from reach import Reach, reach_of
from trees import REPOSITORY, SOURCES, WORK, Tree

HERE = Path(__file__).parent
TOO_SLOW_S = 20.0
"""A test that takes longer is left out."""
BUDGET_S = 60.0
"""The tests that one mutation meets take no longer than this together, by the times of the first run."""
NOTHING_RUN = 5
"""pytest's status when it found no tests."""
MODULES = (
    "farebox_collector.model.credentials",
    "farebox_collector.cache.keyring",
    "farebox_collector.model.minor_units",
    "farebox_collector.model.money",
    "farebox_collector.model.units",
    "farebox_collector.ledger.access",
    "farebox_collector.ledger.usage.action_pricing",
    "farebox_collector.ledger.payments.auto_topups",
    "farebox_collector.ledger.usage.claims",
    "farebox_collector.ledger.usage.corrections",
    "farebox_collector.ledger.credits.hold_release",
    "farebox_collector.ledger.credits.holds",
    "farebox_collector.ledger.journal.journal",
    "farebox_collector.ledger.access.keys",
    "farebox_collector.ledger.credits.late_revenue",
    "farebox_collector.ledger.journal.legs",
    "farebox_collector.ledger.credits.limits",
    "farebox_collector.ledger.credits.lot",
    "farebox_collector.ledger.audit.lot_times",
    "farebox_collector.ledger.credits.lot_rows",
    "farebox_collector.ledger.credits.lots",
    "farebox_collector.ledger.journal.money_rollups",
    "farebox_collector.ledger.reports.money_reports",
    "farebox_collector.ledger.credits.movements",
    "farebox_collector.ledger.usage.deduplication",
    "farebox_collector.ledger.payments.packs",
    "farebox_collector.ledger.payments.payment_fees",
    "farebox_collector.ledger.payments.refunds",
    "farebox_collector.ledger.payments.provider_events",
    "farebox_collector.ledger.credits.policies",
    "farebox_collector.ledger.credits.hold_fast_path",
    "farebox_collector.ledger.usage.retention",
    "farebox_collector.ledger.credits.returned_credits",
    "farebox_collector.ledger.credits.spending",
    "farebox_collector.ledger.payments.topups",
    "farebox_collector.ledger.usage.running_totals",
    "farebox_collector.ledger.payments.unmatched",
    "farebox_collector.ledger.usage.settlement",
    "farebox_collector.ledger.usage.appending",
    "farebox_collector.ledger.usage.batch_sums",
    "farebox_collector.ledger.usage.booking",
    "farebox_collector.ledger.usage.folding",
    "farebox_collector.ledger.credits.deposits",
    "farebox_collector.ledger.usage.span_index",
    "farebox_collector.ledger.usage.span_matching",
    "farebox_collector.pricing",
    "farebox_collector.surfaces.api.callers",
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


class Outcome(NamedTuple):
    """What became of a mutation."""

    noticed: bool
    diff: str
    by: list[str]
    """The test that failed"""


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
    trees = [Tree(number) for number in range(options.workers)]
    reach = reach_of(trees[0])
    every = [mutation for module in modules for mutation in _mutations(python, module)]
    equivalent = _equivalent()
    drawn = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    started = time.monotonic()
    outcomes = _try_all(python, trees, drawn, reach)
    unreliable = _failing_unchanged(trees[0], sorted({test for outcome in outcomes.values() for test in outcome.by}))
    outcomes = {
        mutation: outcome._replace(noticed=outcome.noticed and not unreliable.intersection(outcome.by))
        for mutation, outcome in outcomes.items()
    }
    unnoticed = {m: o.diff for m, o in outcomes.items() if not o.noticed and o.diff not in equivalent}
    judged = [m for m, o in outcomes.items() if o.noticed or o.diff not in equivalent]
    for mutation, diff in sorted(unnoticed.items()):
        print(f"\nUNNOTICED {mutation}\n{diff}")
    for test in sorted(unreliable):
        print(f"\nFAILS UNCHANGED {test}")
    _table(judged, set(unnoticed))
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


def _try_all(python: Path, trees: Sequence[Tree], drawn: Sequence[Mutation], reach: Reach) -> dict[Mutation, Outcome]:
    free: SimpleQueue[Tree] = SimpleQueue()
    for tree in trees:
        free.put(tree)

    def one(mutation: Mutation) -> Outcome:
        tree = free.get()
        try:
            outcome = _try_one(python, tree, mutation, reach)
        finally:
            free.put(tree)
        print(f"{'noticed' if outcome.noticed else 'UNNOTICED'} {mutation}", flush=True)
        return outcome

    with ThreadPoolExecutor(len(trees)) as pool:
        return dict(zip(drawn, pool.map(one, drawn), strict=True))


def _try_one(python: Path, tree: Tree, mutation: Mutation, reach: Reach) -> Outcome:
    path = tree.root / mutation.module
    before = path.read_text(encoding="utf-8")
    made = subprocess.run(
        [str(python), str(HERE / "mutations.py"), str(path), mutation.operator, str(mutation.occurrence)],
        **{"check": True, "capture_output": True, "text": True},
    ).stdout
    diff = "\n".join(
        line for line in unified_diff(before.splitlines(), made.splitlines(), n=0, lineterm="") if line[:2] != "@@"
    )
    diff = f"{mutation.module.relative_to(SOURCES)}\n" + "\n".join(diff.splitlines()[2:])
    path.write_text(made, encoding="utf-8")
    try:
        noticed, by = noticed_by(tree, reach, mutation.module, mutation.line)
    finally:
        path.write_text(before, encoding="utf-8")
    return Outcome(noticed, diff, by)


def noticed_by(tree: Tree, reach: Reach, module: Path, line: int) -> tuple[bool, list[str]]:
    """Run the tests that reach a line of the changed tree; returns whether one failed, and which."""
    chosen: list[str] = []
    left = BUDGET_S
    for test in reach.tests.get((str(module.relative_to(SOURCES)), line), ()):
        left -= reach.seconds[test]
        if left < 0 or reach.seconds[test] > TOO_SLOW_S:
            break
        chosen.append(test)
    if not chosen:
        return False, []
    arguments = tree.root / "chosen.txt"
    arguments.write_text("\n".join(chosen), encoding="utf-8")
    status = tree.pytest("-x", f"@{arguments}", timeout=4 * BUDGET_S)
    return status not in {0, NOTHING_RUN}, tree.failed()


def _failing_unchanged(tree: Tree, tests: Sequence[str]) -> set[str]:
    """Which tests fail without any change: what they noticed does not count."""
    if not tests:
        return set()
    arguments = tree.root / "chosen.txt"
    arguments.write_text("\n".join(tests), encoding="utf-8")
    status = tree.pytest(f"@{arguments}", timeout=600.0)
    return set() if status == 0 else set(tree.failed()) or set(tests)


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
