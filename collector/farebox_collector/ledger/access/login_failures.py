"""Failed logins, counted for each account and each address; past a bound further attempts wait.

An attempt is counted before the password is looked at, so that guesses at the same moment cannot pass the bound.
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
"""Failures are counted within so long."""
LOCK_NS = 15 * 60 * 10**9
"""How long attempts wait after too many."""
MOST_OF_ACCOUNT = 10
MOST_OF_ADDRESS = 30
_KEPT_NS = 86_400 * 10**9
_COLUMNS = ("tenant_id", "kind", "subject", "failures", "first_at_ns", "locked_until_ns")


class Counted(StrEnum):
    """What failures are counted for."""

    ACCOUNT = "account"
    ADDRESS = "address"


def count_attempt(connection: Connection, tenant_id: int, login: str, known: bool, address: str, at_ns: int) -> int:
    """Count an attempt to log in; returns until when it has to wait, in nanoseconds, or 0.

    Logins that are not known share a few counters, so that guessing names fills no table and shows no difference.
    """
    connection.execute(delete(login_failures).where(login_failures.c.first_at_ns < at_ns - _KEPT_NS))
    by_address = _count(connection, DEFAULT_TENANT_ID, Counted.ADDRESS, _network(address), MOST_OF_ADDRESS, at_ns)
    subject = login if known else f"?{hashlib.sha256(login.encode(errors='replace')).hexdigest()[:3]}"
    by_account = _count(connection, tenant_id, Counted.ACCOUNT, subject, MOST_OF_ACCOUNT, at_ns)
    return max(by_address, by_account)


def forget_attempt(connection: Connection, tenant_id: int, login: str, address: str) -> None:
    """Take back an attempt that succeeded: the account's failures are over, the address has one less."""
    table = login_failures.c
    mine = (table.tenant_id == tenant_id, table.kind == Counted.ACCOUNT, table.subject == login)
    connection.execute(delete(login_failures).where(*mine))
    of_address = (
        table.tenant_id == DEFAULT_TENANT_ID,
        table.kind == Counted.ADDRESS,
        table.subject == _network(address),
    )
    chosen = update(login_failures).where(*of_address, table.failures > 0)
    connection.execute(chosen.values(failures=table.failures - 1))


def unlock(connection: Connection, tenant_id: int, login: str, at_ns: int) -> None:
    """Let an account log in again at once, and every address too."""
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
    """An address as it is counted: an IPv6 network of 64 bits is one customer's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else address
