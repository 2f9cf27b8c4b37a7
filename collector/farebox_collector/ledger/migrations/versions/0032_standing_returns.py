"""Derive what is out of a payment from the standing returns; add waiting fees and unmatched payments.

Earlier effects of refunds and disputes on lots are migrated: what they took from lots, what had expired, the resulting
debt, and what pays it now. The next round recomputes what must be out of each of these payments, and posts the
difference. Replicas of the version before must be stopped: they would continue to apply events in order of arrival.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OF_LOTS = ("out_nano", "out_taken_nano", "out_expired_nano", "out_nanousd", "displaced_nano", "lent_nano")
OF_TOPUPS = ("returned_minor", "back_nanousd", "second_of_payment", "fee_known", "asked_at_ns")
EFFECT = ("taken", "lot_nano", "expired_nano", "debt_nano", "back_nanousd", "deferred_nanousd")
OWN_PAYMENT = sa.text("payment_intent != '' AND second_of_payment = 0")
FEE_UNKNOWN = sa.text("state = 'paid' AND fee_known = 0")
UNMATCHED = sa.text("unmatched != ''")


def _number(name: str) -> "sa.Column[Any]":
    return sa.Column(name, INT64, nullable=False, server_default=sa.text("0"))


def _words(name: str) -> "sa.Column[Any]":
    return sa.Column(name, sa.Text(), nullable=False, server_default=sa.text("''"))


def _table(name: str, columns: str, key: str, key_name: str) -> None:
    """Create a table from names of its columns; texts end in `:t`."""
    parts = [column.partition(":") for column in columns.split()]
    op.create_table(
        name,
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        *(sa.Column(column, sa.Text() if kind else INT64, nullable=False) for column, kind, _ in parts),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
        sa.UniqueConstraint(*key.split(), name=op.f(key_name)),
        sqlite_strict=True,
    )


def upgrade() -> None:
    for name in OF_LOTS:
        op.add_column("lots", _number(name))
    for name in OF_TOPUPS:
        op.add_column("topups", _number(name))
    op.add_column("payment_returns", _number("told_at_ns"))
    op.add_column("payment_returns", _words("unmatched"))
    op.add_column("payment_fees", _words("source"))
    op.add_column("auto_topups", _number("paused"))
    _table(
        "unmatched_payments",
        "tenant_id topup_key:t payment_intent:t currency:t amount_minor reason:t paid_at_ns recorded_at_ns",
        "tenant_id payment_intent topup_key",
        "uq_unmatched_payments",
    )
    _table(
        "waiting_fees",
        "tenant_id fee_id:t payment_intent:t source:t currency:t fee_minor reason:t recorded_at_ns",
        "tenant_id fee_id",
        "uq_waiting_fees_tenant_id_fee_id",
    )
    op.create_index("ix_waiting_fees_payment_intent", "waiting_fees", ["tenant_id", "payment_intent"])
    op.create_index("ix_waiting_fees_currency", "waiting_fees", ["tenant_id", "reason", "currency"])
    _table(
        "auto_topup_turns",
        "tenant_id wallet:t looked_at_ns reason:t until_ns",
        "tenant_id wallet",
        "uq_auto_topup_turns_tenant_id_wallet",
    )
    _carry_payments()
    _carry_lots(op.get_bind())
    for name in (*EFFECT, "topup_id"):
        op.drop_column("payment_returns", name)
    op.drop_index("ix_topups_payment_intent", "topups")
    for index, table, columns, unique, where in (
        ("uq_topups_payment_intent", "topups", ["tenant_id", "payment_intent"], True, OWN_PAYMENT),
        ("ix_topups_fee_unknown", "topups", ["tenant_id", "id"], False, FEE_UNKNOWN),
        ("ix_payment_returns_unmatched", "payment_returns", ["tenant_id", "id"], False, UNMATCHED),
    ):
        op.create_index(index, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def _carry_payments() -> None:
    # Among top-ups with one payment the paid one keeps it, or else the first.
    op.execute(
        "UPDATE topups SET second_of_payment = 1 WHERE payment_intent <> '' AND EXISTS (SELECT 1 FROM topups o"
        " WHERE o.tenant_id = topups.tenant_id AND o.payment_intent = topups.payment_intent AND o.id <> topups.id"
        " AND (CASE o.state WHEN 'paid' THEN 0 ELSE 1 END < CASE topups.state WHEN 'paid' THEN 0 ELSE 1 END"
        " OR ((o.state = 'paid') = (topups.state = 'paid') AND o.id < topups.id)))"
    )
    # A fee belongs to the payment if there was no dispute; otherwise Stripe is asked again, and a fee that is already
    # booked is not booked twice.
    disputed = (
        "EXISTS (SELECT 1 FROM payment_returns r JOIN topups t ON t.tenant_id = r.tenant_id"
        " AND t.payment_intent = r.payment_intent WHERE r.kind = 'dispute' AND t.id = {})"
    )
    op.execute(f"UPDATE payment_fees SET source = 'payment' WHERE NOT {disputed.format('payment_fees.topup_id')}")
    op.execute(
        "UPDATE topups SET fee_known = 1 WHERE EXISTS (SELECT 1 FROM payment_fees f WHERE f.topup_id = topups.id"
        " AND f.tenant_id = topups.tenant_id AND f.source = 'payment')"
    )
    op.execute("UPDATE payment_returns SET told_at_ns = created_at_ns")
    op.execute(
        "UPDATE payment_returns SET unmatched = 'its payment is not known' WHERE wanted = 1 AND NOT EXISTS"
        " (SELECT 1 FROM topups t WHERE t.tenant_id = payment_returns.tenant_id"
        " AND t.payment_intent = payment_returns.payment_intent AND t.lot_id IS NOT NULL)"
    )
    # Separate moves of lots by returned payments from those that people made.
    op.execute(
        "UPDATE lot_moves SET kind = 'payment_return' WHERE kind IN ('refund', 'dispute')"
        " AND EXISTS (SELECT 1 FROM topups t WHERE t.tenant_id = lot_moves.tenant_id AND t.lot_id = lot_moves.lot_id)"
        " AND NOT EXISTS (SELECT 1 FROM transactions m JOIN idempotency_keys k ON k.transaction_id = m.id"
        " WHERE m.tenant_id = lot_moves.tenant_id AND m.kind = 'refund'"
        " AND m.recorded_at_ns = lot_moves.recorded_at_ns)"
    )


def _carry_lots(connection: sa.Connection) -> None:
    sums = ", ".join(f"sum(r.{name}) AS {name}" for name in EFFECT if name != "taken")
    topups = connection.execute(
        sa.text(
            f"SELECT t.id, t.tenant_id, t.wallet, t.lot_id, {sums} FROM topups t JOIN payment_returns r"
            " ON r.tenant_id = t.tenant_id AND r.topup_id = t.id WHERE t.lot_id IS NOT NULL AND r.taken = 1"
            " GROUP BY t.id, t.tenant_id, t.wallet, t.lot_id ORDER BY t.id"
        )
    ).all()
    # -1: to be recomputed by the next round.
    connection.execute(
        sa.text(
            "UPDATE topups SET returned_minor = -1 WHERE lot_id IS NOT NULL AND second_of_payment = 0 AND EXISTS"
            " (SELECT 1 FROM payment_returns r WHERE r.tenant_id = topups.tenant_id"
            " AND r.payment_intent = topups.payment_intent)"
        )
    )
    lent_out: dict[tuple[int, str], int] = {}
    for row in topups:
        wallet = (row.tenant_id, row.wallet)
        displaced = _paid_by_others(connection, row, lent_out.get(wallet, 0))
        lent_out[wallet] = lent_out.get(wallet, 0) + displaced[0]
        connection.execute(
            sa.text(
                "UPDATE lots SET out_nano = :out, out_taken_nano = :taken, out_expired_nano = :expired,"
                " out_nanousd = :part, displaced_nano = :displaced WHERE id = :lot AND tenant_id = :tenant"
            ),
            {
                "out": row.lot_nano + row.expired_nano + row.debt_nano,
                "taken": row.lot_nano,
                "expired": row.expired_nano,
                "part": row.deferred_nanousd,
                "displaced": sum(displaced),
                "lot": row.lot_id,
                "tenant": row.tenant_id,
            },
        )
        connection.execute(
            sa.text("UPDATE topups SET back_nanousd = :back WHERE id = :id AND tenant_id = :tenant"),
            {"back": row.back_nanousd, "id": row.id, "tenant": row.tenant_id},
        )


def _paid_by_others(connection: sa.Connection, row: "sa.Row[Any]", as_overdraft: int) -> tuple[int, int]:
    """Return what pays the debt of a returned payment now: (overdraft, what other lots lend)."""
    values = {"tenant": row.tenant_id, "wallet": row.wallet, "lot": row.lot_id}
    overdraft = connection.execute(
        sa.text(
            "SELECT coalesce(max(overdraft_nano), 0) FROM accounts WHERE tenant_id = :tenant AND kind = 'wallet'"
            " AND name = :wallet"
        ),
        values,
    ).scalar_one()
    unpaid = min(row.debt_nano, overdraft - as_overdraft)
    left = row.debt_nano - unpaid
    others = connection.execute(
        sa.text(
            "SELECT id, amount_nano - taken_nano - remaining_nano - lent_nano AS used FROM lots"
            " WHERE tenant_id = :tenant AND wallet = :wallet AND id <> :lot ORDER BY id DESC"
        ),
        values,
    ).all()
    for other in others:
        part = min(left, other.used)
        if part > 0:
            lend = sa.text("UPDATE lots SET lent_nano = lent_nano + :part WHERE id = :id AND tenant_id = :tenant")
            connection.execute(lend, {"part": part, "id": other.id, "tenant": row.tenant_id})
            left -= part
    return unpaid, row.debt_nano - unpaid - left


def downgrade() -> None:
    for index, table in (
        ("uq_topups_payment_intent", "topups"),
        ("ix_topups_fee_unknown", "topups"),
        ("ix_payment_returns_unmatched", "payment_returns"),
    ):
        op.drop_index(index, table)
    op.create_index("ix_topups_payment_intent", "topups", ["tenant_id", "payment_intent"])
    for name in EFFECT:
        op.add_column("payment_returns", _number(name))
    op.add_column("payment_returns", sa.Column("topup_id", INT64, nullable=True))
    for name in ("unmatched_payments", "waiting_fees", "auto_topup_turns"):
        op.drop_table(name)
    for table, names in (
        ("lots", OF_LOTS),
        ("topups", OF_TOPUPS),
        ("payment_returns", ("told_at_ns", "unmatched")),
        ("payment_fees", ("source",)),
        ("auto_topups", ("paused",)),
    ):
        for name in names:
            op.drop_column(table, name)
