"""Tables of access: people, identities, sessions, failed logins, approvals, and the audit log."""

from sqlalchemy import Column, Index, LargeBinary, PrimaryKeyConstraint, UniqueConstraint

from farebox_collector.ledger.tables.columns import number, table, words

# Who did what, in one chain per tenant: each entry's hash covers the hash of the one before.
audit_log = table(
    "audit_log",
    number("tenant_id"),
    # 1, 2, 3, … without a gap.
    number("number"),
    number("at_ns"),
    words("actor"),
    words("address"),
    words("action"),
    # `done`, or `refused` for a rejected attempt.
    words("outcome"),
    # Data that can be erased: the chain covers `content_sha256`, which is salted. Both are empty afterwards.
    words("subject"),
    words("details"),
    Column("salt", LargeBinary, nullable=False),
    Column("content_sha256", LargeBinary, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant_id", "number"),
)
Index("ix_audit_log_at_ns", audit_log.c.tenant_id, audit_log.c.at_ns)
Index("ix_audit_log_subject", audit_log.c.tenant_id, audit_log.c.subject)

# One row per tenant: the end of its chain, its beginning after retention, and the last verified entry.
audit_log_heads = table(
    "audit_log_heads",
    number("tenant_id"),
    number("last_number"),
    Column("last_sha256", LargeBinary, nullable=False),
    number("retired_number"),
    Column("retired_sha256", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant_id"),
)
audit_log_anchors = table(
    "audit_log_anchors",
    number("tenant_id"),
    number("number"),
    Column("sha256", LargeBinary, nullable=False),
    number("anchored_at_ns"),
    PrimaryKeyConstraint("tenant_id"),
)

people = table(
    "people",
    number("tenant_id"),
    number("number"),
    words("login"),
    words("name"),
    words("role"),
    # An Argon2id hash; empty for a person who logs in through another provider.
    words("password_hash"),
    number("created_at_ns"),
    number("disabled_at_ns", nullable=True),
    number("last_login_at_ns", nullable=True),
    PrimaryKeyConstraint("tenant_id", "number"),
    UniqueConstraint("tenant_id", "login"),
)

# A person's identity at an OpenID provider.
person_identities = table(
    "person_identities",
    number("tenant_id"),
    words("issuer"),
    words("subject"),
    number("person"),
    PrimaryKeyConstraint("tenant_id", "issuer", "subject"),
)

sessions = table(
    "sessions",
    number("tenant_id"),
    words("session_id"),
    number("person"),
    Column("token_sha256", LargeBinary, nullable=False),
    # `password` or `oidc`.
    words("method"),
    words("address"),
    words("user_agent"),
    number("created_at_ns"),
    number("last_used_at_ns"),
    number("expires_at_ns"),
    number("ended_at_ns", nullable=True),
    PrimaryKeyConstraint("tenant_id", "session_id"),
)
Index("ix_sessions_person", sessions.c.tenant_id, sessions.c.person)

# Failed logins, of one account or from one address.
login_failures = table(
    "login_failures",
    number("tenant_id"),
    words("kind"),
    words("subject"),
    number("failures"),
    number("first_at_ns"),
    number("locked_until_ns"),
    PrimaryKeyConstraint("tenant_id", "kind", "subject"),
)

# Which actions of a tenant require a second person. Append-only; the version with the largest number is in force.
approval_policies = table(
    "approval_policies",
    number("tenant_id"),
    number("number"),
    # Movements of this many credits or more need approval; NULL for none.
    number("movement_nanocredits", nullable=True),
    number("prices"),
    number("rules"),
    number("expires_hours"),
    words("author"),
    words("reason"),
    number("recorded_at_ns"),
    PrimaryKeyConstraint("tenant_id", "number"),
)

approvals = table(
    "approvals",
    number("tenant_id"),
    number("number"),
    words("kind"),
    words("summary"),
    # JSON of exactly what is executed on approval; it never changes.
    words("proposal"),
    # Identifies a repeated request as the same proposal; unique unless empty.
    words("idempotency_key"),
    words("state"),
    # How many persons other than the proposer must approve.
    number("needed"),
    words("proposer"),
    number("proposer_person"),
    words("author"),
    number("proposed_at_ns"),
    number("expires_at_ns"),
    number("ended_at_ns", nullable=True),
    words("reason"),
    words("result"),
    PrimaryKeyConstraint("tenant_id", "number"),
    UniqueConstraint("tenant_id", "kind", "idempotency_key", name="uq_approvals_request"),
)
Index("ix_approvals_state", approvals.c.tenant_id, approvals.c.state, approvals.c.number)

approval_votes = table(
    "approval_votes",
    number("tenant_id"),
    number("approval"),
    words("voter"),
    number("at_ns"),
    PrimaryKeyConstraint("tenant_id", "approval", "voter"),
)
