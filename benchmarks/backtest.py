"""Run the alert rules over histories in which it is known what went wrong: `make backtest`.

promtool evaluates the rule files of alerts/ themselves, with their `for` and their order, over the synthetic worlds of
`backtest_world` (spending: one that the rules were tuned on, two that they were not) and of `backtest_faults`. The
tables go into docs/reference/alerts.md. Takes half an hour and more; `--world` and `--days` shorten it for a look.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from backtest_faults import KINDS, World, faults
from backtest_faults import STEPS as FAULT_STEPS
from backtest_scores import FaultScore, Firing, Result, score, score_faults
from backtest_world import (
    DAYS,
    HELD_OUT,
    INCIDENTS,
    MODELS,
    PRODUCTS,
    STEP_MIN,
    STEPS,
    TUNED,
    Model,
    history,
    incidents,
)

REPOSITORY = Path(__file__).parents[1]
ALERTS = REPOSITORY / "alerts"
PAGE = REPOSITORY / "docs/reference/alerts.md"
RULE_FILES = ("recording.yml", "spending.yml", "service.yml", "metering.yml")
FAULTS = "faults"
OF_FAULTS = frozenset(alert for kind in KINDS.values() for alert in kind.alerts)
"""Alerts that are judged in the world of faults; all others are judged in those of spending."""
LOOKS_MIN = 10
NAMES = ("dept", "event", "provider", "model", "instance", "reason", "scope", "cause")
"""Labels by which two alerts of one rule are told apart."""
_GOT = re.compile(r"\{([^}]*)\} ([0-9.E+]+)")


class BacktestFailed(Exception):
    """promtool did not evaluate the rules; the message is what it said."""


class Counters:
    """Series by their text, each a list of its values."""

    def __init__(self) -> None:
        self.values: defaultdict[str, list[str]] = defaultdict(list)
        self._sums: defaultdict[str, float] = defaultdict(float)

    def grow(self, series: str, by: float) -> None:
        """Add to a counter."""
        self._sums[series] += by

    def note_all(self, row: Mapping[str, float | None]) -> None:
        """End a step, given every series; None where there is nothing to scrape."""
        for series, value in row.items():
            self.values[series].append("_" if value is None else f"{value:.9g}")

    def note(self, gauges: dict[str, float]) -> None:
        """End a step: note what every counter and gauge is now."""
        for series, value in (*self._sums.items(), *gauges.items()):
            self.values[series].append(f"{value:.9g}")


def series_of(steps: int, seed: int) -> Counters:
    """What a collector would have exported."""
    counters = Counters()
    for product in PRODUCTS:  # series exist at 0 before the first call
        for model in (product.model, product.swapped_to):
            _count(counters, product.dept, product.event, model, 0, (0, 0, 0), 0)
    for row, _ in zip(history(seed), range(steps), strict=False):
        prices = dict.fromkeys(MODELS, 1.0)
        for step in row:
            product = PRODUCTS[step.product]
            tokens = (step.input_tokens, step.cached_tokens, step.output_tokens)
            _count(counters, product.dept, product.event, step.model, step.calls, tokens, step.cost_usd)
            _price(counters, step.model, tokens, step.price_factor)
            cached = step.cached_tokens / max(1.0, step.cached_tokens + step.input_tokens)
            _serve(counters, step.model, step.calls, cached)
            prices[step.model] = max(prices[step.model], step.price_factor)
        counters.note(_prices(prices))
    return counters


def _count(
    counters: Counters, dept: str, event: str, model: object, calls: float, tokens: Iterable[float], cost: float
) -> None:
    labels = (
        f'instance="a",job="farebox",dept="{dept}",event="{event}",project="",task="",'
        f'provider="{model.provider}",model="{model.name}"'  # type: ignore[attr-defined]
    )
    counters.grow(f"farebox_requests_total{{{labels}}}", calls)
    counters.grow(f"farebox_cost_usd_total{{{labels}}}", cost)
    counters.grow(f"farebox_charged_credits_total{{{labels}}}", 8 * cost)
    for kind, count in zip(("input", "cache_read", "output"), tokens, strict=True):
        counters.grow(f'farebox_tokens_total{{{labels},kind="{kind}"}}', count)


def _price(counters: Counters, model: object, tokens: Iterable[float], factor: float) -> None:
    labels = (
        f'instance="a",job="farebox",tier="standard",'
        f'provider="{model.provider}",model="{model.name}"'  # type: ignore[attr-defined]
    )
    for kind, count in zip(("input", "cache_read", "output"), tokens, strict=True):
        counters.grow(f'farebox_priced_tokens_total{{{labels},kind="{kind}"}}', count)
        usd = count * getattr(model, kind) * factor / 1000
        counters.grow(f'farebox_token_cost_usd_total{{{labels},kind="{kind}"}}', usd)


def _serve(counters: Counters, model: object, calls: float, cached: float) -> None:
    labels = (
        f'instance="a",job="farebox",route="",region="",'
        f'provider="{model.provider}",model="{model.name}"'  # type: ignore[attr-defined]
    )
    counters.grow(f"farebox_call_seconds_count{{{labels}}}", calls)
    counters.grow(f'farebox_call_seconds_bucket{{{labels},le="20.0"}}', calls * 0.999)
    counters.grow(f"farebox_call_errors_total{{{labels}}}", calls * 0.002)
    counters.grow(f"farebox_cache_lookups_total{{{labels}}}", calls)
    counters.grow(f"farebox_cache_hits_total{{{labels}}}", calls * min(1.0, cached * 1.2))


def _prices(factors: dict[Model, float]) -> dict[str, float]:
    gauges = {'farebox_credit_usd{instance="a"}': 1.0}
    for model in MODELS:
        for kind in ("input", "cache_read", "output"):
            labels = f'instance="a",provider="{model.provider}",model="{model.name}",kind="{kind}"'
            gauges[f"farebox_list_price_usd_per_1k{{{labels}}}"] = getattr(model, kind) * factors[model]
    return gauges


def faults_of(steps: int) -> Counters:
    """The same of the world of faults."""
    counters = Counters()
    for row, _ in zip(World().steps(), range(steps), strict=False):
        counters.note_all(row)
    return counters


def write_test(directory: Path, counters: Counters, steps: int, judged: Callable[[str], bool]) -> Path:
    """A promtool test that expects nothing, so that it tells what there was: which alerts fire, every ten minutes."""
    for name in RULE_FILES:
        document = yaml.safe_load((ALERTS / name).read_text(encoding="utf-8"))
        for group in document["groups"]:
            group["rules"] = [rule for rule in group["rules"] if "alert" not in rule or judged(rule["alert"])]
        (directory / name).write_text(yaml.safe_dump(document), encoding="utf-8")
    path = directory / "backtest.yml"
    fires = 'ALERTS{alertstate="firing"}'
    span = f"[{LOOKS_MIN}m]"
    since = f"last_over_time(ALERTS_FOR_STATE{span}) and ignoring (alertstate) last_over_time({fires}{span})"
    with open(path, "w", encoding="utf-8") as test:
        test.write(f"rule_files: [{', '.join(RULE_FILES)}]\nevaluation_interval: {STEP_MIN}m\ntests:\n")
        test.write(f"- interval: {STEP_MIN}m\n  input_series:\n")
        for series, values in counters.values.items():
            test.write(f"  - series: '{series}'\n    values: '{' '.join(values)}'\n")
        test.write("  promql_expr_test:\n")
        for minute in range(LOOKS_MIN, steps * STEP_MIN, LOOKS_MIN):
            test.write(f"  - {{expr: '{since}', eval_time: {minute}m, exp_samples: []}}\n")
    return path


def rules() -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    return {
        rule["alert"]: rule
        for name in RULE_FILES
        for group in yaml.safe_load((ALERTS / name).read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def firings(told: str) -> list[Firing]:
    """What fired and when, each once, from what promtool says of its failed expectations."""
    known = rules()
    found: set[tuple[str, int, tuple[tuple[str, str], ...]]] = set()
    for labels, value in _GOT.findall(told):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        alert = pairs.pop("alertname", "")
        if alert not in known:
            continue
        wait = known[alert].get("for", "0m")
        active_min = float(value) / 60
        fired = active_min + int(wait.removesuffix("m").removesuffix("h")) * (60 if wait.endswith("h") else 1)
        names = tuple((k, v) for k, v in sorted(pairs.items()) if k in NAMES)
        found.add((alert, -int(-fired // STEP_MIN), names))
    return sorted(
        (Firing(alert, known[alert]["labels"]["severity"], step, dict(names)) for alert, step, names in found),
        key=lambda firing: firing.step,
    )


def table(result: Result) -> Iterator[str]:
    """The result in Markdown."""
    yield "| rule | severity | fired | about an incident | precision | incidents found | median minutes until then |\n"
    yield "| --- | --- | --- | --- | --- | --- | --- |\n"
    for line in result.scores:
        median = "" if line.median_min is None else f"{line.median_min:.0f}"
        figures = (line.firings, line.right, f"{line.right / line.firings:.2f}", line.found, median)
        yield f"| {line.alert} | {line.severity} | {' | '.join(map(str, figures))} |\n"
    yield "\n"
    yield f"All rules together: recall {result.recall:.3f} of {INCIDENTS} incidents, "
    yield f"{result.false_pages_a_week:.2f} false pages a week, a threefold spike found after "
    yield f"{result.threefold_min:.0f} minutes (median).\n"
    if result.missed:
        yield "Missed: " + ", ".join(f"{i.kind} of {PRODUCTS[i.product].event}" for i in result.missed) + ".\n"


def fault_table(scores: Sequence[FaultScore]) -> Iterator[str]:
    """How the alerts did on faults, in Markdown."""
    yield "| rule | severity | fired | about a fault | precision | faults found | median minutes until then |\n"
    yield "| --- | --- | --- | --- | --- | --- | --- |\n"
    for line in scores:
        precision = f"{line.right / line.firings:.2f}" if line.firings else ""
        median = "" if line.median_min is None else f"{line.median_min:.0f}"
        found = f"{line.found} of {line.meant}"
        figures = (line.firings, line.right, precision, found, median)
        yield f"| {line.alert} | {line.severity} | {' | '.join(map(str, figures))} |\n"
    yield "\n"


def run_products(seed: int, days: int) -> tuple[str, bool]:
    """A world of spending: its table, and whether the goals are reached."""
    steps = min(STEPS, days * 1440 // STEP_MIN)
    fired = evaluate(series_of(steps, seed), steps, lambda alert: alert not in OF_FAULTS)
    result = score(fired, [incident for incident in incidents(seed) if incident.end <= steps])
    reached = result.recall >= 0.95 and result.false_pages_a_week <= 1 and result.threefold_min < 15
    return "".join(table(result)), reached


def run_faults(days: int) -> tuple[str, bool]:
    """The world of faults: its table, and whether each was found without false alarms."""
    steps = min(FAULT_STEPS, days * 1440 // STEP_MIN)
    fired = evaluate(faults_of(steps), steps, lambda alert: alert in OF_FAULTS)
    severities = {name: rule["labels"]["severity"] for name, rule in rules().items() if name in OF_FAULTS}
    happened = [fault for fault in faults() if fault.end <= steps]
    scores, missed, false_pages = score_faults(fired, happened, severities)
    told = "".join(fault_table(scores))
    told += f"{len(happened) - len(missed)} of {len(happened)} faults were found, {false_pages} pages were false.\n"
    told += "".join(f"Missed: {fault.kind}.\n" for fault in missed)
    return told, not missed and not false_pages


def evaluate(counters: Counters, steps: int, judged: Callable[[str], bool]) -> list[Firing]:
    """What fires over a history. Raises BacktestFailed."""
    with tempfile.TemporaryDirectory() as directory:
        test = write_test(Path(directory), counters, steps, judged)
        told = subprocess.run(["promtool", "test", "rules", test], capture_output=True, text=True, check=False)
    if "FAILED" not in told.stdout + told.stderr:
        raise BacktestFailed(told.stdout + told.stderr)
    return firings(told.stdout + told.stderr)


def main() -> int:
    """Print the tables, and those of whole worlds write into the documentation; 1 unless the goals are reached."""
    worlds = [*map(str, (TUNED, *HELD_OUT)), FAULTS]
    parser = argparse.ArgumentParser(description="The alert rules over weeks in which it is known what went wrong.")
    parser.add_argument("--world", choices=worlds, action="append", help="one of them; all by default")
    parser.add_argument("--days", type=int, default=DAYS, help="fewer, for a look")
    chosen = parser.parse_args()
    if shutil.which("promtool") is None:
        print("make backtest: there is no promtool here: apt-get install prometheus", file=sys.stderr)
        return 1
    all_reached = True
    for world in chosen.world or worlds:
        started = time.monotonic()
        told, reached = run_faults(chosen.days) if world == FAULTS else run_products(int(world), chosen.days)
        print(f"World {world}, {time.monotonic() - started:.0f} s\n\n{told}", flush=True)
        all_reached &= reached
        if chosen.days == DAYS:
            text = PAGE.read_text(encoding="utf-8")
            begin, end = f"<!-- backtest {world} -->\n", f"<!-- /backtest {world} -->"
            before, _, rest = text.partition(begin)
            PAGE.write_text(before + begin + told + end + rest.partition(end)[2], encoding="utf-8")
    return 0 if all_reached else 1


if __name__ == "__main__":
    sys.exit(main())
