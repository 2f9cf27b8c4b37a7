"""The import paths of modules before they were sorted into packages. Programs that use them go on working.

`install` adds a finder, asked only for names that nothing else finds. Delete this module, and the line in
`__init__.py`, with the next version: the changelog of this one says so.
"""

import importlib
import sys
from collections.abc import Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_ROOT = "farebox_collector"
_MOVED = (
    ("", "admission", "connections descriptors rates"),
    (
        "",
        "background",
        "courier>webhook_sender destinations>webhook_destinations indexing>posting_index_job replay "
        "retiring>retention_job rounds>periodic second_chance>dead_letter_retry settling upkeep",
    ),
    ("", "cache", "keyring tariffs"),
    (
        "",
        "intake",
        "decoding findings>notable_spans frames garbage>gc_tuning giving_way>yielding group_commit "
        "reading>reader reading_aside>reader_worker reading_process>reader_process reading_wire>reader_wire",
    ),
    ("", "model", "credentials minor_units moments money pseudonyms records secret_box units verdicts"),
    ("", "receivers", "http_ports"),
    ("", "surfaces", "holding>hold_desk login_desk passwords"),
    ("dialects", "dialects", "remembered>memo"),
    ("ledger", "ledger.access", "keys links tenants"),
    ("ledger", "ledger.approvals", "approved_changes>changes"),
    ("ledger", "ledger.audit", "audit_runs checkpoints credit_checks day_checks lot_times payment_checks total_checks"),
    (
        "ledger",
        "ledger.credits",
        "budgets hold_ends>hold_release holds late_revenue limit_watch limits lot lot_usage lots movements "
        "policies quick_holds>hold_fast_path returned_credits spending wallets>deposits",
    ),
    (
        "ledger",
        "ledger.journal",
        "account_legs>posting_index days>usage_rollups legs low_balances money_days>money_rollups watermarks "
        "webhooks>outbox",
    ),
    (
        "ledger",
        "ledger.payments",
        "auto_topups packs payment_facts payment_fees payment_returns>refunds topups unmatched",
    ),
    (
        "ledger",
        "ledger.reports",
        "charges costs difference_sums>replay_difference money_reports price_gaps price_lacks>missing_prices "
        "readings>metric_readings simulation statements token_costs wallet_reports wallet_usage",
    ),
    (
        "ledger",
        "ledger.storage",
        "bulk>bulk_insert connect database lists>pages locks lookups>key_lookup pace>throttle postgresql "
        "schema>migrate sqlite",
    ),
    (
        "ledger",
        "ledger.tables",
        "columns control_tables>service correction_tables>corrections credit_tables>credits "
        "day_tables>rollups limit_tables>limits link_tables>links payment_tables>payments price_tables>prices "
        "retired_tables>tombstones stake_tables>stakes webhook_tables>outbox",
    ),
    ("ledger", "ledger.tariffs", "beginnings>effective_times exchange_rates prices rules"),
    (
        "ledger",
        "ledger.usage",
        "action_joins actions>action_pricing call_claims>claims call_sums>batch_sums correction_totals "
        "corrections cost_days>cost_rollups dead_letters entries intake>span_counts labels long_actions "
        "one_charge>deduplication prepared>batch quality replayed_usage>replay_candidates response_ids "
        "retired>tombstones retirement>retention stakes stored_usage summed_calls totals>running_totals "
        "unsettled>settlement unsettled_parts>parts_settlement witnesses>span_matching wrappers",
    ),
    ("ledger", "model", "mismatches unusual"),
    ("ledger.access", "ledger.approvals", "approvals>proposals"),
    ("ledger.access", "ledger.privacy", "erasure personal_export personal_places pseudonym_key"),
    ("ledger.access", "ledger.tables", "personal_tables>personal tables>access"),
    ("payments", "payments", "automatic>automatic_topups gateway>stripe_client"),
    ("receivers", "receivers", "doorman>call_admission"),
    (
        "surfaces",
        "surfaces.api",
        "alerts amounts approvals audit_log budgets callers context costs headers holds hosts keys ledger "
        "links movements overview packs pages paths people policies prices problems receipt_check "
        "receipt_models receipts replays report_catalogue report_rows reports rules stakes stripe_webhook "
        "table_files topups turns usage wallets webhooks",
    ),
)
"""Package before, package now, and the modules, each as `before>now` where its name changed."""
_PACKAGES = {
    "ledger.audit": "ledger.audit.books_audit",
    "ledger.incidents": "ledger.incidents.incidents",
    "ledger.journal": "ledger.journal.journal",
    "ledger.payments": "ledger.payments.provider_events",
    "ledger.reports": "ledger.reports.reports",
    "ledger.tables": "ledger.tables.books",
    "ledger.usage": "ledger.usage.booking",
    "surfaces.api": "surfaces.api.application",
}
"""Modules that became packages of the same name, and the module that has their names now."""
_RENAMED = {
    "cache.tariffs": {"price_anew": ("cache.tariffs", "reprice")},
    "ledger.credits.limit_watch": {"tell_of_limits": ("ledger.credits.limit_watch", "report_limits")},
    "ledger.credits.lots": {
        name: ("ledger.credits.lot_rows", name)
        for name in ("WALLETS_AT_ONCE", "lots_of", "wallets_to_draw", "wallets_with_expired_lots")
    },
    "ledger.payments.refunds": {"given_by_hand": ("ledger.payments.refunds", "manual_returns")},
    "ledger.tables.books": {"TOKEN_COLUMNS": ("ledger.tables.usage_columns", "TOKEN_COLUMNS")},
    "ledger.usage.action_pricing": {"foresee_actions": ("ledger.usage.action_pricing", "preview_actions")},
    "ledger.usage.corrections": {
        "carry_anew": ("ledger.usage.corrections", "update_carried_charges"),
        "foresee": ("ledger.usage.corrections", "preview_corrections"),
    },
    "ledger.usage.retention": {
        "Stretch": ("ledger.usage.retention", "RetentionBatch"),
        "UnderSuspicion": ("ledger.usage.retention", "RetentionFrozen"),
        "look": ("ledger.usage.retention", "preview_retention"),
    },
    "ledger.usage.running_totals": {"add_credits": ("ledger.credits.credit_totals", "add_credits")},
    "payments.stripe_client": {"Kept": ("payments.stripe_client", "PaymentFee")},
    "pricing.price": {"of_pricing": ("pricing.price", "is_from_pricing")},
}
"""Names that a module no longer has: where each is, and what it is called."""


def install() -> None:
    """Let old import paths find the modules."""
    sys.meta_path.append(_OldPaths())
    sys.meta_path.insert(0, _OldNames())


class _OldPaths(MetaPathFinder, Loader):
    """Finds a module under the name that it had."""

    def __init__(self) -> None:
        self._now: dict[str, str] = {}
        for before, now, names in _MOVED:
            for name in names.split():
                old, _, new = name.partition(">")
                self._now[_joined(before, old)] = _joined(now, new or old)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in self._now else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._now[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The module was executed under its own name; it gets its own spec back."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


class _OldNames(MetaPathFinder):
    """Lends modules the names that they had, without importing what has them now before it is asked."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        place = name.removeprefix(_ROOT + ".")
        spec = PathFinder.find_spec(name, path, target) if place in _PACKAGES.keys() | _RENAMED.keys() else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_lend(module: ModuleType) -> None:
                execute(module)
                vars(module)["__getattr__"] = partial(_lent, place)

            spec.loader.exec_module = execute_and_lend  # type: ignore[method-assign]
        return spec


def _lent(module: str, name: str) -> Any:
    lender, its_name = _RENAMED.get(module, {}).get(name) or (_PACKAGES.get(module, ""), name)
    if not lender or name.startswith("__"):
        raise AttributeError(f"module {_joined(module)!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_joined(lender)), its_name)


def _joined(*parts: str) -> str:
    return ".".join((_ROOT, *filter(None, parts)))
