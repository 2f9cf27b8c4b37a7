"""With a pseudonym key no name of a wallet or user is in the books, and callers go on using names."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blank import blank_sqlite
from farebox_collector import assembly
from farebox_collector.dialects.attribution import WALLET
from farebox_collector.ledger.access.erased import pseudonymous_letter
from farebox_collector.ledger.access.keys import create_key
from farebox_collector.ledger.audit import books_audit
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.privacy.pseudonym_key import WrongPseudonymKey
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.tables.columns import metadata
from farebox_collector.model.credentials import new_token
from farebox_collector.model.pseudonyms import Pseudonyms, name_in_books, use_pseudonyms
from farebox_collector.model.records import DeadLetter, Span
from farebox_collector.model.secret_box import new_secrets_key, secrets_keys
from farebox_collector.settings import Settings
from harness import Collector, farebox
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from spans import llm_span, protobuf_body
from sqlalchemy import select

NAME = "ada.lovelace@example.com"
USER = "byron-7@example.com"
OTHER = "grace/hopper"
NAMES = (NAME, USER, OTHER)
KEY = new_secrets_key()
ADMIN = new_token()
PSEUDONYMS = Pseudonyms(secrets_keys(KEY)[0])
P_NAME, P_USER, P_OTHER = map(PSEUDONYMS.of, NAMES)


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector with pseudonyms and keys over new books, in which people live."""
    directory = tmp_path_factory.mktemp("pseudonyms")
    collector = Collector(blank_sqlite(directory), key=ADMIN, pseudonym_key=KEY)
    live(collector)
    yield collector
    assert collector.stop() == 0
    check_that_no_name_is_in(directory)
    collector.close()


@pytest.fixture(autouse=True)
def _names_of_this_process() -> Iterator[None]:
    yield
    use_pseudonyms(None)


def post(collector: Collector, path: str, body: dict[str, Any], key: str = "") -> dict[str, Any]:
    answer = collector.api.post(path, json=body, headers={"Idempotency-Key": key} if key else {})
    assert answer.status_code < 300, answer.text
    return dict(answer.json())


def live(collector: Collector) -> None:
    """Names through every door."""
    post(collector, f"/v1/wallets/{NAME}/deposits", {"amount_credits": "10"}, "paid")
    post(collector, f"/v1/wallets/{NAME}/movements", {"type": "grant", "amount_credits": "3"}, "granted")
    moved = {"type": "transfer", "amount_credits": "1", "to_wallet": OTHER}
    post(collector, f"/v1/wallets/{NAME}/movements", moved, "moved")
    hold = {"wallet": NAME, "user": USER, "amount_credits": "1", "event": "chat.reply", "action_id": "run-7"}
    post(collector, "/v1/holds", hold, "held")
    post(collector, "/v1/balance-thresholds", {"wallet": NAME, "below_credits": ["1"], "reason": "asked"})
    limit = {"scope": "user", "name": NAME, "user": USER, "day_credits": "5", "reason": "a limit"}
    post(collector, "/v1/policies", limit)
    spans = [llm_span(wallet=NAME, user__id=USER), llm_span(wallet=None, user__id=USER)]
    spans += [llm_span(wallet=NAME, user__id=USER, input_tokens=-5)]
    assert collector.export_http(protobuf_body(spans)).status_code == 200
    changed = spans[0]._replace(attributes={**spans[0].attributes, "gen_ai.usage.output_tokens": 77})
    collector.export_grpc(protobuf_body([changed]))


def check_that_no_name_is_in(directory: Path) -> None:
    with closing(open_database(f"sqlite:///{directory}/farebox.db")) as database, database.reading() as connection:
        assert not list(books_audit.audit(connection))
        for table in metadata.sorted_tables:
            for row in connection.execute(select(table)):
                told = "\x1f".join(value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in row)
                assert not [name for name in NAMES if name in told or json.dumps(name)[1:-1] in told], table.name


def test_callers_use_names_and_books_have_pseudonyms(collector: Collector) -> None:
    wallet = collector.wallet(NAME)
    assert wallet["wallet"] == P_NAME
    assert collector.wallet(P_NAME) == wallet, "what was read is asked for again"
    assert {row["wallet"] for row in collector.pages("/v1/wallets")} == {P_NAME, P_USER, P_OTHER}
    records = collector.usage(wallet=NAME)
    assert [record["wallet"] for record in records] == [P_NAME]
    assert len(collector.usage(wallet=USER)) == 1, "a user without a wallet is a wallet"
    (hold,) = collector.pages("/v1/holds", wallet=NAME)
    assert (hold["wallet"], hold["user"], hold["action_id"]) == (P_NAME, P_USER, "run-7")
    kinds = sorted(row["type"] for row in collector.pages("/v1/ledger", wallet=NAME))
    assert kinds == ["charge", "deposit", "grant", "transfer"]
    standing = collector.api.get("/v1/policies/standing", params={"wallet": NAME, "user": USER}).json()
    of_user = next(one for one in standing["items"] if one["scope"] == "user")
    assert (of_user["name"], of_user["user"]) == (P_NAME, P_USER)
    history = collector.api.get("/v1/policies/history", params={"scope": "user", "name": NAME, "user": USER}).json()
    assert len(history["items"]) == 1
    assert collector.api.get(f"/v1/wallets/{OTHER.replace('/', '%2F')}/lots").status_code == 200


def test_a_hold_of_a_named_user_is_stopped_at_the_limit_that_was_set_for_the_name(collector: Collector) -> None:
    hold = {"wallet": NAME, "user": USER, "amount_credits": "5"}
    answer = collector.api.post("/v1/holds", json=hold, headers={"Idempotency-Key": "too much"})
    assert answer.status_code == 402
    assert USER not in answer.text


def test_links_and_keys_of_one_wallet_read_it_by_name_and_by_pseudonym_and_no_other(collector: Collector) -> None:
    link = post(collector, f"/v1/wallets/{NAME}/links", {})["token"]
    key = post(collector, "/v1/keys", {"name": "theirs", "scopes": ["read"], "wallet": NAME})["key"]
    for token in (link, key):
        headers = {"Authorization": f"Bearer {token}"}
        for name, status in ((NAME, 200), (P_NAME, 200), (OTHER, 403), (P_OTHER, 403), (USER, 403)):
            path = f"/v1/wallets/{name.replace('/', '%2F')}/overview"
            assert collector.api.get(path, headers=headers).status_code == status, name
            ledger = collector.api.get("/v1/ledger", params={"wallet": name}, headers=headers)
            assert ledger.status_code == status, name


def test_commands_take_names_too(collector: Collector) -> None:
    def said(*words: str) -> str:
        done = farebox(*words, database_url=collector.database_url, pseudonym_key=KEY)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert json.loads(said("wallets", "show", NAME, "--json"))["wallet"] == P_NAME
    assert P_NAME in said("holds", "list", "--wallet", NAME, "--json")
    assert said("privacy", "pseudonym", NAME) == f"{P_NAME}\n"
    file = collector.database.parent / "person.json"
    said("privacy", "export", NAME, "--output", str(file))
    sections = {section["section"]: section["rows"] for section in json.loads(file.read_bytes())["sections"]}
    assert sections["usage_records"] == 1


def test_an_erased_pseudonym_is_known_when_the_name_comes_again(
    new_books: Callable[[str, Path], str], tmp_path: Path
) -> None:
    url = new_books("sqlite", tmp_path)
    sent = protobuf_body([llm_span(wallet=NAME)])
    with closing(Collector(url, tmp_path / "log", pseudonym_key=KEY)) as collector:
        collector.export_http(sent)
        assert collector.stop() == 0
    erased = farebox("privacy", "erase", NAME, "--yes", database_url=url, pseudonym_key=KEY)
    assert erased.returncode == 0, erased.stderr
    with closing(Collector(url, tmp_path / "log", pseudonym_key=KEY)) as collector:
        collector.export_http(protobuf_body([llm_span(wallet=NAME)]))
        collector.export_http(sent)
        (wallet,) = collector.pages("/v1/wallets")
        assert wallet["wallet"].startswith("erased-")
        assert len(collector.usage()) == 2


def test_a_key_is_chosen_once_and_never_changed(new_books: Callable[[str, Path], str], tmp_path: Path) -> None:
    url, other = new_books("sqlite", tmp_path), SecretStr(new_secrets_key())
    ours = Settings(database_url=url, pseudonym_key=SecretStr(KEY))
    for _ in range(2):
        assembly.open_books(ours).close()
    for settings, told in (
        (Settings(database_url=url), "these books hold pseudonyms"),
        (Settings(database_url=url, pseudonym_key=other), "of another key"),
    ):
        with pytest.raises(WrongPseudonymKey, match=told):
            assembly.open_books(settings)
    refused = farebox("wallets", "list", database_url=url)
    assert (refused.returncode, "these books hold pseudonyms" in refused.stderr) == (2, True)


@pytest.mark.parametrize("what", ["wallet", "key"])
def test_books_that_hold_names_take_no_key(what: str, new_books: Callable[[str, Path], str], tmp_path: Path) -> None:
    url = new_books("sqlite", tmp_path)
    with closing(assembly.open_books(Settings(database_url=url))) as database, database.transaction() as connection:
        if what == "wallet":
            deposit(connection, 1, NAME, 10**9, "paid", 1)
        else:
            from farebox_collector.model.credentials import Scope

            create_key(connection, 1, "theirs", [Scope.READ], 1, wallet=NAME)
    with pytest.raises(WrongPseudonymKey, match="these books hold names"):
        assembly.open_books(Settings(database_url=url, pseudonym_key=SecretStr(KEY)))
    assembly.open_books(Settings(database_url=url)).close()


def test_settings_that_cannot_go_together_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n", encoding="utf-8")
    made = Settings(pseudonym_key_file=file).pseudonyms()
    assert made is not None
    assert made.of(NAME) == P_NAME
    for wrong in (
        {"pseudonym_key": KEY, "pseudonym_key_file": file},
        {"pseudonym_key": "short"},
        {"pseudonym_key": f"{KEY},{new_secrets_key()}"},
        {"pseudonym_key": KEY, "topup_url": "https://shop.example/{wallet}"},
    ):
        with pytest.raises(ValidationError):
            Settings(**wrong)
    assert Settings(pseudonym_key=SecretStr("")).pseudonyms() is None


@given(name=st.text(max_size=60), other=st.text(max_size=60), key=st.binary(min_size=32, max_size=32))
def test_pseudonyms_stay_say_nothing_and_depend_on_the_key(name: str, other: str, key: bytes) -> None:
    pseudonyms = Pseudonyms(key)
    made = pseudonyms.of(name)
    assert pseudonyms.of(made) == made
    assert (made == pseudonyms.of(other)) == (name == other) or other == made
    if name not in ("", "*"):
        assert made != Pseudonyms(key[::-1] + b"x").of(name)
        assert len(made) == 34


def test_without_a_key_a_name_is_itself() -> None:
    assert name_in_books(NAME) == NAME
    use_pseudonyms(PSEUDONYMS)
    assert [name_in_books(name) for name in (NAME, P_NAME, "", "*")] == [P_NAME, P_NAME, "", "*"]


def test_a_dead_letter_names_nobody_and_keeps_what_it_is_tried_by_again() -> None:
    attributes: dict[str, Any] = {
        WALLET: NAME,
        "customer.mail": NAME,
        "user.id": USER,
        "gen_ai.request.model": "gpt-5-pro",
        "n": 1,
    }
    span = Span(b"\1" * 16, b"\1" * 8, b"", 0, 1, False, attributes, {"account": OTHER}, "", "")
    told = pseudonymous_letter(DeadLetter(span, "why"), PSEUDONYMS, ("account",)).span
    kept = {"gen_ai.request.model": "gpt-5-pro", "n": 1}
    assert told.attributes == {WALLET: P_NAME, "customer.mail": P_NAME, "user.id": P_USER, **kept}
    assert told.resource == {"account": P_OTHER}
