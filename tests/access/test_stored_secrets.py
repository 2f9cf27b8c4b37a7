"""Secrets in the books are encrypted under a key that is not in the books, and the key can be changed."""

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blank import blank_sqlite
from farebox_collector import assembly
from farebox_collector.ledger.access.audit_log import LogFilter, entries_of
from farebox_collector.ledger.access.links import mint, verify_link
from farebox_collector.ledger.audit import books_audit
from farebox_collector.ledger.journal import outbox
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import link_secrets
from farebox_collector.ledger.tables.outbox import webhook_endpoints
from farebox_collector.model.credentials import read_link
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.model.secret_box import (
    BadSecretsKey,
    SecretBox,
    WrongSecretsKey,
    is_sealed,
    new_secrets_key,
    secrets_keys,
)
from farebox_collector.settings import Settings
from harness import Collector, farebox
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import select

T = DEFAULT_TENANT_ID
AT_NS = 1_790_000_000_000_000_000
DAY_NS = 86_400 * 10**9
BOTH = ("sqlite", "postgresql")
OLD, NEW = new_secrets_key(), new_secrets_key()

Urls = Callable[[str, Path], str]


def open_with(url: str, keys: str = "") -> Database:
    return assembly.open_books(Settings(database_url=url, secrets_key=keys or None), clock=lambda: AT_NS)


def stored(database: Database) -> list[bytes]:
    hooks = webhook_endpoints.c
    with database.reading() as connection:
        found = [bytes(row[0]) for row in connection.execute(select(link_secrets.c.secret))]
        for row in connection.execute(select(hooks.secret, hooks.former_secret)):
            found += [bytes(part) for part in row if part is not None]
    return found


def fill(database: Database) -> tuple[str, bytes]:
    """A link, and a webhook whose secret was rotated: three secrets. The link's token and the webhook's new secret."""
    with database.transaction() as connection:
        token = mint(connection, T, "ada", "", AT_NS + DAY_NS, AT_NS).token
        endpoint, _ = outbox.add_endpoint(connection, T, "https://hooks.example/farebox", AT_NS)
        secret = outbox.rotate_secret(connection, T, endpoint, AT_NS, DAY_NS)
        assert secret is not None
        outbox.ping(connection, T, endpoint, AT_NS)
    return token, secret


def works(database: Database, token: str, secret: bytes) -> None:
    """The link opens its wallet, and the message is signed with both secrets of the webhook."""
    link = read_link(token)
    assert link is not None
    with database.transaction() as connection:
        assert verify_link(connection, token, link, AT_NS).caller.wallet == "ada"
        (taken,) = outbox.take_due(connection, AT_NS, 10)
        outbox.release_untried(connection, [taken.id], AT_NS)
    assert taken.secrets[0] == secret
    assert len(taken.secrets) == 2
    assert all(len(each) == 32 and not is_sealed(each) for each in taken.secrets)


def run(url: str, *words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return farebox(*words, database_url=url, **settings)


@pytest.mark.parametrize("kind", BOTH)
def test_plain_secrets_are_read_and_encrypted_at_the_next_start_with_a_key(
    kind: str, new_books: Urls, tmp_path: Path
) -> None:
    url = new_books(kind, tmp_path)
    with closing(open_with(url)) as database:
        made = fill(database)
        works(database, *made)
        plain = stored(database)
    assert len(plain) == 3
    assert not any(map(is_sealed, plain))
    with closing(open_with(url, OLD)) as database:
        now = stored(database)
        assert all(map(is_sealed, now))
        assert not any(secret in sealed for secret in plain for sealed in now)
        works(database, *made)
        with database.reading() as connection:
            assert list(books_audit.audit(connection)) == []
            entry = entries_of(connection, T, LogFilter(action="secrets.seal"))[0]
        assert '"secrets":3' in entry.details
    with closing(open_with(url, OLD)) as database:
        assert stored(database) == now, "a start with the same key changes nothing"


@pytest.mark.parametrize("kind", BOTH)
def test_rotation_leaves_only_the_first_key_needed(kind: str, new_books: Urls, tmp_path: Path) -> None:
    url = new_books(kind, tmp_path)
    with closing(open_with(url, OLD)) as database:
        made = fill(database)
        before = stored(database)
    rotated = run(url, "secrets", "rotate", secrets_key=f"{NEW},{OLD}")
    assert rotated.returncode == 0, rotated.stderr
    assert "All 3 secrets" in rotated.stdout
    with closing(open_with(url, NEW)) as database:
        assert not set(before) & set(stored(database))
        works(database, *made)
    with pytest.raises(WrongSecretsKey):
        open_with(url, OLD)


@pytest.mark.parametrize("keys", ["", NEW], ids=["none", "another"])
def test_a_wrong_or_missing_key_is_an_error_that_changes_nothing(keys: str, tmp_path: Path) -> None:
    url = blank_sqlite(tmp_path)
    with closing(open_with(url, OLD)) as database:
        made = fill(database)
        before = stored(database)
    for words in (("serve",), ("secrets", "rotate"), ("keys", "create", "x", "--scope", "read")):
        if words[0] == "secrets" and not keys:
            continue
        refused = run(url, *words, secrets_key=keys)
        assert refused.returncode == 2, refused.stdout
        assert "FAREBOX_SECRETS_KEY" in refused.stderr
        assert "Traceback" not in refused.stderr
    with closing(open_with(url, OLD)) as database:
        assert stored(database) == before
        works(database, *made)


def test_one_secret_of_another_key_keeps_all_as_they_are(tmp_path: Path) -> None:
    url = blank_sqlite(tmp_path)
    with closing(open_with(url)) as database:
        fill(database)
        foreign = SecretBox(secrets_keys(OLD)).seal(bytes(32), f"webhook/{T}")
        with database.transaction() as connection:
            connection.execute(webhook_endpoints.update().values(former_secret=foreign))
        before = stored(database)
    with pytest.raises(WrongSecretsKey):
        open_with(url, NEW)
    with closing(open_with(url, OLD)) as database:
        assert len(before) == len(stored(database))


def test_a_key_comes_from_a_file_and_a_running_collector_signs_with_what_it_decrypts(tmp_path: Path) -> None:
    file = tmp_path / "secrets_key"
    file.write_text(f"{NEW}\n{OLD}\n", encoding="utf-8")
    file.chmod(0o600)
    url = blank_sqlite(tmp_path)
    with closing(Collector(url, secrets_key_file=file)) as collector:
        paid = {"amount_credits": "5"}
        collector.api.post("/v1/wallets/ada/deposits", json=paid, headers={"Idempotency-Key": "1"}).raise_for_status()
        made = collector.api.post("/v1/wallets/ada/links").raise_for_status().json()
        answer = collector.api.get("/v1/wallets/ada", headers={"Authorization": f"Bearer {made['token']}"})
        assert answer.status_code == 200
        assert collector.stop() == 0
    with closing(open_with(url, NEW)) as database:
        assert all(map(is_sealed, stored(database)))


@pytest.mark.parametrize(
    "key",
    ["short", "=" * 44, new_secrets_key()[:-2], f"{OLD},x", "ключ"],
    ids=["short", "no bytes", "cut", "one of two", "letters"],
)
def test_what_is_no_key_is_refused_with_what_to_type(key: str) -> None:
    with pytest.raises(BadSecretsKey, match="farebox secrets generate"):
        secrets_keys(key)
    with pytest.raises(ValidationError, match="farebox secrets generate"):
        Settings(secrets_key=key)


def test_a_key_and_a_file_at_once_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(ValidationError, match="there is no key in"):
        Settings(secrets_key_file=file)
    with pytest.raises(ValidationError, match="set secrets_key or secrets_key_file, not both"):
        Settings(secrets_key=OLD, secrets_key_file=file)


@given(
    secret=st.binary(max_size=80), purpose=st.text(max_size=20), place=st.integers(0, 200), turned=st.integers(1, 255)
)
def test_what_was_sealed_opens_for_its_purpose_only_and_unchanged_only(
    secret: bytes, purpose: str, place: int, turned: int
) -> None:
    box = SecretBox(secrets_keys(f"{NEW} {OLD}"))
    sealed = box.seal(secret, purpose)
    assert box.open(sealed, purpose) == secret
    assert SecretBox(secrets_keys(NEW)).open(sealed, purpose) == secret
    with pytest.raises(WrongSecretsKey):
        box.open(sealed, purpose + "!")
    at = len(b"farebox.sealed.1:") + place % (len(sealed) - len(b"farebox.sealed.1:"))
    with pytest.raises(WrongSecretsKey):
        box.open(sealed[:at] + bytes([sealed[at] ^ turned]) + sealed[at + 1 :], purpose)


def test_a_start_without_a_key_says_so_once_and_with_one_it_does_not(tmp_path: Path) -> None:
    for number, keys in enumerate(({}, {"secrets_key": OLD})):
        (tmp_path / str(number)).mkdir()
        settings: dict[str, Any] = dict(keys)
        with closing(Collector(blank_sqlite(tmp_path / str(number)), **settings)) as collector:
            assert collector.stop() == 0
            said = collector.log.read_text(encoding="utf-8")
        assert said.count("stored in plain text") == (0 if keys else 1)
        assert OLD not in said
