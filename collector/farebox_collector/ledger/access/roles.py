"""Roles of people, and the scopes that each has. One table: the API, the console and the documentation read it."""

from collections.abc import Mapping
from enum import StrEnum

from farebox_collector.credentials import Scope


class Role(StrEnum):
    """What a person does here."""

    VIEWER = "viewer"
    """Looks at everything and changes nothing."""
    FINANCE = "finance"
    """Also moves credits: deposits, grants, refunds, links for customers."""
    PRICING = "pricing"
    """Also sets prices, rules, budgets, policies and packs."""
    OPERATOR = "operator"
    """Also handles alerts and incidents."""
    ADMIN = "admin"
    """Everything but reporting usage: people, keys, webhooks, settings too."""


SCOPES_OF: Mapping[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.READ}),
    Role.FINANCE: frozenset({Scope.READ, Scope.WALLETS}),
    Role.PRICING: frozenset({Scope.READ, Scope.PRICING}),
    Role.OPERATOR: frozenset({Scope.READ, Scope.ALERTS, Scope.ROUTES}),
    Role.ADMIN: frozenset(Scope) - {Scope.INGEST},
}
"""The scopes of each role."""
