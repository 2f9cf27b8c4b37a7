"""Columns that may name a person: every text column of every table of a tenant, in one of three kinds.

A test compares these lists with the schema: a new text column must be classified before it is used.
"""

from typing import NamedTuple

from farebox_collector.ledger.tables.usage_columns import USAGE_COLUMNS, Kind

WALLET_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("accounts", "name", "kind = 'wallet'"),
    ("usage_records", "wallet", ""),
    ("wallet_days", "wallet", ""),
    ("wallet_blocks", "wallet", ""),
    ("lots", "wallet", ""),
    ("holds", "wallet", ""),
    ("charged_actions", "wallet", ""),
    ("stakes", "wallet", ""),
    ("topups", "wallet", ""),
    ("auto_topups", "wallet", ""),
    ("auto_topup_turns", "wallet", ""),
    ("payment_methods", "wallet", ""),
    ("balance_thresholds", "wallet", ""),
    ("spending_policies", "name", "scope IN ('wallet', 'user')"),
    ("spending_days", "name", "scope IN ('wallet', 'user')"),
    ("spenders", "name", "scope IN ('wallet', 'user')"),
    ("retired_days", "name", "kind IN ('wallet', 'user')"),
    ("wallet_links", "wallet", ""),
    ("agent_meters", "person", ""),
    ("api_keys", "wallet", ""),
)
"""Table, column with the name of a wallet, and the condition of the rows that it applies to."""

USER_COLUMNS: tuple[tuple[str, str], ...] = (
    ("usage_records", "wallet"),
    ("holds", "wallet"),
    ("spending_policies", "name"),
    ("spending_days", "name"),
    ("spenders", "name"),
    ("retired_days", "name"),
)
"""Tables with a `user_id`, and their column with the user's wallet."""

ACTION_COLUMNS: tuple[tuple[str, str], ...] = (
    ("usage_records", "action_id"),
    ("holds", "action_id"),
    ("charged_actions", "action_id"),
)
"""Ids of actions, which may contain the wallet's name. The audit compares the three tables."""


class Texts(NamedTuple):
    """Columns of a table that may contain a name anywhere, in plain text or JSON."""

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...] = ("id",)
    """The key of a row within its tenant."""
    digest: bool = False
    """Whether `digest` is the 16-byte BLAKE2b of the first column."""


TEXT_COLUMNS: tuple[Texts, ...] = (
    Texts("transactions", ("memo", "metadata")),
    Texts("idempotency_keys", ("request", "key")),
    Texts("holds", ("request", "idempotency_key")),
    Texts("usage_records", ("reason",)),
    # Empty but for what another replica appends meanwhile: an erasure folds first.
    Texts("unfolded_batches", ("sums",), ("transaction_id", "number")),
    Texts("topups", ("request", "idempotency_key", "reason")),
    Texts("unmatched_payments", ("reason",)),
    Texts("auto_topups", ("reason", "author")),
    Texts("auto_topup_turns", ("reason",)),
    Texts("balance_thresholds", ("reason", "author")),
    Texts("spending_policies", ("reason", "author")),
    Texts("budgets", ("reason", "author")),
    Texts("agent_plans", ("account", "reason", "author")),
    Texts("charge_rules", ("reason", "author")),
    Texts("packs", ("reason", "author")),
    Texts("api_keys", ("name",)),
    Texts("usage_conflicts", ("facts",), digest=True),
    Texts("dead_letters", ("span", "reason"), digest=True),
    Texts("incidents", ("labels", "annotations", "snapshot")),
    Texts("webhook_messages", ("body", "last_error")),
    Texts("approvals", ("summary", "proposal", "idempotency_key", "reason", "result"), ("number",)),
    Texts("approval_policies", ("reason",), ("number",)),
    Texts("login_failures", ("subject",), ("kind", "subject")),
)

WITHOUT_PERSONS: dict[str, str] = {
    "accounts": "kind commodity",
    "agent_meters": "tool",
    "agent_plans": "tool plan",
    "api_keys": "key_id scopes",
    "approval_policies": "author",
    "approval_votes": "voter",
    "approvals": "kind state proposer author",
    "audit_log": "actor address action outcome subject details",
    "audits": "scope",
    "auto_topups": "pack currency",
    "balance_thresholds": "bounds",
    "budgets": "dept",
    "card_totals": "provider model price_version_ids",
    "charge_rules": (
        "event kind multiplier minimum_credits flat_credits input_credits_per_1k cached_credits_per_1k "
        "output_credits_per_1k usd_per_credit"
    ),
    "charged_actions": "event first_span",
    "correction_totals": "cause",
    "corrections": (
        "cause verdict_before verdict_after reason_before reason_after provider_before provider_after "
        "model_before model_after price_version_ids_before price_version_ids_after"
    ),
    "cost_days": "provider model price_version_ids event dept project task route region service_tier",
    "credit_totals": "source",
    "erased_names": "pseudonym",
    "exchange_rates": "currency usd_per_currency author",
    "holds": "dept project event state",
    "incidents": "fingerprint alert severity team",
    "intake_totals": "outcome",
    "login_failures": "kind",
    "lot_days": "origin pack",
    "lot_moves": "kind",
    "lots": "origin pack",
    "money_days": "source account",
    "packs": "name currency",
    "payment_events": "event_id type outcome",
    "payment_fees": "fee_id currency source",
    "payment_methods": "customer payment_method",
    "payment_returns": "return_id kind payment_intent currency unmatched",
    "people": "login name role password_hash",
    "person_identities": "issuer subject",
    "postings": "commodity event",
    "price_imports": "source source_version",
    "price_versions": (
        "provider model unit usd_per_1k source source_version condition currency original_per_1k usd_per_currency"
    ),
    "priced_models": "provider model match",
    "quality_reports": "provider model",
    "retired_days": "kind",
    "retired_legs": "event",
    "retired_totals": "verdict",
    "service_totals": "provider model route region",
    "sessions": "session_id method address user_agent",
    "spenders": "scope",
    "spending_days": "scope",
    "spending_policies": "scope",
    "stake_totals": "flag",
    "stakes": "flag provider model",
    "tenants": "name usd_per_credit",
    "topups": "key currency state checkout_id checkout_url payment_intent",
    "transactions": "kind",
    "unmatched_payments": "topup_key payment_intent currency",
    "usage_days": "event provider model verdict",
    "usage_records": " ".join(column.name for column in USAGE_COLUMNS if column.kind is Kind.TEXT),
    "usage_totals": "event provider model dept project task verdict",
    "waiting_fees": "fee_id payment_intent source currency reason",
    "wallet_days": "event provider model",
    "wallet_links": "minted_by",
    "watermarks": "name",
    "webhook_endpoints": "url",
    "webhook_messages": "message_id type state",
}
"""Text columns that name no person of a wallet, by table: models, prices, states, ids, names that the business chose
(events, departments, projects), and people who work for it."""
