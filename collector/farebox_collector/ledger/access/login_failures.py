"""Count failed logins by account and by address; past a bound, further attempts are locked out.

An attempt is counted before the password is checked, so that concurrent guesses cannot exceed the bound.
"""

import hashlib
import ipaddress
from enum import StrEnum

from sqlalchemy import Connection, delete, update

from farebox_collector.ledger.access.audit_log import note
from farebox_collector.ledger.storage import bulk_insert
from farebox_collector.ledger.tables.access import login_failures
from farebox_collector.model.records import DEFAULT_TENANT_ID

WINDOW_NS = 15 * 60 * 10**9
"""Window in which failures are counted."""
LOCK_NS = 15 * 60 * 10**9
"""How long attempts are locked out after too many failures."""
MOST_OF_ACCOUNT = 10
MOST_OF_ADDRESS = 30
_KEPT_NS = 86_400 * 10**9
_COLUMNS = ("tenant_id", "kind", "subject", "failures", "first_at_ns", "locked_until_ns")


class Counted(StrEnum):
    """What failures are counted by."""

    ACCOUNT = "account"
    ADDRESS = "address"


def count_attempt(connection: Connection, tenant_id: int, login: str, known: bool, address: str, at_ns: int) -> int:
    """Count a login attempt; returns the end of its lockout in nanoseconds, or 0.

    Unknown logins share a few counters: guesses neither fill the table nor reveal which logins exist.
    """
    connection.execute(delete(login_failures).where(login_failures.c.first_at_ns < at_ns - _KEPT_NS))
    by_address = _count(connection, DEFAULT_TENANT_ID, Counted.ADDRESS, _network(address), MOST_OF_ADDRESS, at_ns)
    subject = login if known else f"?{hashlib.sha256(login.encode(errors='replace')).hexdigest()[:3]}"
    by_account = _count(connection, tenant_id, Counted.ACCOUNT, subject, MOST_OF_ACCOUNT, at_ns)
    return max(by_address, by_account)


def forget_attempt(connection: Connection, tenant_id: int, login: str, address: str) -> None:
    """Take back a successful attempt: reset the failures of the account, and subtract one from the address."""
    table = login_failures.c
    own_rows = (table.tenant_id == tenant_id, table.kind == Counted.ACCOUNT, table.subject == login)
    connection.execute(delete(login_failures).where(*own_rows))
    of_address = (
        table.tenant_id == DEFAULT_TENANT_ID,
        table.kind == Counted.ADDRESS,
        table.subject == _network(address),
    )
    chosen = update(login_failures).where(*of_address, table.failures > 0)
    connection.execute(chosen.values(failures=table.failures - 1))


def unlock(connection: Connection, tenant_id: int, login: str, at_ns: int) -> None:
    """End the lockout of an account and of every address."""
    table = login_failures.c
    connection.execute(delete(login_failures).where(table.tenant_id == tenant_id, table.subject == login))
    connection.execute(delete(login_failures).where(table.kind == Counted.ADDRESS))
    note(connection, tenant_id, "person.unlock", login, at_ns)


def _count(connection: Connection, tenant_id: int, kind: Counted, subject: str, most: int, at_ns: int) -> int:
    table = "login_failures"
    anew = (
        f"({table}.first_at_ns <= {at_ns - WINDOW_NS} AND {table}.locked_until_ns <= {at_ns})"
        f" OR ({table}.locked_until_ns > 0 AND {table}.locked_until_ns <= {at_ns})"
    )
    tail = (
        " ON CONFLICT (tenant_id, kind, subject) DO UPDATE SET"
        f" failures = CASE WHEN {anew} THEN 1 ELSE {table}.failures + 1 END,"
        f" first_at_ns = CASE WHEN {anew} THEN {at_ns} ELSE {table}.first_at_ns END,"
        f" locked_until_ns = CASE WHEN {anew} THEN 0"
        f" WHEN {table}.locked_until_ns = 0 AND {table}.failures >= {most} THEN {at_ns + LOCK_NS}"
        f" ELSE {table}.locked_until_ns END RETURNING locked_until_ns"
    )
    rows = bulk_insert.upsert_returning(
        connection, table, _COLUMNS, tail, [(tenant_id, kind.value, subject, 1, at_ns, 0)]
    )
    return int(rows[0][0])


def _network(address: str) -> str:
    """Return an address as counted: an IPv6 address counts as its /64 network, which is usually one customer's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else address
