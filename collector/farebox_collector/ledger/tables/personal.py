"""Tables of erased names. They store only the keyed hash of a name, which recognises it in new spans."""

from sqlalchemy import Column, LargeBinary, PrimaryKeyConstraint, UniqueConstraint

from farebox_collector.ledger.tables.columns import (
    identity,
    number,
    table,
    words,
)

# The tenant's secret for hashing names; sealed as `stored_secrets` describes.
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
    # NULL until the books have the pseudonym in its place; from then on the name is replaced in new spans.
    number("renamed_at_ns", nullable=True),
    # NULL until the books no longer contain the name.
    number("ended_at_ns", nullable=True),
    PrimaryKeyConstraint("tenant_id", "name_hmac"),
)
