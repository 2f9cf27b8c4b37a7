"""Recognise erased names and replace them by their pseudonyms.

Only a hash of a name is stored, keyed with a secret of its tenant (HMAC-SHA256). An erased name in new data is replaced
before anything is written, so that redelivered spans are still recognised as duplicates.
"""

import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from farebox_collector.dialects.attribution import WALLET
from farebox_collector.ledger.access.stored_secrets import NAMES, open_sealed, seal
from farebox_collector.ledger.tables.personal import erased_names, name_secrets
from farebox_collector.model.pseudonyms import Pseudonyms
from farebox_collector.model.records import DeadLetter, UsageRecord

MIN_WORD = 3
"""A shorter name is replaced only as a whole value, never within a text: `1` occurs in too many texts."""
ERASED = "the name of this wallet was erased: use another name"
"""The error for a request that states an erased name."""
_SECRET_BYTES = 32
_HASH_BYTES = 16
_OF_PERSONS = re.compile(r"(?i)user|customer")
"""Attributes whose value is the name of a person."""


def pseudonymous_usage(usage: UsageRecord, pseudonyms: Pseudonyms) -> UsageRecord:
    """Return a usage record with pseudonyms for wallet and user."""
    return usage._replace(wallet=pseudonyms.of(usage.wallet), user_id=pseudonyms.of(usage.user_id))


def pseudonymous_letter(letter: DeadLetter, pseudonyms: Pseudonyms, wallet_attributes: Sequence[str]) -> DeadLetter:
    """Return a dead letter with pseudonyms for the values of attributes that name a wallet or a person."""
    naming = {WALLET, *wallet_attributes}

    def replaced(key: str, value: Any) -> Any:
        of_person = isinstance(value, str) and (key in naming or _OF_PERSONS.search(key))
        return pseudonyms.of(value) if of_person else value

    span = letter.span
    attributes, resource = (
        {key: replaced(key, value) for key, value in of.items()} for of in (span.attributes, span.resource)
    )
    return letter._replace(span=span._replace(attributes=attributes, resource=resource))


class NameErased(Exception):
    """The request states the erased name of a wallet, which must not enter the books again."""


class ErasedNames(NamedTuple):
    """The erased names of one tenant, by their hashes."""

    secret: bytes
    pseudonyms: Mapping[bytes, str]

    def pseudonym_of(self, wallet: str) -> str | None:
        """Return the pseudonym of an erased name; None if the name was not erased."""
        return self.pseudonyms.get(hash_of(self.secret, wallet))

    def in_usage(self, usage: UsageRecord) -> UsageRecord:
        """Return a usage record with erased names replaced."""
        pseudonym = self.pseudonym_of(usage.wallet)
        if pseudonym is None:
            return usage
        user_id = user_pseudonym(self.secret, pseudonym, usage.user_id)
        action_id = without_name(usage.action_id, usage.wallet, pseudonym)
        return usage._replace(wallet=pseudonym, user_id=user_id, action_id=action_id)

    def in_letter(self, letter: DeadLetter) -> DeadLetter:
        """Return a dead letter with erased names replaced, and the users stated beside them."""
        span = letter.span
        texts = [value for of in (span.attributes, span.resource) for value in of.values() if isinstance(value, str)]
        names = {value: pseudonym for value in texts if (pseudonym := self.pseudonym_of(value)) is not None}
        if not names:
            return letter
        of_user = next(iter(names.values()))
        attributes, resource = (
            {key: self._cleaned(key, value, names, of_user) for key, value in of.items()}
            for of in (span.attributes, span.resource)
        )
        return letter._replace(span=span._replace(attributes=attributes, resource=resource))

    def _cleaned(self, key: str, value: Any, names: Mapping[str, str], of_user: str) -> Any:
        if not isinstance(value, str):
            return value
        if value not in names and _OF_PERSONS.search(key):
            return user_pseudonym(self.secret, of_user, value)
        return without_names(value, names, {})


def hash_of(secret: bytes, wallet: str) -> bytes:
    """Return the keyed hash of a name."""
    return hmac.digest(secret, b"wallet\0" + wallet.encode("utf-8", "surrogatepass"), "sha256")[:_HASH_BYTES]


def user_pseudonym(secret: bytes, wallet_pseudonym: str, user_id: str) -> str:
    """Return the pseudonym of a user of an erased wallet; an empty user or a pseudonym stays."""
    if not user_id or user_id.startswith(f"{wallet_pseudonym}-"):
        return user_id
    message = f"user\0{wallet_pseudonym}\0{user_id}".encode("utf-8", "surrogatepass")
    return f"{wallet_pseudonym}-{hmac.digest(secret, message, 'sha256')[:6].hex()}"


def new_pseudonym() -> str:
    """Return a new random pseudonym."""
    return f"erased-{secrets.token_hex(8)}"


def without_name(text: str, name: str, pseudonym: str) -> str:
    """Return a text with a name replaced wherever it is a separate word."""
    if text == name:
        return pseudonym
    if len(name) < MIN_WORD or name not in text:
        return text
    return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", lambda _: pseudonym, text)


def without_names(value: Any, names: Mapping[str, str], users: Mapping[str, str]) -> Any:
    """Return JSON with names replaced in values and keys; users are replaced as whole values only."""
    if isinstance(value, str):
        if value in users:
            return users[value]
        for name, pseudonym in names.items():
            value = without_name(value, name, pseudonym)
        return value
    if isinstance(value, list):
        return [without_names(item, names, users) for item in value]
    if isinstance(value, dict):
        return {without_names(key, names, {}): without_names(item, names, users) for key, item in value.items()}
    return value


def text_without_names(text: str, names: Mapping[str, str], users: Mapping[str, str]) -> str:
    """Return a stored text, JSON or not, with names replaced; JSON keeps its separators."""
    if text[:1] in ("{", "["):
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = None
        if parsed is not None:
            cleaned = without_names(parsed, names, users)
            if cleaned == parsed:
                return text
            separators = (",", ":") if '":"' in text or ('",' in text and '", ' not in text) else (", ", ": ")
            return json.dumps(cleaned, separators=separators, ensure_ascii=text.isascii())
    return str(without_names(text, names, {}))


def erased_edition(connection: Connection) -> int:
    """Return a number that grows with every erased name of any tenant."""
    counted = connection.exec_driver_sql("SELECT count(*) FROM erased_names WHERE renamed_at_ns IS NOT NULL").scalar()
    return int(counted or 0)


def erased_names_of(connection: Connection, tenant_id: int) -> ErasedNames | None:
    """Return the erased names of a tenant; None if there are none."""
    table = erased_names.c
    renamed = (table.tenant_id == tenant_id, table.renamed_at_ns.is_not(None))
    rows = connection.execute(select(table.name_hmac, table.pseudonym).where(*renamed)).all()
    if not rows:
        return None
    secret = _secret_of(connection, tenant_id)
    return None if secret is None else ErasedNames(secret, {bytes(row[0]): row[1] for row in rows})


def is_erased(connection: Connection, tenant_id: int, *wallets: str) -> bool:
    """Return whether one of these names was erased."""
    erased = erased_names_of(connection, tenant_id)
    return erased is not None and any(erased.pseudonym_of(name) is not None for name in wallets)


def name_secret(connection: Connection, tenant_id: int) -> bytes:
    """Return the secret that keys the hashes of a tenant's names; creates it if there is none."""
    secret = _secret_of(connection, tenant_id)
    if secret is None:
        secret = secrets.token_bytes(_SECRET_BYTES)
        sealed = seal(connection, NAMES, tenant_id, secret)
        connection.execute(insert(name_secrets).values(tenant_id=tenant_id, secret=sealed))
    return secret


def _secret_of(connection: Connection, tenant_id: int) -> bytes | None:
    stored = connection.execute(select(name_secrets.c.secret).where(name_secrets.c.tenant_id == tenant_id)).scalar()
    return None if stored is None else open_sealed(connection, NAMES, tenant_id, stored)
