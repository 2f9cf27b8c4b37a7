"""Spending and holds by the subjects of limits: wallets, users of a wallet, departments and projects.

Charges of a wallet are in `wallet_days`. Charges of the other subjects are in `spending_days`, by the UTC day of their
price, updated in the transaction that records the calls. Their open holds are in `spenders`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, case, func, literal, literal_column, or_, select, union_all

from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.books import accounts
from farebox_collector.ledger.tables.credits import holds
from farebox_collector.ledger.tables.limits import spenders, spending_days
from farebox_collector.ledger.tables.rollups import wallet_days
from farebox_collector.model.moments import DAY_NS
from farebox_collector.model.pseudonyms import name_in_books

SpendingKey = tuple[int, str, str, str, str]
"""Day; the wallet, if there is a user of it; user, department, project."""


# A literal, not a parameter: SQLite uses a partial index only if the query has the same condition.
IS_OPEN = holds.c.state == literal_column("'open'")
"""The hold is open in the books; it may have expired already."""
_AT_ONCE = 50
_DAYS_KEY = ("tenant_id", "day", "scope", "name", "user_id")
_HELD_COLUMNS = ("tenant_id", "scope", "name", "user_id", "held_nano")
_HELD_TAIL = (
    " ON CONFLICT (tenant_id, scope, name, user_id) DO UPDATE SET held_nano = spenders.held_nano + excluded.held_nano"
    " RETURNING scope, name, user_id, held_nano"
)


class LimitScope(StrEnum):
    """Kind of subject that a limit applies to."""

    WALLET = "wallet"
    USER = "user"
    """A user of a shared wallet."""
    DEPT = "dept"
    PROJECT = "project"


class Subject(NamedTuple):
    """The subject of a limit."""

    scope: LimitScope
    name: str
    """Name of the wallet, department or project."""
    user_id: str = ""


def in_books(subject: Subject) -> Subject:
    """Return a subject as stored: wallets and users may be pseudonyms, departments and projects never are."""
    if subject.scope not in (LimitScope.WALLET, LimitScope.USER):
        return subject
    return subject._replace(name=name_in_books(subject.name), user_id=name_in_books(subject.user_id))


class Spent(NamedTuple):
    """Nanocredits charged for calls, net of corrections."""

    day: int
    month: int


NOTHING_SPENT = Spent(0, 0)


def subjects_of(wallet: str, user_id: str, dept: str, project: str) -> tuple[Subject, ...]:
    """Return the subjects that a call or hold counts for, besides its wallet."""
    found = []
    if dept:
        found.append(Subject(LimitScope.DEPT, dept))
    if project:
        found.append(Subject(LimitScope.PROJECT, project))
    if user_id:
        found.append(Subject(LimitScope.USER, wallet, user_id))
    return tuple(found)


def add_spending(connection: Connection, tenant_id: int, charged: Mapping[SpendingKey, int], sign: int = 1) -> None:
    """Add charges to the days of their subjects; a sign of -1 takes them back."""
    sums: defaultdict[tuple[int, Subject], int] = defaultdict(int)
    for (day, *who), charge in charged.items():
        for subject in subjects_of(*who):
            sums[day, subject] += sign * charge
    # One order for all writers prevents deadlocks.
    rows = [(tenant_id, day, *subject, charge) for (day, subject), charge in sorted(sums.items())]
    bulk_insert.insert_adding(connection, spending_days.name, _DAYS_KEY, ("charge_nanocredits",), rows)


def add_held(connection: Connection, tenant_id: int, changes: Mapping[Subject, int]) -> dict[Subject, int]:
    """Add to the held sum of each subject and return the new sums; locks the rows until the end of the transaction.

    The caller has locked the wallets' accounts before: all writers lock in that order.
    """
    rows = [(tenant_id, *subject, more) for subject, more in sorted(changes.items())]
    returned = bulk_insert.upsert_returning(connection, "spenders", _HELD_COLUMNS, _HELD_TAIL, rows)
    return {Subject(LimitScope(scope), name, user_id): held for scope, name, user_id, held in returned}


def held_of(connection: Connection, tenant_id: int, subjects: Sequence[Subject], at_ns: int) -> dict[Subject, int]:
    """Return what open holds reserve for each subject at a moment; takes no lock."""
    account, spender = accounts.c, spenders.c
    wallets = [subject.name for subject in subjects if subject.scope is LimitScope.WALLET]
    of_wallets = select(account.name, account.held_nano).where(
        account.tenant_id == tenant_id, account.kind == WALLET, account.name.in_(wallets)
    )
    of_others = select(spender.scope, spender.name, spender.user_id, spender.held_nano).where(
        spender.tenant_id == tenant_id, spender.name.in_([subject.name for subject in subjects])
    )
    held = {Subject(LimitScope.WALLET, name): amount for name, amount in connection.execute(of_wallets)}
    for scope, name, user_id, amount in connection.execute(of_others):
        held[Subject(LimitScope(scope), name, user_id)] = amount
    over = held_by_expired(connection, tenant_id, subjects, at_ns)
    return {subject: held.get(subject, 0) - over.get(subject, 0) for subject in subjects}


def held_by_expired(
    connection: Connection, tenant_id: int, subjects: Sequence[Subject], at_ns: int
) -> dict[Subject, int]:
    """Return what expired holds still reserve in the books for each subject, because the sweep has not closed them."""
    names: defaultdict[LimitScope, list[str]] = defaultdict(list)
    for subject in subjects:
        names[subject.scope].append(subject.name)
    table = holds.c
    owners = names[LimitScope.WALLET] + names[LimitScope.USER]
    chosen = [table.wallet.in_(owners)] if owners else []
    chosen += [table[scope].in_(names[scope]) for scope in (LimitScope.DEPT, LimitScope.PROJECT) if names[scope]]
    if not chosen:
        return {}
    who = (table.wallet, table.user_id, table.dept, table.project)
    query = select(*who, func.sum(table.open_nano)).where(
        table.tenant_id == tenant_id, IS_OPEN, table.expires_at_ns <= at_ns, or_(*chosen)
    )
    sums: defaultdict[Subject, int] = defaultdict(int)
    for wallet, user_id, dept, project, amount in connection.execute(query.group_by(*who)):
        for subject in (Subject(LimitScope.WALLET, wallet), *subjects_of(wallet, user_id, dept, project)):
            sums[subject] += int(amount)
    return dict(sums)


def spent_of(connection: Connection, tenant_id: int, subjects: Sequence[Subject], at_ns: int) -> dict[Subject, Spent]:
    """Return the spending of each subject on the UTC day and in the month of a moment. Reads days, never records."""
    today, days = at_ns // DAY_NS, days_of_month(at_ns)
    found = {}
    for start in range(0, len(subjects), _AT_ONCE):
        chunk = subjects[start : start + _AT_ONCE]
        parts = [_of_subject(tenant_id, place, subject, days, today) for place, subject in enumerate(chunk)]
        for place, day, month in connection.execute(union_all(*parts)):
            found[chunk[place]] = Spent(int(day), int(month))
    return found


def _of_subject(tenant_id: int, place: int, subject: Subject, days: Sequence[int], today: int) -> Select[Any]:
    if subject.scope is LimitScope.WALLET:
        table, chosen = wallet_days.c, [wallet_days.c.wallet == subject.name]
    else:
        table = spending_days.c
        chosen = [table.scope == subject.scope, table.name == subject.name, table.user_id == subject.user_id]
    charge = table.charge_nanocredits
    sums = (func.coalesce(func.sum(case((table.day == today, charge), else_=0)), 0), func.coalesce(func.sum(charge), 0))
    return select(literal(place), *sums).where(table.tenant_id == tenant_id, table.day.in_(days), *chosen)


def days_of_month(at_ns: int) -> list[int]:
    """Return the UTC days of a moment's month so far."""
    today = at_ns // DAY_NS
    first = today - datetime.fromtimestamp(at_ns // 10**9, UTC).day + 1
    # Clocks may run ahead a little: include tomorrow if it is of the same month.
    return [day for day in range(first, today + 2) if _month(day) == _month(today)]


def _month(day: int) -> int:
    return datetime.fromtimestamp(day * 86_400, UTC).month
