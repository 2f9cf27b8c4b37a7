"""Three weeks of a collector and what it meters, with known faults that do not concern spending.

The first week is quiet. Then come faults of every kind, two of each, and every day what must not page: a deploy that
resets what processes count, two minutes of errors, a handful of bad keys, a burst in the queue.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

STEP_MIN = 2
_HOUR = 60 // STEP_MIN
_DAY = 24 * _HOUR
QUIET = 8 * _DAY
STEPS = 21 * _DAY
INSTANCES = ("a", "b")
MODELS = ("gpt-4o", "claude-sonnet-4-5")
DEPT_OF = {"chat.reply": "support", "agent.run": "research"}
_CALLS_A_STEP = 120.0
_USD_A_CALL = 0.004


class Kind(NamedTuple):
    """A kind of fault: how long it lasts, and which alerts are about it."""

    minutes: int
    alerts: frozenset[str]
    grace_min: int = 60
    """How long after its end an alert may begin that is about it."""


def _kind(minutes: int, *alerts: str, grace_min: int = 60) -> Kind:
    return Kind(minutes, frozenset(f"Farebox{alert}" for alert in alerts), grace_min)


KINDS: Mapping[str, Kind] = {
    "a provider is down": _kind(60, "ErrorsFast", "ErrorsSlow"),
    "a provider fails now and then": _kind(720, "ErrorsSlow"),
    "a provider is slow": _kind(60, "SlowCallsFast", "SlowCallsSlow"),
    "a provider is slow now and then": _kind(720, "SlowCallsSlow"),
    "a collector is down": _kind(20, "TargetDown"),
    "nothing is charged": _kind(60, "MeteringStalled", "Unpriced"),
    "the storage is too slow": _kind(45, "IntakeFailing", "QueueFull", "CommitSlow"),
    "commits are slow": _kind(60, "CommitSlow"),
    "a wrong key is deployed": _kind(90, "KeysTurnedAway"),
    "passwords are guessed": _kind(60, "LoginsRefused"),
    "the application sends nothing": _kind(120, "TrafficGone"),
    "span ids are used again": _kind(60, "Conflicts"),
    "spans cannot be booked": _kind(30, "DeadLetters"),
    "a model has no price": _kind(180, "Unpriced"),
    "streams report no usage": _kind(180, "Unmetered"),
    "a tag is different each time": _kind(60, "LabelsFolded"),
    "the books are wrong": _kind(60, "AuditMismatch"),
    "no audit runs": _kind(36 * 60, "AuditStale"),
    "a department spends twenty times as much": _kind(
        120, "BudgetBurnFast", "BudgetBurnSlow", "BudgetForecastOver", grace_min=600
    ),
    "a department spends four times as much": _kind(1440, "BudgetBurnSlow", "BudgetForecastOver", grace_min=2880),
    "an event is sold below cost": _kind(120, "SoldBelowCost"),
    "top-ups fail": _kind(180, "WalletsRunningDry"),
    "history is priced anew by mistake": _kind(4, "CorrectionsLarge"),
    "payments are not those of the orders": _kind(30, "PaymentsRefused"),
    "cards are refused": _kind(60, "AutoTopupsFailed"),
    "an endpoint is gone": _kind(30, "WebhooksGivenUp"),
    "counts contradict each other": _kind(90, "CallsDoubtful"),
    "readings differ by much money": _kind(120, "MoneyAtStake"),
    "calls time out": _kind(120, "Exposure"),
    "a part of a call has no price": _kind(120, "PartsWithoutPrice"),
    "payments match no order": _kind(60, "PaymentsUnmatched"),
    "a fee has no exchange rate": _kind(180, "FeesSetAside"),
    "lots cannot be drawn up": _kind(60, "LotsSetAside"),
    "an action id never changes": _kind(120, "LongActions"),
    "a session of a coding agent runs away": _kind(60, "RunawaySession"),
    "an event costs three times as much for good": _kind(6 * 1440, "EventDoubled", grace_min=1440),
}
_FOR_GOOD = "an event costs three times as much for good"


class Fault(NamedTuple):
    """A fault of a kind between two steps."""

    kind: str
    start: int
    end: int

    def is_found_by(self, alert: str, step: int) -> bool:
        """Whether an alert that begins at a step is about this fault."""
        kind = KINDS[self.kind]
        return alert in kind.alerts and self.start <= step <= self.end + kind.grace_min // STEP_MIN


def faults(seed: int = 7) -> list[Fault]:
    """Two faults of each kind in an order that chance makes; the one that takes a week to notice only once."""
    chance = random.Random(seed)
    made = [Fault(_FOR_GOOD, 14 * _DAY, 20 * _DAY)]
    kinds = [name for name in KINDS if name != _FOR_GOOD]
    half = (STEPS - QUIET) // 2
    for begin in (QUIET, QUIET + half):
        for number, name in enumerate(chance.sample(kinds, len(kinds))):
            # By day, when there is traffic; several faults a day, of different kinds.
            start = begin + number * 6 // len(kinds) * _DAY + chance.randrange(8 * _HOUR, 20 * _HOUR)
            made.append(Fault(name, start, start + KINDS[name].minutes // STEP_MIN))
    return sorted(made, key=lambda fault: fault.start)


class World:
    """What two collectors export, step by step: counters by their text, and gauges."""

    def __init__(self, seed: int = 7) -> None:
        self._chance = random.Random(seed + 1)
        self._faults = faults(seed)
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._audited = 0.0

    def steps(self) -> Iterator[dict[str, float | None]]:
        """Every series with its value at each step; None while it cannot be scraped."""
        for step in range(STEPS):
            now = {fault.kind: fault for fault in self._faults if fault.start <= step < fault.end}
            yield self._step(step, now)

    def _step(self, step: int, now: Mapping[str, Fault]) -> dict[str, float | None]:
        gone = "the application sends nothing" in now
        day = 0.65 - 0.35 * math.cos((step / _HOUR % 24 - 3) / 24 * 2 * math.pi)
        calls = 0.0 if gone else _CALLS_A_STEP * day * self._chance.uniform(0.9, 1.1)
        self._spend(calls, now)
        self._serve(step, calls, now)
        for instance in INSTANCES:
            self._process(step, instance, calls / len(INSTANCES), now)
        shown: dict[str, float | None] = {**self._sums, **self._gauges(step, now)}
        if "a collector is down" in now:
            shown |= {series: None for series in shown if 'instance="b"' in series}
            shown['up{job="farebox",instance="b"}'] = 0.0
        return shown

    def _grow(self, series: str, by: float) -> None:
        self._sums[series] += by

    def _spend(self, calls: float, now: Mapping[str, Fault]) -> None:
        for event, dept in DEPT_OF.items():
            times = 1.0
            if dept == "support":
                times *= 20.0 if "a department spends twenty times as much" in now else 1.0
                times *= 4.0 if "a department spends four times as much" in now else 1.0
            else:
                times *= 3.0 if _FOR_GOOD in now else 1.0
            cost = calls * _USD_A_CALL * times * self._chance.uniform(0.95, 1.05)
            below = event == "agent.run" and "an event is sold below cost" in now
            names = f'instance="a",dept="{dept}",event="{event}",provider="p",model="m",project="",task=""'
            self._grow(f"farebox_requests_total{{{names}}}", calls)
            self._grow(f"farebox_cost_usd_total{{{names}}}", cost)
            self._grow(f"farebox_charged_credits_total{{{names}}}", cost * (0.6 if below else 1.4))
        moved = 200.0 if "history is priced anew by mistake" in now else 0.002
        self._grow('farebox_corrected_cost_usd_total{instance="a",cause="replay",direction="down"}', moved)

    def _serve(self, step: int, calls: float, now: Mapping[str, Fault]) -> None:
        for model in MODELS:
            failing, slow = 0.002, 0.001
            if model == MODELS[0]:
                failing = (
                    0.5 if "a provider is down" in now else 0.1 if "a provider fails now and then" in now else failing
                )
                slow = 0.5 if "a provider is slow" in now else 0.1 if "a provider is slow now and then" in now else slow
            if step % _DAY == 14 * _HOUR:  # two bad minutes a day
                failing = 0.4
            names = f'instance="a",provider="p",model="{model}",route="",region=""'
            self._grow(f"farebox_call_seconds_count{{{names}}}", calls)
            self._grow(f'farebox_call_seconds_bucket{{{names},le="20.0"}}', calls * (1 - slow))
            self._grow(f"farebox_call_errors_total{{{names}}}", calls * failing)

    def _process(self, step: int, instance: str, calls: float, now: Mapping[str, Fault]) -> None:
        """What one process counts itself; a deploy each night begins it anew."""
        own = f'instance="{instance}"'
        if step % _DAY == 3 * _HOUR:
            self._sums |= {series: 0.0 for series in self._sums if own in series and _is_of_the_process(series)}
        stalled, twice = "nothing is charged" in now, "span ids are used again" in now
        verdicts = {
            "charged": 0.0 if stalled else calls,
            "unpriced": calls if stalled else 0.0,
            "conflict": calls * (0.05 if twice else 0.0005),
            "not_billable": calls,
        }
        for verdict, count in verdicts.items():
            self._grow(f'farebox_spans_total{{{own},verdict="{verdict}"}}', count)
        choked = "the storage is too slow" in now
        for outcome, share in (("accepted", 0.6 if choked else 0.999), ("overloaded", 0.4 if choked else 0.001)):
            self._grow(
                f'farebox_export_requests_total{{{own},transport="grpc",outcome="{outcome}"}}', calls / 10 * share
            )
        slow = choked or "commits are slow" in now
        for bound, share in (
            ("0.25", 0.3 if slow else 0.999),
            ("1.0", 0.8 if slow else 1.0),
            ("5.0", 1.0),
            ("+Inf", 1.0),
        ):
            self._grow(f'farebox_commit_seconds_bucket{{{own},le="{bound}"}}', calls / 5 * share)
        knocks = 4.0 if "a wrong key is deployed" in now and instance == "a" else 0.0
        knocks += 5.0 if step % _DAY == 11 * _HOUR else 0.0  # a person tries a key by hand
        self._grow(f'farebox_turned_away_requests_total{{{own},port="grpc",reason="unknown"}}', knocks)
        guesses = 4.0 if "passwords are guessed" in now and instance == "a" else 0.0
        guesses += 4.0 if step % _DAY == 9 * _HOUR else 0.0  # a person mistypes
        self._grow(f'farebox_refused_logins_total{{{own},reason="wrong"}}', guesses)
        refused = 1.0 if "payments are not those of the orders" in now and instance == "b" else 0.0
        self._grow(f'farebox_payment_events_total{{{own},outcome="refused"}}', refused)
        self._grow(f'farebox_payment_events_total{{{own},outcome="booked"}}', calls / 1000)
        doubtful = 2.0 if "counts contradict each other" in now else 0.01
        self._grow(f'farebox_doubtful_calls_total{{{own},flag="total_does_not_add_up"}}', doubtful)
        self._grow(f"farebox_labels_folded_total{{{own}}}", 3.0 if "a tag is different each time" in now else 0.0)

    def _gauges(self, step: int, now: Mapping[str, Fault]) -> dict[str, float]:
        """What stands at a moment."""
        if "no audit runs" not in now and step % _DAY == 2 * _HOUR:
            self._audited = step * STEP_MIN * 60.0
        full = 0.95 if "the storage is too slow" in now else 0.9 if step % _DAY == 15 * _HOUR else 0.05
        waiting = {"nothing is charged": 50.0, "a model has no price": 10.0}
        gauges = {
            'farebox_audit_mismatches{instance="a",scope="recent"}': 1.0 if "the books are wrong" in now else 0.0,
            'farebox_audit_timestamp_seconds{instance="a",scope="full"}': self._audited,
            'farebox_dead_letters{instance="a"}': self._since(step, "spans cannot be booked"),
            'farebox_unsettled_records{instance="a",verdict="unmetered",provider="p",model="m"}': 4
            * self._since(step, "streams report no usage"),
            'farebox_unsettled_records{instance="a",verdict="unpriced",provider="p",model="n"}': max(
                (waiting[kind] for kind in waiting if kind in now), default=0.0
            ),
            'farebox_auto_topups{instance="a",state="failed"}': self._since(step, "cards are refused"),
            'farebox_webhook_messages{instance="a",state="given_up"}': self._since(step, "an endpoint is gone"),
            'farebox_wallets{instance="a"}': 400.0,
            'farebox_wallets_running_dry{instance="a",within="1d"}': 60.0 if "top-ups fail" in now else 9.0,
            'farebox_credit_usd{instance="a"}': 1.0,
            'farebox_budget_usd{instance="a",dept="support"}': 8_000.0,
            'farebox_budget_usd{instance="a",dept="research"}': 20_000.0,
        }
        gauges |= self._set_aside(step, now) | _agents(now)
        for instance in INSTANCES:
            gauges[f'farebox_queue_bytes{{instance="{instance}"}}'] = full * 128e6
            gauges[f'farebox_queue_limit_bytes{{instance="{instance}"}}'] = 128e6
            gauges[f'up{{job="farebox",instance="{instance}"}}'] = 1.0
        return gauges

    def _set_aside(self, step: int, now: Mapping[str, Fault]) -> dict[str, float]:
        """What waits for a decision, in US dollars or in number; a little of it is there on every day."""
        return {
            'farebox_at_stake_usd{instance="a",flag="exposed"}': 0.5 * self._since(step, "calls time out"),
            'farebox_at_stake_usd{instance="a",flag="total_does_not_add_up"}': 0.5
            * self._since(step, "readings differ by much money"),
            'farebox_at_stake_records{instance="a",flag="parts_without_price"}': 5.0
            * ("a part of a call has no price" in now),
            'farebox_payments_unmatched{instance="a",kind="refund"}': self._since(step, "payments match no order"),
            'farebox_payments_set_aside{instance="a",reason="no_exchange_rate"}': 1.0
            * ("a fee has no exchange rate" in now),
            'farebox_lots_set_aside{instance="a"}': 1.0 * ("lots cannot be drawn up" in now),
            'farebox_long_actions{instance="a"}': 1.0 * ("an action id never changes" in now),
        }

    def _since(self, step: int, kind: str) -> float:
        """How many steps there were of a kind of fault so far."""
        return float(sum(max(0, min(step, fault.end) - fault.start) for fault in self._faults if fault.kind == kind))


def _agents(now: Mapping[str, Fault]) -> dict[str, float]:
    """What sessions of a coding agent cost in the last hour; each collector knows the same."""
    costs = {"costliest": 40.0 if "a session of a coding agent runs away" in now else 9.0, "median": 2.0}
    return {
        f'farebox_agent_session_usd{{instance="{instance}",tool="claude_code",which="{which}"}}': usd
        for instance in INSTANCES
        for which, usd in costs.items()
    }


def _is_of_the_process(series: str) -> bool:
    return series.startswith(
        (
            "farebox_spans",
            "farebox_export",
            "farebox_commit",
            "farebox_turned_away",
            "farebox_refused_logins",
            "farebox_labels_folded",
            "farebox_payment_events",
            "farebox_doubtful_calls",
        )
    )
