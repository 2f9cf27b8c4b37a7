"""Logins by password or OpenID identity, and look-ups of session tokens."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.ledger.access import people, sessions
from farebox_collector.ledger.access.actors import Actor, acting, acting_as
from farebox_collector.ledger.access.login_failures import count_attempt, forget_attempt
from farebox_collector.ledger.access.people import Identity
from farebox_collector.ledger.access.refusals import Attempt, Refusals
from farebox_collector.ledger.access.sessions import (
    Found,
    Lifetime,
    Origin,
    SessionOver,
)
from farebox_collector.ledger.access.tenants import tenant_of
from farebox_collector.ledger.storage.database import Database
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.credentials import Caller, Role, fingerprint
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.surfaces.passwords import hash_password, is_outdated, is_password

SESSION_CACHE_NS = 10**9
"""How long a found session is cached: an ended session works no longer than this."""
_MAX_CACHED = 10_000
_LOG_IN = "log in"


_WHY = {
    "locked": "too many failed attempts",
    "wrong": "wrong login or password",
    "no_role": "no group with a role",
    "disabled": "disabled",
}
"""Reasons for refused logins: metric label to audit log text."""


class LoginRefused(Exception):
    """The login is refused; the message tells the person what to do."""

    def __init__(self, message: str, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Claimed(NamedTuple):
    """A person's identity as claimed by an OpenID provider."""

    identity: Identity
    login: str
    name: str
    groups: frozenset[str]


class LoginDesk:
    """Logins and sessions of one installation. Its methods may be called from any thread."""

    def __init__(
        self,
        database: Database,
        refusals: Refusals,
        lifetime: Lifetime,
        clock: Callable[[], int],
        meters: Meters | None = None,
    ) -> None:
        """Refusals are counted in `meters` as well as in the audit log."""
        self._database = database
        self._refusals = refusals
        self._lifetime = lifetime
        self._clock = clock
        self._meters = meters
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[Found, int]] = {}

    @property
    def lifetime(self) -> Lifetime:
        """The lifetime of sessions."""
        return self._lifetime

    async def session(self, token: str) -> Found:
        """Return the session of a token. Raises SessionOver."""
        found = self._cached(token)
        return found if found is not None else await asyncio.to_thread(self._look_up, token)

    def _refuse(self, tenant_id: int, actor: str, reason: str, origin: Origin) -> None:
        """Count a refused login in the audit log and the metrics."""
        self._refusals.count(Attempt(tenant_id, actor, _LOG_IN, _WHY[reason]), origin.address)
        if self._meters is not None:
            self._meters.refused_login(reason)

    def with_password(self, tenant: str, login: str, password: str, origin: Origin) -> str:
        """Log in with a password; returns the token of a new session. Raises LoginRefused and passwords.TooBusy."""
        now_ns, typed = self._clock(), login.strip().lower()
        with self._database.reading() as connection:
            tenant_id = tenant_of(connection, tenant)
            person = None if tenant_id is None else people.person_by_login(connection, tenant_id, typed)
        tenant_id = tenant_id or DEFAULT_TENANT_ID
        known = person is not None
        until_ns = self._database.transact(
            lambda connection: count_attempt(connection, tenant_id, typed, known, origin.address, now_ns)
        )
        actor = "unknown" if person is None else f"person:{person.number}"
        if until_ns > now_ns:
            self._refuse(tenant_id, actor, "locked", origin)
            minutes = -(-(until_ns - now_ns) // (60 * 10**9))
            raise LoginRefused(
                f"Too many failed attempts. Try again in {minutes} minutes, or ask an admin to unlock the account.",
                retry_after_s=(until_ns - now_ns) // 10**9 + 1,
            )
        good = is_password("" if person is None else person.password_hash, password)
        if person is None or not good or person.disabled_at_ns is not None:
            self._refuse(tenant_id, actor, "wrong", origin)
            raise LoginRefused("Wrong login or password.")

        def begin(connection: Connection) -> str:
            forget_attempt(connection, tenant_id, typed, origin.address)
            if is_outdated(person.password_hash):
                people.keep_better_hash(connection, tenant_id, person.number, hash_password(password))
            return self._begin(connection, tenant_id, person.number, typed, origin, now_ns)

        return self._database.transact(begin)

    def with_identity(self, tenant: str, claimed: Claimed, roles: Mapping[str, Role], origin: Origin) -> str:
        """Log in a person by an OpenID identity; the first login creates the account. Raises LoginRefused.

        Each login sets the role from the groups: of several, the one with most scopes.
        """
        now_ns = self._clock()
        role = role_of(claimed.groups, roles)

        def begin(connection: Connection) -> str:
            tenant_id = tenant_of(connection, tenant)
            if tenant_id is None:
                raise LoginRefused(f"There is no tenant {tenant!r}. Set FAREBOX_OIDC_TENANT to an existing one.")
            person = people.person_with_identity(connection, tenant_id, claimed.identity)
            if role is None:
                who = "unknown" if person is None else f"person:{person.number}"
                self._refuse(tenant_id, who, "no_role", origin)
                raise LoginRefused("None of your groups has a role here. Ask an admin.")
            if person is None:
                number = self._first_login(connection, tenant_id, claimed, role, now_ns)
                return self._begin(connection, tenant_id, number, claimed.login, origin, now_ns)
            if person.disabled_at_ns is not None:
                self._refuse(tenant_id, f"person:{person.number}", "disabled", origin)
                raise LoginRefused("This account is disabled. Ask an admin.")
            people.set_role(connection, tenant_id, person.login, role, now_ns)
            return self._begin(connection, tenant_id, person.number, person.login, origin, now_ns)

        return self._database.transact(begin)

    def end(self, token: str, caller: Caller) -> None:
        """Log out: end the session of a token."""
        now_ns = self._clock()
        self._database.transact(
            lambda connection: sessions.end_session(connection, caller.tenant_id, caller.session_id, now_ns)
        )
        with self._lock:
            self._known.pop(fingerprint(token), None)

    def proves_password(self, tenant_id: int, login: str, password: str) -> bool:
        """Return whether a logged-in person's password is right; counted like a login. Raises TooBusy, LoginRefused."""
        now_ns, address = self._clock(), acting().address
        until_ns = self._database.transact(
            lambda connection: count_attempt(connection, tenant_id, login, True, address, now_ns)
        )
        if until_ns > now_ns:
            raise LoginRefused("Too many wrong passwords. Try again in a few minutes.")
        with self._database.reading() as connection:
            person = people.require_person(connection, tenant_id, login)
        good = is_password(person.password_hash, password)
        if good:
            self._database.transact(lambda connection: forget_attempt(connection, tenant_id, login, address))
        return good

    def forget_person(self, tenant_id: int, person: int) -> None:
        """Drop a person's cached sessions at this collector; others drop theirs within a second."""
        with self._lock:
            for digest, (found, _) in list(self._known.items()):
                if (found.caller.tenant_id, found.caller.person) == (tenant_id, person):
                    del self._known[digest]

    def forget_all(self) -> None:
        """Drop all cached sessions."""
        with self._lock:
            self._known.clear()

    def _first_login(self, connection: Connection, tenant_id: int, claimed: Claimed, role: Role, at_ns: int) -> int:
        try:
            number = people.create_person(connection, tenant_id, claimed.login, role, at_ns, name=claimed.name)
        except people.PersonExists:
            # Control of a login at the provider must not give access to an account that was created here.
            raise LoginRefused(
                f"The account {claimed.login} already exists. An admin can link it: farebox people identity"
                f" {claimed.login} --issuer {claimed.identity.issuer} --subject {claimed.identity.subject}"
            ) from None
        except people.BadPerson as error:
            raise LoginRefused(f"The provider's login cannot be used: {error}.") from None
        people.add_identity(connection, tenant_id, claimed.identity, number, at_ns)
        return number

    def _begin(
        self, connection: Connection, tenant_id: int, number: int, login: str, origin: Origin, at_ns: int
    ) -> str:
        sessions.purge_sessions(connection, at_ns)
        people.note_login(connection, tenant_id, number, at_ns)
        with acting_as(Actor(f"person:{number}", origin.address, number, login)):
            return sessions.start_session(connection, tenant_id, number, origin, at_ns, self._lifetime.absolute_ns)

    def _cached(self, token: str) -> Found | None:
        known, now_ns = self._known.get(fingerprint(token)), self._clock()
        if known is None or not abs(now_ns - known[1]) < SESSION_CACHE_NS:
            return None
        return known[0] if known[0].expires_at_ns > now_ns else None

    def _look_up(self, token: str) -> Found:
        now_ns = self._clock()
        with self._database.reading() as connection:
            found = sessions.find_session(connection, token, self._lifetime.idle_ns, now_ns)
        if now_ns - found.last_used_at_ns > min(sessions.TOUCH_NS, self._lifetime.idle_ns // 4):
            caller = found.caller
            self._database.transact(
                lambda connection: sessions.touch(connection, caller.tenant_id, caller.session_id, now_ns)
            )
        with self._lock:
            self._known.pop(fingerprint(token), None)
            while len(self._known) >= _MAX_CACHED:
                del self._known[next(iter(self._known))]
            self._known[fingerprint(token)] = (found, now_ns)
        return found


def role_of(groups: frozenset[str], roles: Mapping[str, Role]) -> Role | None:
    """Return the role of these groups: the one with most scopes; `*` applies to every person."""
    held = {role for group, role in roles.items() if group in groups or group == "*"}
    return max(held, key=list(Role).index, default=None)


__all__ = ["Claimed", "LoginDesk", "LoginRefused", "SessionOver", "role_of"]
