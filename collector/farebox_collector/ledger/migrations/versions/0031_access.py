"""Access: the audit log, people, sessions, approvals; the person of a key."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, INT64, nullable=nullable)


def _words(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def _table(name: str, *items: sa.Column[int] | sa.Column[str] | sa.Column[bytes], key: tuple[str, ...] = ()) -> None:
    op.create_table(
        name,
        _number("tenant_id"),
        *items,
        sa.PrimaryKeyConstraint("tenant_id", *key, name=op.f(f"pk_{name}")),
        sqlite_strict=True,
    )


def _audit_log() -> None:
    _table(
        "audit_log",
        _number("number"),
        _number("at_ns"),
        *_words("actor", "address", "action", "outcome", "subject", "details"),
        _bytes("salt"),
        _bytes("content_sha256"),
        _bytes("sha256"),
        key=("number",),
    )
    op.create_index("ix_audit_log_at_ns", "audit_log", ["tenant_id", "at_ns"], unique=False)
    op.create_index("ix_audit_log_subject", "audit_log", ["tenant_id", "subject"], unique=False)
    _table(
        "audit_log_heads",
        _number("last_number"),
        _bytes("last_sha256"),
        _number("retired_number"),
        _bytes("retired_sha256"),
    )
    _table("audit_log_anchors", _number("number"), _bytes("sha256"), _number("anchored_at_ns"))


def _people() -> None:
    op.create_table(
        "people",
        _number("tenant_id"),
        _number("number"),
        *_words("login", "name", "role", "password_hash"),
        _number("created_at_ns"),
        _number("disabled_at_ns", nullable=True),
        _number("last_login_at_ns", nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "number", name=op.f("pk_people")),
        sa.UniqueConstraint("tenant_id", "login", name=op.f("uq_people_tenant_id_login")),
        sqlite_strict=True,
    )
    _table("person_identities", *_words("issuer", "subject"), _number("person"), key=("issuer", "subject"))
    _table(
        "sessions",
        *_words("session_id"),
        _number("person"),
        _bytes("token_sha256"),
        *_words("method", "address", "user_agent"),
        _number("created_at_ns"),
        _number("last_used_at_ns"),
        _number("expires_at_ns"),
        _number("ended_at_ns", nullable=True),
        key=("session_id",),
    )
    op.create_index("ix_sessions_person", "sessions", ["tenant_id", "person"], unique=False)
    _table(
        "login_failures",
        *_words("kind", "subject"),
        _number("failures"),
        _number("first_at_ns"),
        _number("locked_until_ns"),
        key=("kind", "subject"),
    )
    with op.batch_alter_table("api_keys") as batch:
        batch.add_column(sa.Column("person", INT64, nullable=False, server_default="0"))


def _approvals() -> None:
    _table(
        "approval_policies",
        _number("number"),
        _number("movement_nanocredits", nullable=True),
        _number("prices"),
        _number("rules"),
        _number("expires_hours"),
        *_words("author", "reason"),
        _number("recorded_at_ns"),
        key=("number",),
    )
    op.create_table(
        "approvals",
        _number("tenant_id"),
        _number("number"),
        *_words("kind", "summary", "proposal", "idempotency_key", "state"),
        _number("needed"),
        *_words("proposer"),
        _number("proposer_person"),
        *_words("author"),
        _number("proposed_at_ns"),
        _number("expires_at_ns"),
        _number("ended_at_ns", nullable=True),
        *_words("reason", "result"),
        sa.PrimaryKeyConstraint("tenant_id", "number", name=op.f("pk_approvals")),
        sa.UniqueConstraint("tenant_id", "kind", "idempotency_key", name=op.f("uq_approvals_request")),
        sqlite_strict=True,
    )
    op.create_index("ix_approvals_state", "approvals", ["tenant_id", "state", "number"], unique=False)
    _table("approval_votes", _number("approval"), *_words("voter"), _number("at_ns"), key=("approval", "voter"))


def upgrade() -> None:
    _audit_log()
    _people()
    _approvals()


def downgrade() -> None:
    for name in (
        "approval_votes",
        "approvals",
        "approval_policies",
        "login_failures",
        "sessions",
        "person_identities",
        "people",
        "audit_log_anchors",
        "audit_log_heads",
        "audit_log",
    ):
        op.drop_table(name)
    with op.batch_alter_table("api_keys") as batch:
        batch.drop_column("person")
