"""Charge rules: the price of an event in credits, from the provider's cost and the tokens of its calls.

A charge has two parts. The *share* of a call follows its cost or its tokens. The *floor* of an action is the minimum
that the action is charged, regardless of its number of calls: the minimum of a `cost_plus` rule, or the whole amount of
a `flat` rule. An action is charged max(floor, sum of its calls' shares); a call outside any action is an action of its
own.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Any, NamedTuple

from farebox_collector.model.money import NANO, round_half_even
from farebox_collector.model.records import Buckets, ChargeRule
from farebox_collector.model.units import (
    CACHED,
    IN,
    OUT,
    TOKENS,
    Units,
)

EVERY_OTHER_EVENT = "*"

FLAT = "flat"
"""A fixed number of credits per action, regardless of cost."""
PER_1K_TOKENS = "per_1k_tokens"
"""Credits per 1,000 tokens, separately for input, cached input and output."""
COST_PLUS = "cost_plus"
"""The provider's cost times a multiplier, with a minimum per action."""
KINDS = (FLAT, PER_1K_TOKENS, COST_PLUS)

MAX_RATE = Decimal(1_000_000)
"""Most credits in one figure of a rule, and the largest multiplier."""
_MAX_DECIMALS = 18
_MAX_CREDIT_DECIMALS = 9


class BadRule(ValueError):
    """A rule that cannot be charged by; the message gives the reason."""


class RuleTerms(NamedTuple):
    """The terms of a rule; figures that its kind does not use are zero."""

    kind: str
    multiplier: Decimal = Decimal(0)
    """`cost_plus`: multiplier of the provider's cost."""
    minimum_credits: Decimal = Decimal(0)
    """`cost_plus`: the minimum charge of an action."""
    flat_credits: Decimal = Decimal(0)
    """`flat`: the charge of an action."""
    input_credits_per_1k: Decimal = Decimal(0)
    """`per_1k_tokens`: all input tokens that were not read from a cache."""
    cached_credits_per_1k: Decimal = Decimal(0)
    """`per_1k_tokens`: tokens that were read from a cache."""
    output_credits_per_1k: Decimal = Decimal(0)
    """`per_1k_tokens`: all output tokens."""


_FIGURES_OF = {
    FLAT: {"flat_credits"},
    PER_1K_TOKENS: {"input_credits_per_1k", "cached_credits_per_1k", "output_credits_per_1k"},
    COST_PLUS: {"multiplier", "minimum_credits"},
}


def require_chargeable(terms: RuleTerms) -> None:
    """Raise BadRule for unusable terms: negative, not finite, of another kind, or with too many decimals."""
    if terms.kind not in KINDS:
        raise BadRule(f"kind must be one of {', '.join(KINDS)}")
    for name, figure in terms._asdict().items():
        if name == "kind":
            continue
        if not figure.is_finite() or figure < 0:
            raise BadRule(f"{name} must be a number that is not negative")
        if figure > MAX_RATE:
            raise BadRule(f"{name} must be at most {MAX_RATE}")
        exponent = figure.normalize().as_tuple().exponent
        decimals = _MAX_CREDIT_DECIMALS if name in ("flat_credits", "minimum_credits") else _MAX_DECIMALS
        if isinstance(exponent, int) and -exponent > decimals:
            raise BadRule(f"{name} must have at most {decimals} decimals")
        if figure and name not in _FIGURES_OF[terms.kind]:
            raise BadRule(f"{name} does not apply to a {terms.kind} rule")
    if terms.kind == COST_PLUS and not terms.multiplier:
        raise BadRule("multiplier must be positive")


class Terms(NamedTuple):
    """The terms of a rule version as integers: rates over `denominator`, ready to be multiplied."""

    per_nanousd: int
    """Nanocredits per nano-USD of cost."""
    per_input_token: int
    per_cached_token: int
    per_output_token: int
    denominator: int
    floor_nanocredits: int


@dataclass(frozen=True, slots=True)
class RuleVersion:
    """One version of a rule, ready to use."""

    id: int
    valid_from_ns: int
    valid_to_ns: int | None
    terms: Terms
    rule: ChargeRule


class RuleBook:
    """The charge rules of one tenant. Read-only; safe to share between threads."""

    def __init__(self, rules: Iterable[ChargeRule], charges_exposed: bool = False) -> None:
        self.charges_exposed = charges_exposed
        """Whether calls whose end was not seen are charged by their estimate."""
        by_event: defaultdict[str, list[RuleVersion]] = defaultdict(list)
        for rule in sorted(rules, key=lambda rule: rule.valid_from_ns, reverse=True):
            version = RuleVersion(rule.id, rule.valid_from_ns, rule.valid_to_ns, exact_terms(rule), rule)
            by_event[rule.event].append(version)
        self._terms = {version.id: version.terms for versions in by_event.values() for version in versions}
        self._others = by_event.pop(EVERY_OTHER_EVENT, [])
        # Rules of the event itself come first.
        self._by_event = {event: [*versions, *self._others] for event, versions in by_event.items()}
        self._floors = {event: _any_floor(versions) for event, versions in self._by_event.items()}
        self._other_floors = _any_floor(self._others)

    def has_floors(self, event: str) -> bool:
        """Return whether any version for an event sets a flat charge or a minimum, at any time.

        If so, all its calls with an action id take part in their action: the call that started first sets the floor,
        regardless of the other calls' rules.
        """
        return self._floors.get(event, self._other_floors)

    def in_force(self, event: str, at_ns: int) -> RuleVersion | None:
        """Return the rule of an event at a time, else the rule of `*`; None if neither is in force."""
        for version in self._by_event.get(event, self._others):
            if version.valid_from_ns <= at_ns and (version.valid_to_ns is None or at_ns < version.valid_to_ns):
                return version
        return None

    def rule_for(self, event: str, at_ns: int) -> ChargeRule | None:
        """Return the same rule as it was stated."""
        version = self.in_force(event, at_ns)
        return None if version is None else version.rule

    def share_nanocredits(self, rule: ChargeRule, cost_nanousd: int, buckets: Buckets, units: Units = ()) -> int:
        """Return the share of a call in its action's charge, rounded once, half to even."""
        return share(self._terms[rule.id], cost_nanousd, buckets, units)

    def floor_nanocredits(self, rule: ChargeRule) -> int:
        """Return the minimum charge of an action under a rule; 0 if the rule sets none."""
        return self._terms[rule.id].floor_nanocredits


def _any_floor(versions: Iterable[RuleVersion]) -> bool:
    return any(version.terms.floor_nanocredits for version in versions)


def exact_terms(rule: ChargeRule) -> Terms:
    """Return the terms of a rule, ready to be multiplied."""
    # 1 credit per 1,000 tokens is 10⁹ ÷ 1,000 nanocredits per token.
    rates = (
        Fraction(rule.multiplier) / Fraction(rule.usd_per_credit),
        Fraction(rule.input_credits_per_1k) * 1_000_000,
        Fraction(rule.cached_credits_per_1k) * 1_000_000,
        Fraction(rule.output_credits_per_1k) * 1_000_000,
    )
    denominator = lcm(*(rate.denominator for rate in rates))
    floor = rule.flat_credits if rule.kind == FLAT else rule.minimum_credits
    cost, fresh, cached, output = (int(rate * denominator) for rate in rates)
    return Terms(cost, fresh, cached, output, denominator, int(Fraction(floor) * NANO))


def share(terms: Terms, cost_nanousd: int, buckets: Buckets, units: Units = ()) -> int:
    """Return the nanocredits that a call adds to its action's charge, rounded once, half to even.

    Tokens count both in buckets and as units (`units.TOKENS`).
    """
    per_nanousd, per_input_token, per_cached_token, per_output_token, denominator, _ = terms
    exact = cost_nanousd * per_nanousd
    if per_input_token or per_cached_token or per_output_token:
        inclusive_input, cached = buckets.inclusive_input, buckets.cache_read
        exact += (inclusive_input - cached) * per_input_token + cached * per_cached_token
        exact += (buckets.total - inclusive_input) * per_output_token
        if units:
            rates = {IN: per_input_token, CACHED: per_cached_token, OUT: per_output_token}
            exact += sum(count * rates[TOKENS[unit]] for unit, count in units if unit in TOKENS)
    return round_half_even(exact, denominator)


def rule_terms(kind: str, figures: Mapping[str, Any]) -> RuleTerms:
    """Build the terms of a rule version from named figures, as texts or numbers; ignore other names."""
    return RuleTerms(kind, **{name: Decimal(figures[name]) for name in RuleTerms._fields if name != "kind"})


def describe(terms: RuleTerms) -> str:
    """Describe the terms for people."""
    if terms.kind == FLAT:
        return f"{_plain(terms.flat_credits)} credits per action"
    if terms.kind == PER_1K_TOKENS:
        rates = (terms.input_credits_per_1k, terms.cached_credits_per_1k, terms.output_credits_per_1k)
        fresh, cached, output = map(_plain, rates)
        return f"{fresh} credits per 1,000 tokens in, {cached} cached, {output} out"
    minimum = f", at least {_plain(terms.minimum_credits)} credits per action" if terms.minimum_credits else ""
    return f"its cost times {_plain(terms.multiplier)}{minimum}"


def _plain(figure: Decimal) -> str:
    return format(figure, "f")
