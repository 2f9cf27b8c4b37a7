"""Charge rules: what an event costs its wallet in credits, given what the call cost us."""

from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction

from farebox_collector.money import round_half_even
from farebox_collector.records import ChargeRule

EVERY_OTHER_EVENT = "*"


class RuleBook:
    """The charge rules of one tenant. Read-only; safe to share between threads."""

    def __init__(self, rules: Iterable[ChargeRule]) -> None:
        by_event: defaultdict[str, list[ChargeRule]] = defaultdict(list)
        for rule in rules:
            by_event[rule.event].append(rule)
        self._by_event = {
            event: sorted(versions, key=lambda rule: rule.valid_from_ns, reverse=True)
            for event, versions in by_event.items()
        }
        self._factors = {
            rule.id: Fraction(rule.multiplier) / Fraction(rule.usd_per_credit)
            for versions in self._by_event.values()
            for rule in versions
        }

    def rule_for(self, event: str, at_ns: int) -> ChargeRule | None:
        """The rule of an event at a moment, else that of `*`; None if neither has one then."""
        for name in (event, EVERY_OTHER_EVENT):
            for rule in self._by_event.get(name, ()):
                if rule.valid_from_ns <= at_ns and (rule.valid_to_ns is None or at_ns < rule.valid_to_ns):
                    return rule
        return None

    def charge_nanocredits(self, rule: ChargeRule, cost_nanousd: int) -> int:
        """What a call that cost this much is charged under a rule, rounded half to even."""
        factor = self._factors[rule.id]
        return round_half_even(cost_nanousd * factor.numerator, factor.denominator)
