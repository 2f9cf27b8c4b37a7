"""What came of alerts: which incidents were found and how soon, and which alerts were about nothing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backtest_faults import KINDS as FAULT_KINDS
from backtest_faults import QUIET, Fault
from backtest_world import PRODUCTS, QUIET_DAYS, STEP_MIN, STEPS, Incident

_DAY = 24 * 60 // STEP_MIN
GRACE = 60 // STEP_MIN
"""An alert that begins up to an hour after an incident's end is still about it: windows of an hour look back."""


class Firing(NamedTuple):
    """An alert that fired at a step."""

    alert: str
    severity: str
    step: int
    labels: Mapping[str, str]


class Score(NamedTuple):
    """How one rule did: its firings, how many were about an incident, incidents it found, minutes until then."""

    alert: str
    severity: str
    firings: int
    right: int
    found: int
    median_min: float | None


class Result(NamedTuple):
    """How all rules did together."""

    scores: list[Score]
    recall: float
    false_pages_a_week: float
    threefold_min: float
    missed: list[Incident]


class FaultScore(NamedTuple):
    """How one rule did on faults: its firings, how many were about one, and how many that it is meant for it found."""

    alert: str
    severity: str
    firings: int
    right: int
    found: int
    meant: int
    median_min: float | None


def is_about(firing: Firing, incident: Incident) -> bool:
    """Whether an alert names the product, or the model, of an incident that was going on."""
    product = PRODUCTS[incident.product]
    if not incident.start <= firing.step <= incident.end + GRACE:
        return False
    names = {
        "dept": {product.dept},
        "event": {product.event},
        "provider": {product.model.provider, product.swapped_to.provider},
        "model": {product.model.name, product.swapped_to.name},
    }
    named = [label for label in names if label in firing.labels]
    return bool(named) and all(firing.labels[label] in names[label] for label in named)


def score(firings: Sequence[Firing], incidents: Sequence[Incident]) -> Result:
    """Compare what fired since the quiet days with what happened."""
    counted = [firing for firing in firings if firing.step >= QUIET_DAYS * _DAY]
    first: dict[Incident, int] = {}
    by_rule: dict[str, list[Firing]] = {}
    for firing in counted:
        by_rule.setdefault(firing.alert, []).append(firing)
        for incident in incidents:
            if is_about(firing, incident):
                first[incident] = min(firing.step, first.get(incident, firing.step))
    scores = [_score(alert, fired, incidents) for alert, fired in sorted(by_rule.items())]
    pages = [firing for firing in counted if firing.severity == "critical"]
    false_pages = [page for page in pages if not any(is_about(page, incident) for incident in incidents)]
    threefold = [(first[i] - i.start) * STEP_MIN for i in incidents if i.kind == "threefold" and i in first]
    weeks = (STEPS - QUIET_DAYS * _DAY) / _DAY / 7
    return Result(
        scores,
        len(first) / max(1, len(incidents)),
        len(false_pages) / weeks,
        statistics.median(threefold) if threefold else float("inf"),
        [incident for incident in incidents if incident not in first],
    )


def _score(alert: str, fired: Sequence[Firing], incidents: Sequence[Incident]) -> Score:
    right = [firing for firing in fired if any(is_about(firing, incident) for incident in incidents)]
    delays = []
    for incident in incidents:
        steps = [firing.step for firing in right if is_about(firing, incident)]
        if steps:
            delays.append((min(steps) - incident.start) * STEP_MIN)
    median = statistics.median(delays) if delays else None
    return Score(alert, fired[0].severity, len(fired), len(right), len(delays), median)


def score_faults(
    firings: Sequence[Firing], happened: Sequence[Fault], severities: Mapping[str, str]
) -> tuple[list[FaultScore], list[Fault], int]:
    """How each rule did, the faults that no rule found, and how many pages were about nothing, since the quiet days."""
    counted = [firing for firing in firings if firing.step >= QUIET]
    right = [(firing, [f for f in happened if f.is_found_by(firing.alert, firing.step)]) for firing in counted]
    scores = []
    for alert, severity in sorted(severities.items()):
        own = [(firing.step, about) for firing, about in right if firing.alert == alert]
        first: dict[Fault, int] = {}
        for step, about in own:
            for fault in about:
                first[fault] = min(step, first.get(fault, step))
        delays = [(step - fault.start) * STEP_MIN for fault, step in first.items()]
        median = statistics.median(delays) if delays else None
        meant = sum(alert in FAULT_KINDS[fault.kind].alerts for fault in happened)
        about_some = sum(bool(about) for _, about in own)
        scores.append(FaultScore(alert, severity, len(own), about_some, len(first), meant, median))
    found = {fault for _, about in right for fault in about}
    false_pages = sum(not about and firing.severity == "critical" for firing, about in right)
    return scores, [fault for fault in happened if fault not in found], false_pages
