"""The backtest's own arithmetic: its world is the same each time, and its scores count what they say."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import itertools

from backtest import OF_FAULTS, firings, rules
from backtest_faults import KINDS as FAULT_KINDS
from backtest_faults import World, faults
from backtest_scores import GRACE, Firing, is_about, score, score_faults
from backtest_world import (
    INCIDENTS,
    KINDS,
    PRODUCTS,
    QUIET_DAYS,
    STEP_MIN,
    STEPS,
    history,
    incidents,
    launches,
)

DAY = 24 * 60 // STEP_MIN


def test_the_incidents_are_of_every_kind_and_do_not_touch_each_other() -> None:
    made = incidents()
    assert made == incidents()
    assert len(made) == INCIDENTS
    assert {incident.kind for incident in made} == set(KINDS)
    for number, _ in enumerate(PRODUCTS):
        own = sorted((i.start, i.end) for i in made if i.product == number)
        assert all(end < start for (_, end), (start, _) in itertools.pairwise(own))
        for launch in launches():
            if launch.product == number:
                assert not [start for start, _ in own if launch.start <= start < launch.start + launch.ramp]
    assert all(QUIET_DAYS * DAY <= i.start < i.end < STEPS for i in made)


def test_a_threefold_spike_is_one() -> None:
    spike = next(incident for incident in incidents() if incident.kind == "threefold")
    wanted = range(spike.start - 30, spike.start + 30)
    costs = [row[spike.product].cost_usd for step, row in enumerate(history()) if step in wanted]
    assert 2.5 < sum(costs[30:]) / sum(costs[:30]) < 3.5


def test_scores_count_what_they_say() -> None:
    made = incidents()
    spike = next(incident for incident in made if incident.kind == "threefold")
    product = PRODUCTS[spike.product]
    named = {"dept": product.dept, "event": product.event}
    right = Firing("FareboxCostSpike", "critical", spike.start + 5, named)
    late = Firing("FareboxCostAboveSeason", "warning", spike.end + GRACE, named)
    wrong = Firing("FareboxCostSpike", "critical", spike.start + 5, {"dept": "missing", "event": product.event})
    early = Firing("FareboxCostSpike", "critical", 5, named)
    assert is_about(right, spike)
    assert is_about(late, spike)
    assert not is_about(wrong, spike)
    assert not is_about(Firing("FareboxWalletsRunningDry", "warning", spike.start, {}), spike)
    result = score([early, right, late, wrong], made)
    assert result.recall == 1 / INCIDENTS
    assert result.threefold_min == 5 * STEP_MIN
    assert result.false_pages_a_week == 1 / ((STEPS - QUIET_DAYS * DAY) / DAY / 7), "the quiet days do not count"
    assert [(s.alert, s.firings, s.right, s.found) for s in result.scores] == [
        ("FareboxCostAboveSeason", 1, 1, 1),
        ("FareboxCostSpike", 2, 1, 1),
    ]


def test_what_promtool_says_is_read_as_firings_at_their_moment() -> None:
    told = """
        exp: nil
        got: {alertname="FareboxCostSpike", dept="a", event="e", severity="critical", team="finance"} 1.2E+03,
             {alertname="FareboxCostSpike", dept="a", event="e", severity="critical", team="finance"} 1.2E+03
    """
    (firing,) = firings(told)
    assert firing == Firing("FareboxCostSpike", "critical", (20 + 2) // STEP_MIN, {"dept": "a", "event": "e"})


def test_every_alert_is_judged_by_some_world() -> None:
    of_spending = {
        "FareboxCacheCollapse",
        "FareboxCostAboveSeason",
        "FareboxCostOutlierRobust",
        "FareboxCostOutlierRolling",
        "FareboxCostPerRequestUp",
        "FareboxCostSpike",
        "FareboxPriceDrift",
    }
    assert OF_FAULTS.isdisjoint(of_spending)
    assert set(rules()) - {"Watchdog"} == OF_FAULTS | of_spending


def test_faults_are_scored_by_the_alerts_that_are_meant_for_them() -> None:
    happened = faults()
    assert happened == faults()
    assert {fault.kind for fault in happened} == set(FAULT_KINDS)
    down = next(fault for fault in happened if fault.kind == "a collector is down")
    found = Firing("FareboxTargetDown", "critical", down.start + 1, {"instance": "b"})
    stray = Firing("FareboxTargetDown", "critical", down.start - 1, {"instance": "b"})
    other = Firing("FareboxErrorsFast", "critical", down.start + 1, {})
    severities = {"FareboxTargetDown": "critical", "FareboxErrorsFast": "critical"}
    (errors, target), missed, false_pages = score_faults([found, stray, other], [down], severities)
    assert (target.firings, target.right, target.found, target.meant, target.median_min) == (2, 1, 1, 1, STEP_MIN)
    assert (errors.firings, errors.right, errors.found, errors.meant) == (1, 0, 0, 0)
    assert (missed, false_pages) == ([], 2)


def test_what_is_down_cannot_be_scraped() -> None:
    happened = faults()
    down = next(fault for fault in happened if fault.kind == "a collector is down")
    row = next(row for step, row in enumerate(World().steps()) if step == down.start)
    own = {series: value for series, value in row.items() if 'instance="b"' in series}
    assert own.pop('up{job="farebox",instance="b"}') == 0
    assert own
    assert set(own.values()) == {None}
    assert all(value is not None for series, value in row.items() if 'instance="b"' not in series)
