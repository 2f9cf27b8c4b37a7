"""Names that were erased: how they are known when they come again, and what stands in their place.

Only a hash of a name is kept, under a secret of its tenant (HMAC-SHA256). A name that comes again is replaced before
anything of it is written, so that spans which are sent again are still known as duplicates.
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
"""A shorter name is looked for as a whole value only, never within a text: `1` is in every second one."""
ERASED = "the name of this wallet was erased: use another name"
"""Why a name may not come into the books again."""
_SECRET_BYTES = 32
_HASH_BYTES = 16
_OF_PERSONS = re.compile(r"(?i)user|customer")
"""Attributes whose value is a person's name."""


def pseudonymous_usage(usage: UsageRecord, pseudonyms: Pseudonyms) -> UsageRecord:
    """A usage record with pseudonyms in the place of the names of wallet and user."""
    return usage._replace(wallet=pseudonyms.of(usage.wallet), user_id=pseudonyms.of(usage.user_id))


def pseudonymous_letter(letter: DeadLetter, pseudonyms: Pseudonyms, wallet_attributes: Sequence[str]) -> DeadLetter:
    """A dead letter with pseudonyms in the place of names: the values of attributes that name a wallet or a person."""
    naming = {WALLET, *wallet_attributes}

    def told(key: str, value: Any) -> Any:
        of_person = isinstance(value, str) and (key in naming or _OF_PERSONS.search(key))
        return pseudonyms.of(value) if of_person else value

    span = letter.span
    attributes, resource = (
        {key: told(key, value) for key, value in of.items()} for of in (span.attributes, span.resource)
    )
    return letter._replace(span=span._replace(attributes=attributes, resource=resource))


class NameErased(Exception):
    """The name of a wallet was erased and may not come into the books again; the message says so."""


class ErasedNames(NamedTuple):
    """The erased names of one tenant, as they are recognised."""

    secret: bytes
    pseudonyms: Mapping[bytes, str]

    def pseudonym_of(self, wallet: str) -> str | None:
        """What stands for an erased name; None for a name that was not erased."""
        return self.pseudonyms.get(hash_of(self.secret, wallet))

    def in_usage(self, usage: UsageRecord) -> UsageRecord:
        """A usage record without an erased name."""
        pseudonym = self.pseudonym_of(usage.wallet)
        if pseudonym is None:
            return usage
        user_id = user_pseudonym(self.secret, pseudonym, usage.user_id)
        action_id = without_name(usage.action_id, usage.wallet, pseudonym)
        return usage._replace(wallet=pseudonym, user_id=user_id, action_id=action_id)

    def in_letter(self, letter: DeadLetter) -> DeadLetter:
        """A dead letter without an erased name: values that are one are replaced, and users beside them."""
        span = letter.span
        told = [value for of in (span.attributes, span.resource) for value in of.values() if isinstance(value, str)]
        names = {value: pseudonym for value in told if (pseudonym := self.pseudonym_of(value)) is not None}
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
    """The keyed hash by which an erased name is known."""
    return hmac.digest(secret, b"wallet\0" + wallet.encode("utf-8", "surrogatepass"), "sha256")[:_HASH_BYTES]


def user_pseudonym(secret: bytes, wallet_pseudonym: str, user_id: str) -> str:
    """What stands for a user of an erased wallet; a user that is a pseudonym already stays, and none is none."""
    if not user_id or user_id.startswith(f"{wallet_pseudonym}-"):
        return user_id
    told = f"user\0{wallet_pseudonym}\0{user_id}".encode("utf-8", "surrogatepass")
    return f"{wallet_pseudonym}-{hmac.digest(secret, told, 'sha256')[:6].hex()}"


def new_pseudonym() -> str:
    """A name that says nothing of a person."""
    return f"erased-{secrets.token_hex(8)}"


def without_name(text: str, name: str, pseudonym: str) -> str:
    """A text with a pseudonym in the place of a name, wherever the name is a word of its own."""
    if text == name:
        return pseudonym
    if len(name) < MIN_WORD or name not in text:
        return text
    return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", lambda _: pseudonym, text)


def without_names(value: Any, names: Mapping[str, str], users: Mapping[str, str]) -> Any:
    """JSON with pseudonyms in the place of names, in values and keys; users are replaced where they are all of it."""
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
    """A stored text, JSON or not, without names; a JSON text is written as compactly as it was."""
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
    """Grows with every name that is erased, of any tenant."""
    counted = connection.exec_driver_sql("SELECT count(*) FROM erased_names WHERE renamed_at_ns IS NOT NULL").scalar()
    return int(counted or 0)


def erased_names_of(connection: Connection, tenant_id: int) -> ErasedNames | None:
    """The erased names of a tenant; None if there are none."""
    table = erased_names.c
    renamed = (table.tenant_id == tenant_id, table.renamed_at_ns.is_not(None))
    rows = connection.execute(select(table.name_hmac, table.pseudonym).where(*renamed)).all()
    if not rows:
        return None
    secret = _secret_of(connection, tenant_id)
    return None if secret is None else ErasedNames(secret, {bytes(row[0]): row[1] for row in rows})


def is_erased(connection: Connection, tenant_id: int, *wallets: str) -> bool:
    """Whether one of these names was erased, so that it may not come into the books again."""
    erased = erased_names_of(connection, tenant_id)
    return erased is not None and any(erased.pseudonym_of(name) is not None for name in wallets)


def name_secret(connection: Connection, tenant_id: int) -> bytes:
    """The secret under which a tenant's names are hashed; made when there is none."""
    secret = _secret_of(connection, tenant_id)
    if secret is None:
        secret = secrets.token_bytes(_SECRET_BYTES)
        sealed = seal(connection, NAMES, tenant_id, secret)
        connection.execute(insert(name_secrets).values(tenant_id=tenant_id, secret=sealed))
    return secret


def _secret_of(connection: Connection, tenant_id: int) -> bytes | None:
    stored = connection.execute(select(name_secrets.c.secret).where(name_secrets.c.tenant_id == tenant_id)).scalar()
    return None if stored is None else open_sealed(connection, NAMES, tenant_id, stored)
