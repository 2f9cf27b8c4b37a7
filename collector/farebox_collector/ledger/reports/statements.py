"""Statements: read the books for API and command line. Every list is a page of rows in a fixed order."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    LargeBinary,
    Row,
    Select,
    and_,
    cast,
    exists,
    false,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)

from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.journal.posting_index import legs_of
from farebox_collector.ledger.reports.wallet_usage import newest_of_wallet
from farebox_collector.ledger.tables.books import (
    UNSETTLED_VERDICTS,
    accounts,
    charge_rules,
    postings,
    transactions,
    usage_records,
)
from farebox_collector.ledger.tables.corrections import corrections
from farebox_collector.ledger.tables.prices import price_versions
from farebox_collector.ledger.usage.span_index import of_spans, of_traces
from farebox_collector.ledger.usage.stored_usage import in_order, of_verdict
from farebox_collector.model.money import Commodity
from farebox_collector.model.verdicts import Verdict

_PRICE_SLOT = ("provider", "model", "unit", "condition", "over_input_tokens", "daily_from_s", "daily_to_s", "weekdays")


class UsageFilter(NamedTuple):
    """Filter of usage records; an empty field does not filter."""

    wallet: str = ""
    event: str = ""
    model: str = ""
    verdict: str = ""
    trace_id: bytes = b""
    from_ns: int | None = None
    to_ns: int | None = None
    """Half-open, by the moment whose price was used."""


def wallets(connection: Connection, tenant_id: int, after: str = "", limit: int = 100) -> Sequence[Row[Any]]:
    """Return wallets by name: name, balance_nano, spent_nano, last_activity_ns, created_at_ns."""
    return connection.execute(
        _wallets(tenant_id).where(accounts.c.name > after).order_by(accounts.c.name).limit(limit)
    ).all()


def wallet(connection: Connection, tenant_id: int, name: str) -> Row[Any] | None:
    """Return one wallet, with the columns of `wallets`; None if it never existed."""
    return connection.execute(_wallets(tenant_id).where(accounts.c.name == name)).first()


def usage(
    connection: Connection,
    tenant_id: int,
    wanted: UsageFilter,
    before_id: int | None = None,
    limit: int = 100,
) -> Sequence[Row[Any]]:
    """Return usage records, newest first."""
    table = usage_records.c
    narrow = wanted.verdict in UNSETTLED_VERDICTS or (wanted.from_ns, wanted.to_ns) != (None, None)
    conditions: list[ColumnElement[bool]] = [
        table.tenant_id == tenant_id if narrow and not wanted.trace_id else in_order(tenant_id)
    ]
    for name in ("wallet", "event", "model"):
        value = getattr(wanted, name)
        if value:
            conditions.append(usage_records.c[name] == value)
    if wanted.trace_id:
        conditions.append(of_traces(connection, tenant_id, [wanted.trace_id]))
    if wanted.verdict:
        conditions.append(of_verdict(wanted.verdict))
    if wanted.from_ns is not None:
        conditions.append(table.priced_at_ns >= wanted.from_ns)
    if wanted.to_ns is not None:
        conditions.append(table.priced_at_ns < wanted.to_ns)
    last_transaction = None
    if before_id is not None:
        conditions.append(table.id < before_id)
        before = select(table.transaction_id).where(table.id == before_id)
        last_transaction = connection.execute(before).scalar()
    if wanted.wallet:
        found = newest_of_wallet(connection, tenant_id, wanted.wallet, conditions, limit, last_transaction)
        conditions = [table.id.in_(found)]
    return connection.execute(
        select(usage_records).where(and_(*conditions)).order_by(table.id.desc()).limit(limit)
    ).all()


def usage_record(connection: Connection, tenant_id: int, trace_id: bytes, span_id: bytes) -> Row[Any] | None:
    """Return the usage record of a span; None if it is not in the books."""
    of_span = of_spans(connection, tenant_id, [(trace_id, span_id)])
    return connection.execute(select(usage_records).where(of_span)).first()


def corrections_of(connection: Connection, tenant_id: int, record_id: int, limit: int = 1_000) -> Sequence[Row[Any]]:
    """Return the corrections of a usage record, oldest first."""
    table = corrections.c
    return connection.execute(
        select(corrections)
        .where(table.tenant_id == tenant_id, table.usage_record_id == record_id)
        .order_by(table.number)
        .limit(limit)
    ).all()


def ledger(
    connection: Connection,
    tenant_id: int,
    wallet: str = "",
    kind: str = "",
    before: tuple[int, str, int] | None = None,
    limit: int = 100,
) -> Sequence[Row[Any]]:
    """Return changes of wallets, newest first: a row for each charged call and each other transaction.

    Columns: recorded_at_ns, type, id, wallet, amount_nano (signed), transaction_id, memo, and for charges trace_id,
    span_id, event. `before` continues after the (transaction_id, type, id) of a row. This order does not depend on
    clocks.
    """
    found: list[Select[Any]] = []
    if kind in ("", "charge"):
        found.append(_charges(connection, tenant_id, wallet, before, limit))
    if kind != "charge":
        found += _movements(connection, tenant_id, wallet, kind, before, limit)
    merged = union_all(*(select(part.subquery()) for part in found)).subquery()
    order = (merged.c.transaction_id.desc(), merged.c.type.desc(), merged.c.id.desc())
    return connection.execute(select(merged).order_by(*order).limit(limit)).all()


def price_versions_at(
    connection: Connection,
    tenant_id: int,
    at_ns: int,
    provider: str = "",
    model: str = "",
    after_id: int = 0,
    limit: int = 100,
) -> Sequence[Row[Any]]:
    """Return the price versions in force for a tenant at a moment, in the order of recording.

    A list price is left out if the tenant has a negotiated price for the same unit.
    """
    table = price_versions.c
    own = price_versions.alias("own")
    negotiated = exists().where(
        own.c.tenant_id == tenant_id,
        own.c.valid_from_ns <= at_ns,
        or_(own.c.valid_to_ns.is_(None), own.c.valid_to_ns > at_ns),
        *(own.c[name] == table[name] for name in _PRICE_SLOT),
    )
    conditions = [
        table.valid_from_ns <= at_ns,
        or_(table.valid_to_ns.is_(None), table.valid_to_ns > at_ns),
        table.id > after_id,
        or_(table.tenant_id == tenant_id, and_(table.tenant_id.is_(None), ~negotiated)),
    ]
    if provider:
        conditions.append(table.provider == provider)
    if model:
        conditions.append(table.model == model)
    return connection.execute(select(price_versions).where(and_(*conditions)).order_by(table.id).limit(limit)).all()


def price_versions_by_id(connection: Connection, ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Return price versions by id."""
    return connection.execute(select(price_versions).where(price_versions.c.id.in_(ids))).all()


def charge_rules_of(
    connection: Connection,
    tenant_id: int,
    event: str = "",
    at_ns: int | None = None,
    after: tuple[str, int] | None = None,
    limit: int | None = None,
) -> Sequence[Row[Any]]:
    """Return a tenant's charge rule versions by event and start: all, of one event, or in force at a moment.

    `after` is the event and start of the last version of the page before.
    """
    table = charge_rules.c
    query = select(charge_rules).where(table.tenant_id == tenant_id)
    if event:
        query = query.where(table.event == event)
    if at_ns is not None:
        holds = or_(table.valid_to_ns.is_(None), table.valid_to_ns > at_ns)
        query = query.where(table.valid_from_ns <= at_ns, holds)
    if after is not None:
        name, from_ns = after
        query = query.where(or_(table.event > name, and_(table.event == name, table.valid_from_ns > from_ns)))
    return connection.execute(query.order_by(table.event, table.valid_from_ns).limit(limit)).all()


def charge_rule(connection: Connection, rule_version_id: int) -> Row[Any] | None:
    """Return a charge rule version; None if there is none."""
    return connection.execute(select(charge_rules).where(charge_rules.c.id == rule_version_id)).first()


def charged_calls(connection: Connection, wallet: str) -> int:
    """Return the number of charged calls of the wallets of this name, over all tenants."""
    calls = func.coalesce(func.sum(accounts.c.charged_calls), 0)
    return int(
        connection.execute(select(calls).where(accounts.c.kind == WALLET, accounts.c.name == wallet)).scalar_one()
    )


def _wallets(tenant_id: int) -> Select[Any]:
    table = accounts.c
    return select(table.name, table.balance_nano, table.spent_nano, table.last_activity_ns, table.created_at_ns).where(
        table.tenant_id == tenant_id, table.kind == WALLET, table.commodity == Commodity.CREDIT
    )


def _charges(
    connection: Connection, tenant_id: int, wallet: str, before: tuple[int, str, int] | None, limit: int
) -> Select[Any]:
    table = usage_records.c
    kind = literal("charge")
    chosen = select(
        table.received_at_ns.label("recorded_at_ns"),
        kind.label("type"),
        table.id,
        table.wallet,
        (-table.charge_nanocredits).label("amount_nano"),
        table.transaction_id,
        literal("").label("memo"),
        table.trace_id,
        table.span_id,
        table.event,
    ).where(in_order(tenant_id), table.verdict == Verdict.CHARGED)
    chosen = _before(chosen, before, table.transaction_id, kind, table.id)
    if wallet:
        conditions = [] if chosen.whereclause is None else [chosen.whereclause]
        last = before[0] if before else None
        found = newest_of_wallet(connection, tenant_id, wallet, conditions, limit, last)
        # An empty list would scan all records of the tenant.
        chosen = chosen.where(table.id.in_(found) if found else false())
    # Ids grow with transactions, and the indexes end in the id.
    return chosen.order_by(table.id.desc()).limit(limit)


def _movements(
    connection: Connection, tenant_id: int, wallet: str, kind: str, before: tuple[int, str, int] | None, limit: int
) -> Iterator[Select[Any]]:
    """Yield queries of the newest movements of a wallet, or of all wallets."""
    made, account = transactions.c, accounts.c
    parts: Sequence[FromClause] = (postings,)
    if wallet:
        own_rows = select(account.id).where(
            account.tenant_id == tenant_id, account.kind == WALLET, account.name == wallet
        )
        parts = legs_of(connection, list(connection.execute(own_rows).scalars()))
    for part in parts:
        leg = part.c
        chosen = (
            select(
                made.recorded_at_ns,
                made.kind.label("type"),
                leg.id,
                account.name.label("wallet"),
                leg.amount_nano,
                made.id.label("transaction_id"),
                made.memo,
                cast(null(), LargeBinary).label("trace_id"),
                cast(null(), LargeBinary).label("span_id"),
                literal("").label("event"),
            )
            .join(part, leg.transaction_id == made.id)
            .join(accounts, account.id == leg.account_id)
            .where(made.tenant_id == tenant_id, made.kind != "usage", account.kind == WALLET)
        )
        if kind:
            chosen = chosen.where(made.kind == kind)
        chosen = _before(chosen, before, made.id, made.kind, leg.id)
        yield chosen.order_by(made.id.desc(), leg.id.desc()).limit(limit)


def _before(
    chosen: Select[Any],
    before: tuple[int, str, int] | None,
    transaction: ColumnElement[int],
    kind: ColumnElement[str],
    row_id: ColumnElement[int],
) -> Select[Any]:
    if before is None:
        return chosen
    transaction_id, kind_name, last_id = before
    same = transaction == transaction_id
    return chosen.where(
        or_(transaction < transaction_id, and_(same, kind < kind_name), and_(same, kind == kind_name, row_id < last_id))
    )
