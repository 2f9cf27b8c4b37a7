"""Declare every metric once: name, kind, labels, meaning. `docs/reference/metrics.md` is generated from this list.

Money, tokens, requests and latencies are read from the ledger at each scrape, so they agree with the books and no
restart resets them. Metrics of this process (queue, commits, requests) start at zero with it. No metric has a wallet or
a user as a label.
"""

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """The Prometheus type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"


class Metric(NamedTuple):
    """One Prometheus metric; names of counters end in `_total`."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


_SPENT = ("event", "provider", "model", "dept", "project", "task")
_PRICED = ("provider", "model", "tier", "kind")
_SERVED = ("provider", "model", "route", "region")
_WAIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REQUESTS = Metric("farebox_requests_total", Kind.COUNTER, _SPENT, "Model calls in the books, each counted once.")
REQUEST_ERRORS = Metric(
    "farebox_request_errors_total", Kind.COUNTER, _SPENT, "Model calls in the books that ended in an error."
)
TOKENS = Metric("farebox_tokens_total", Kind.COUNTER, (*_SPENT, "kind"), "Tokens of charged calls, by disjoint kind.")
TOKEN_COST = Metric(
    "farebox_token_cost_usd_total",
    Kind.COUNTER,
    _PRICED,
    "Exact cost of tokens by kind, in US dollars; fees and other units are in `farebox_cost_usd_total` only. The tier"
    " is `standard`, `long_context`, `negotiated`, `some_hours`, or a service tier with separate prices.",
)
PRICED_TOKENS = Metric(
    "farebox_priced_tokens_total",
    Kind.COUNTER,
    _PRICED,
    "Tokens of `farebox_token_cost_usd_total`, by disjoint kind; reasoning is separate if it has a separate price.",
)
COST = Metric("farebox_cost_usd_total", Kind.COUNTER, _SPENT, "Cost of charged calls, in US dollars.")
CHARGE = Metric("farebox_charged_credits_total", Kind.COUNTER, _SPENT, "Credits that wallets were charged for calls.")
CHARGE_VALUE = Metric(
    "farebox_charge_value_usd_total",
    Kind.COUNTER,
    _SPENT,
    "What the charged credits sell for, in US dollars: what was sold, at list.",
)
REVERSED_REQUESTS = Metric(
    "farebox_reversed_requests_total",
    Kind.COUNTER,
    _SPENT,
    "Calls in `farebox_requests_total` that corrections reversed, to book them again.",
)
REVERSED_COST = Metric(
    "farebox_reversed_cost_usd_total",
    Kind.COUNTER,
    _SPENT,
    "Cost that corrections reversed. The net cost is `farebox_cost_usd_total` minus this.",
)
REVERSED_CHARGE = Metric(
    "farebox_reversed_credits_total",
    Kind.COUNTER,
    _SPENT,
    "Credits that corrections reversed. The net charge is `farebox_charged_credits_total` minus this.",
)
REVERSED_CHARGE_VALUE = Metric(
    "farebox_reversed_charge_value_usd_total",
    Kind.COUNTER,
    _SPENT,
    "Charge value that corrections reversed. The net figure is `farebox_charge_value_usd_total` minus this.",
)
CORRECTIONS = Metric(
    "farebox_corrections_total",
    Kind.COUNTER,
    ("cause",),
    "Corrected usage records, by cause: `replay`, `late_price`, `twin`, `agent`, `action`.",
)
CORRECTED_COST = Metric(
    "farebox_corrected_cost_usd_total",
    Kind.COUNTER,
    ("cause", "direction"),
    "Changes of cost by corrections, in US dollars, `up` and `down` separately.",
)
CORRECTED_CHARGE = Metric(
    "farebox_corrected_credits_total",
    Kind.COUNTER,
    ("cause", "direction"),
    "Changes of charges by corrections, in credits, `up` and `down` separately.",
)
RECORDS = Metric("farebox_usage_records_total", Kind.COUNTER, ("verdict",), "Booked usage records, by verdict.")
UNSETTLED = Metric(
    "farebox_unsettled_records",
    Kind.GAUGE,
    ("verdict", "provider", "model"),
    "Usage records that wait for a price or for usage; not charged yet.",
)
STAKE_RECORDS = Metric(
    "farebox_at_stake_records",
    Kind.GAUGE,
    ("flag",),
    "Usage records whose cost may be wrong, by reason: a flag of contradictory counts, `parts_without_price`,"
    " `exposed`, `stated_cost_implausible`, `stated_cost_zero` or `charged_by_estimate`.",
)
AT_STAKE = Metric(
    "farebox_at_stake_usd",
    Kind.GAUGE,
    ("flag",),
    "Largest error in the cost of those records, in US dollars; for `exposed` the estimated cost.",
)
DOUBTFUL_CALLS = Metric(
    "farebox_doubtful_calls_total",
    Kind.COUNTER,
    ("flag",),
    "Calls booked on an assumption that affects their cost, by its flag; `another_price` stands for all substitutes of"
    " a missing price. A call with two flags counts under both.",
)
UNATTRIBUTED = Metric("farebox_unattributed_requests_total", Kind.COUNTER, (), "Charged calls without a wallet.")

CALL_SECONDS = Metric(
    "farebox_call_seconds",
    Kind.HISTOGRAM,
    _SERVED,
    "Duration of model calls, measured in the application, in seconds; its count is the number of calls.",
)
FIRST_CHUNK_SECONDS = Metric(
    "farebox_first_chunk_seconds",
    Kind.HISTOGRAM,
    _SERVED,
    "Time to the first chunk of streamed answers, in seconds.",
)
CALL_ERRORS = Metric("farebox_call_errors_total", Kind.COUNTER, _SERVED, "Model calls that ended in an error.")
CALL_TOKENS = Metric(
    "farebox_call_tokens_total",
    Kind.COUNTER,
    (*_SERVED, "kind"),
    "Tokens of model calls: all input, all output.",
)
CACHE_LOOKUPS = Metric(
    "farebox_cache_lookups_total", Kind.COUNTER, _SERVED, "Calls that report whether they hit a cache."
)
CACHE_HITS = Metric(
    "farebox_cache_hits_total",
    Kind.COUNTER,
    _SERVED,
    "Calls that hit a cache: by `farebox.cache_hit`, or else because they read the provider's prompt cache.",
)
CITATION_RATE = Metric(
    "farebox_citation_rate", Kind.SUMMARY, _SERVED, "Share of an answer's claims that cite a source, if reported."
)
HUMAN_REVIEWS = Metric("farebox_human_reviews_total", Kind.COUNTER, _SERVED, "Answers reviewed by a person.")
HUMAN_APPROVALS = Metric(
    "farebox_human_approvals_total", Kind.COUNTER, _SERVED, "Reviewed answers that the person approved."
)

CREDITS_IN = Metric("farebox_credits_in_total", Kind.COUNTER, ("source",), "Credits put into wallets, by source.")
WALLETS = Metric("farebox_wallets", Kind.GAUGE, (), "Wallets in the books.")
WALLETS_BELOW = Metric(
    "farebox_wallets_below", Kind.GAUGE, ("credits",), "Wallets with a balance below this number of credits."
)
WALLET_CREDITS = Metric(
    "farebox_wallet_credits", Kind.GAUGE, ("sign",), "Sum of the positive balances and sum of the negative ones."
)
WALLETS_RUNNING_DRY = Metric(
    "farebox_wallets_running_dry",
    Kind.GAUGE,
    ("within",),
    "Wallets whose credits will be used up within a day or a week, at the rate of the last two days and of the last"
    " seven; counted once a minute.",
)
WEBHOOK_MESSAGES = Metric(
    "farebox_webhook_messages",
    Kind.GAUGE,
    ("state",),
    "Webhook messages not delivered yet (`pending`), and of the last 30 days `delivered` and abandoned (`given_up`).",
)
CREDIT_USD = Metric(
    "farebox_credit_usd", Kind.GAUGE, (), "What one credit of the tenant `default` sells for, in US dollars."
)
MONEY = Metric(
    "farebox_money_usd",
    Kind.GAUGE,
    ("term",),
    "Money in the books of all tenants, in US dollars. `revenue`, `breakage`, `refunds`, `fees` and `cash_in` are sums"
    " since the beginning; `deferred_revenue` and `receivable` are what they are now.",
)
BUDGET = Metric("farebox_budget_usd", Kind.GAUGE, ("dept",), "Monthly budget of a department, in US dollars.")
LIST_PRICE = Metric(
    "farebox_list_price_usd_per_1k",
    Kind.GAUGE,
    ("provider", "model", "kind"),
    "Current base price in the price book, in US dollars per 1,000 tokens, for models in use.",
)
PRICE_EDITION = Metric("farebox_price_book_edition", Kind.GAUGE, (), "Grows with every change of the price book.")
RULE_EDITION = Metric("farebox_charge_rule_edition", Kind.GAUGE, (), "Grows with every change of a charge rule.")
SPANS = Metric(
    "farebox_spans_total",
    Kind.COUNTER,
    ("verdict",),
    "Spans that this process answered, and log records that tell calls, by verdict.",
)
SIGNAL_RECORDS = Metric(
    "farebox_signal_records_total",
    Kind.COUNTER,
    ("signal", "tells"),
    "Log records and data points of metrics that this process answered, by signal (`logs`, `metrics`) and by what they"
    " tell: `usage`, or `nothing` that concerns the books.",
)
EXPORTS = Metric(
    "farebox_export_requests_total",
    Kind.COUNTER,
    ("transport", "outcome"),
    "OTLP requests that this process answered: accepted, invalid, unauthenticated, overloaded, limited, or failed.",
)
TURNED_AWAY = Metric(
    "farebox_turned_away_requests_total",
    Kind.COUNTER,
    ("port", "reason"),
    "Requests without a valid key: missing, unknown, revoked, expired, or scope. OTLP clients drop the spans.",
)
REFUSED_LOGINS = Metric(
    "farebox_refused_logins_total",
    Kind.COUNTER,
    ("reason",),
    "Refused logins: wrong (login or password), locked (too many failed attempts), disabled, or no_role (no group with"
    " a role).",
)
AUTO_TOPUPS = Metric(
    "farebox_auto_topups",
    Kind.GAUGE,
    ("state",),
    "Wallets with automatic top-ups: on, off because a payment failed (failed), or off because one was returned"
    " (paused).",
)
PAYMENTS_UNMATCHED = Metric(
    "farebox_payments_unmatched",
    Kind.GAUGE,
    ("kind",),
    "Payments, refunds and disputes that match nothing in the books; they moved no credits.",
)
PAYMENTS_SET_ASIDE = Metric(
    "farebox_payments_set_aside",
    Kind.GAUGE,
    ("reason",),
    "Waiting fees (no_exchange_rate, payment_unknown, not_told) and automatic top-ups (month_cap, processing).",
)
LOTS_SET_ASIDE = Metric(
    "farebox_lots_set_aside",
    Kind.GAUGE,
    (),
    "Wallets whose lots this process could not update; its log says why.",
)
LONG_ACTIONS = Metric(
    "farebox_long_actions",
    Kind.GAUGE,
    (),
    "Actions with a flat charge or a minimum that span over 24 hours or over 10,000 calls, in the last 7 days.",
)
AGENT_SESSION = Metric(
    "farebox_agent_session_usd",
    Kind.GAUGE,
    ("tool", "which"),
    "Cost of sessions of a coding agent in the last hour, in US dollars: of the `costliest` session, and the `median`"
    " of the others. Added up once a minute; calls that a subscription pays cost nothing.",
)
PAYMENT_EVENTS = Metric(
    "farebox_payment_events_total",
    Kind.COUNTER,
    ("outcome",),
    "Events of the payment provider's webhook: booked, repeated, refused (contradict the books), or forged (wrong"
    " signature or time).",
)
INGEST_SECONDS = Metric(
    "farebox_ingest_seconds",
    Kind.HISTOGRAM,
    ("transport",),
    "Time from a complete OTLP request to its acknowledgement, in seconds.",
    _WAIT_S,
)
COMMIT_SECONDS = Metric(
    "farebox_commit_seconds", Kind.HISTOGRAM, (), "Duration of one commit of calls, in seconds.", _WAIT_S
)
FOLD_SECONDS = Metric(
    "farebox_fold_seconds",
    Kind.HISTOGRAM,
    (),
    "Time to add waiting batches to accounts, roll-ups and totals, in seconds.",
    _WAIT_S,
)
FOLDED_BATCHES = Metric(
    "farebox_folded_batches_total",
    Kind.COUNTER,
    (),
    "Batches added to accounts, roll-ups and totals by this collector.",
)
COMMIT_RECORDS = Metric(
    "farebox_commit_records",
    Kind.HISTOGRAM,
    (),
    "Usage records in one commit.",
    (1, 4, 16, 64, 256, 1024, 4096),
)
INCIDENTS = Metric(
    "farebox_incidents_total", Kind.COUNTER, ("severity",), "Incidents reported by Alertmanager, by severity."
)
QUEUE_BYTES = Metric("farebox_queue_bytes", Kind.GAUGE, (), "Bytes of OTLP requests in progress.")
QUEUE_LIMIT_BYTES = Metric(
    "farebox_queue_limit_bytes", Kind.GAUGE, (), "Limit of those bytes; above it clients are asked to retry."
)
LABELS_FOLDED = Metric(
    "farebox_labels_folded_total",
    Kind.COUNTER,
    (),
    "Calls counted under the label value `other`, because there are too many combinations of labels.",
)
DEAD_LETTERS = Metric("farebox_dead_letters", Kind.GAUGE, (), "Spans in the dead-letter queue.")
AUDIT_MISMATCHES = Metric(
    "farebox_audit_mismatches",
    Kind.GAUGE,
    ("scope",),
    "Mismatches found by the last audit: of recent transactions every minute, of all books every day.",
)
AUDIT_TIMESTAMP = Metric(
    "farebox_audit_timestamp_seconds", Kind.GAUGE, ("scope",), "End of the last audit, in Unix seconds."
)
CORRECTIONS_FROZEN = Metric(
    "farebox_corrections_frozen",
    Kind.GAUGE,
    (),
    "1 from an audit's mismatch until a clean full audit; meanwhile there are no corrections.",
)
BUILD_INFO = Metric("farebox_build_info", Kind.GAUGE, ("version", "sqlite"), "Always 1; the labels give the versions.")

CATALOGUE: tuple[Metric, ...] = (
    REQUESTS,
    REQUEST_ERRORS,
    TOKENS,
    TOKEN_COST,
    PRICED_TOKENS,
    COST,
    CHARGE,
    REVERSED_REQUESTS,
    REVERSED_COST,
    REVERSED_CHARGE,
    CHARGE_VALUE,
    REVERSED_CHARGE_VALUE,
    CORRECTIONS,
    CORRECTED_COST,
    CORRECTED_CHARGE,
    RECORDS,
    UNSETTLED,
    STAKE_RECORDS,
    AT_STAKE,
    DOUBTFUL_CALLS,
    UNATTRIBUTED,
    CALL_SECONDS,
    FIRST_CHUNK_SECONDS,
    CALL_ERRORS,
    CALL_TOKENS,
    CACHE_LOOKUPS,
    CACHE_HITS,
    CITATION_RATE,
    HUMAN_REVIEWS,
    HUMAN_APPROVALS,
    CREDITS_IN,
    WALLETS,
    WALLETS_BELOW,
    WALLET_CREDITS,
    WALLETS_RUNNING_DRY,
    WEBHOOK_MESSAGES,
    CREDIT_USD,
    MONEY,
    BUDGET,
    LIST_PRICE,
    PRICE_EDITION,
    RULE_EDITION,
    SPANS,
    SIGNAL_RECORDS,
    EXPORTS,
    TURNED_AWAY,
    REFUSED_LOGINS,
    PAYMENT_EVENTS,
    PAYMENTS_UNMATCHED,
    PAYMENTS_SET_ASIDE,
    LOTS_SET_ASIDE,
    LONG_ACTIONS,
    AGENT_SESSION,
    AUTO_TOPUPS,
    INGEST_SECONDS,
    COMMIT_SECONDS,
    COMMIT_RECORDS,
    FOLD_SECONDS,
    FOLDED_BATCHES,
    INCIDENTS,
    QUEUE_BYTES,
    QUEUE_LIMIT_BYTES,
    LABELS_FOLDED,
    DEAD_LETTERS,
    AUDIT_MISMATCHES,
    AUDIT_TIMESTAMP,
    CORRECTIONS_FROZEN,
    BUILD_INFO,
)
