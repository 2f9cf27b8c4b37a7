"""Tables of erased names. No name is in them: only its keyed hash, so that it is known when it comes again."""

from sqlalchemy import Column, LargeBinary, PrimaryKeyConstraint, UniqueConstraint

from farebox_collector.ledger.tables.columns import (
    identity,
    number,
    table,
    words,
)

# The secret of a tenant under which names are hashed; sealed as `stored_secrets` says.
name_secrets = table(
    "name_secrets",
    identity(),
    number("tenant_id"),
    Column("secret", LargeBinary, nullable=False),
    UniqueConstraint("tenant_id"),
)

erased_names = table(
    "erased_names",
    number("tenant_id"),
    Column("name_hmac", LargeBinary, nullable=False),
    words("pseudonym"),
    number("begun_at_ns"),
    # NULL until the books have the pseudonym in its place; from then on the name is replaced in what comes in.
    number("renamed_at_ns", nullable=True),
    # NULL until the name is nowhere in the books any more.
    number("ended_at_ns", nullable=True),
    PrimaryKeyConstraint("tenant_id", "name_hmac"),
)
