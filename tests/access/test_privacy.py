"""What is known of a person is exported, and an erased name is nowhere in the books, which stay clean."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from farebox_collector import assembly
from farebox_collector.ledger.access.audit_log_chain import compare_chains
from farebox_collector.ledger.access.erased import text_without_names
from farebox_collector.ledger.audit import books_audit
from farebox_collector.ledger.privacy import erasure, personal_places
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.tables.columns import metadata
from farebox_collector.model.secret_box import new_secrets_key
from farebox_collector.settings import Settings
from harness import Collector, farebox
from hypothesis import given
from hypothesis import strategies as st
from spans import llm_span, protobuf_body
from sqlalchemy import Text, select

NAME = "ada.lovelace@example.com"
USER = "byron-7@example.com"
EXPORTED = (
    "accounts usage_records postings transactions holds lots wallet_links audit_log dead_letters usage_conflicts"
    " incidents webhook_messages idempotency_keys wallet_days wallet_blocks balance_thresholds"
)
BOTH = ("sqlite", "postgresql")
Urls = Callable[[str, Path], str]


def everything(database: Database) -> Iterator[tuple[str, str]]:
    """Every table, and every row of it as text, with bytes too."""
    with database.reading() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(select(table)):
                values = [value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in row]
                yield table.name, "\x1f".join(values)


def holding(database: Database, *names: str) -> set[str]:
    """The tables in which one of the names is."""
    ascii_names = [json.dumps(name)[1:-1] for name in names]
    return {table for table, row in everything(database) if any(name in row for name in (*names, *ascii_names))}


def live(collector: Collector, name: str, user: str) -> list[Any]:
    """A wallet with all that can be known of a person; the spans that it sent."""
    api = collector.api
    path = name.replace("@", "%40")

    def post(url: str, body: dict[str, Any], key: str = "") -> Any:
        return api.post(url, json=body, headers={"Idempotency-Key": key} if key else {}).raise_for_status().json()

    post(f"/v1/wallets/{path}/deposits", {"amount_credits": "10", "memo": f"from {name}, with love"}, f"pay-{name}")
    grant = {"type": "grant", "amount_credits": "3", "metadata": {"customer": name, "n": 1}}
    post(f"/v1/wallets/{path}/movements", grant, "grant")
    post("/v1/wallets/other/deposits", {"amount_credits": "10", "memo": "for an adaptation"}, "other")
    hold = {"wallet": name, "event": "chat.reply", "amount_credits": "1", "user": user, "action_id": f"run {name}"}
    post("/v1/holds", hold, f"hold-{name}")
    post(f"/v1/wallets/{path}/links", {})
    post("/v1/webhook-endpoints", {"url": "https://hooks.example/x"})
    limit = {"wallet": name, "below_credits": ["12.9999"], "reason": f"{name} asked for it"}
    api.post("/v1/balance-thresholds", json=limit).raise_for_status()
    spans = [
        llm_span(wallet=name, user__id=user, farebox__action__id=f"run {name}", response_id=f"r-{number}")
        for number in range(3)
    ]
    dead = [llm_span(wallet=name, input_tokens=-5), llm_span(wallet=name, user__id=user, output_tokens=-1)]
    for body in (protobuf_body(spans), protobuf_body([llm_span(wallet="other")]), protobuf_body(dead)):
        collector.export_http(body)
    changed = spans[0]._replace(attributes={**spans[0].attributes, "gen_ai.usage.output_tokens": 77})
    collector.export_http(protobuf_body([changed]))
    alert = {
        "status": "firing",
        "labels": {"alertname": "Odd", "wallet": name},
        "annotations": {"summary": f"{name} spends"},
        "startsAt": "2026-01-01T00:00:00Z",
        "fingerprint": "f1",
    }
    api.post("/v1/alerts/alertmanager", json={"version": "4", "status": "firing", "alerts": [alert]})
    return spans


@pytest.fixture(params=BOTH)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_export_and_erase_leave_clean_books_without_the_name(kind: str, new_books: Urls, tmp_path: Path) -> None:
    url, key = new_books(kind, tmp_path), new_secrets_key()
    log = tmp_path / "log"
    with closing(Collector(url, log, secrets_key=key)) as collector:
        spans = live(collector, NAME, USER)
        others = collector.wallet("other")
        before = collector.api.get("/v1/wallets").json()["items"]
        if kind == "sqlite":
            assert collector.stop() == 0
        file = tmp_path / "person.json"
        exported = farebox("privacy", "export", NAME, "-o", str(file), database_url=url)
        assert exported.returncode == 0, exported.stderr
        check_export(file)
        erased = farebox("privacy", "erase", NAME, "--yes", database_url=url, secrets_key=key)
        assert erased.returncode == 0, erased.stderr
        found = re.search(r"erased-[0-9a-f]{16}", erased.stdout)
        assert found is not None
        if kind == "sqlite":
            collector.start()
        # What was sent before is known as a duplicate still, and a new call is charged to the pseudonym.
        assert collector.export_http(protobuf_body(spans)).status_code == 200
        new = llm_span(wallet=NAME, user__id=USER, response_id="new")
        collector.export_http(protobuf_body([new, llm_span(wallet=NAME, user__id=USER, input_tokens=-7)]))
        usage = collector.usage(wallet=found[0])
        refused = collector.api.post(
            f"/v1/wallets/{NAME}/deposits", json={"amount_credits": "1"}, headers={"Idempotency-Key": "again"}
        )
        assert collector.wallet("other") == others
        after = collector.api.get("/v1/wallets").json()["items"]
        assert collector.stop() == 0
    assert len(usage) == 4
    assert refused.status_code == 404
    assert "was erased" in refused.text
    assert len(before) == len(after)
    with closing(assembly.open_books(Settings(database_url=url, secrets_key=key))) as database:
        assert holding(database, NAME, USER) == set()
        with database.reading() as connection:
            assert list(books_audit.audit(connection)) == []
            assert list(compare_chains(connection)) == []
            of_person = usage_records.c.wallet == found[0]
            (user,) = connection.execute(select(usage_records.c.user_id).where(of_person).distinct()).scalars()
    assert user.startswith(found[0])
    if kind == "sqlite":
        for path in tmp_path.glob("farebox.db*"):
            assert NAME.encode() not in path.read_bytes()
            assert USER.encode() not in path.read_bytes()
    assert NAME not in log.read_text(encoding="utf-8")
    gone = farebox("privacy", "export", NAME, "-o", str(tmp_path / "none.json"), database_url=url)
    assert gone.returncode == 2
    assert not (tmp_path / "none.json").exists()


def check_export(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    told = json.loads(file.read_text(encoding="utf-8"))
    rows = {section["section"]: section["rows"] for section in told["sections"]}
    assert rows == {name: len(items) for name, items in told["data"].items()}
    for name in EXPORTED.split():
        assert rows[name], name
    assert rows["usage_records"] == 3
    assert {record["user_id"] for record in told["data"]["usage_records"]} == {USER}
    assert "an adaptation" not in json.dumps(told)
    assert not {"secret", "secret_sha256", "salt"} & {
        key for items in told["data"].values() for row in items for key in row
    }


def test_what_is_broken_off_is_taken_up_again(kind: str, new_books: Urls, tmp_path: Path) -> None:
    url = new_books(kind, tmp_path)
    with closing(Collector(url, tmp_path / "log")) as collector:
        live(collector, NAME, USER)
        assert collector.stop() == 0
    with closing(assembly.open_books(Settings(database_url=url))) as database:
        with database.transaction() as connection:
            first = erasure.begin(connection, 1, NAME, 1)
        with database.transaction() as connection:
            for place in erasure.places()[:3]:
                assert erasure.sweep(connection, first, place, None) is None
        with database.reading() as connection:
            assert list(books_audit.audit(connection)) == []
        assert holding(database, NAME) - {"audit_log"}
    assert farebox("privacy", "erase", NAME, "--yes", database_url=url).returncode == 0
    with closing(assembly.open_books(Settings(database_url=url))) as database:
        assert holding(database, NAME, USER) == set()
        with database.transaction() as connection:
            assert erasure.begin(connection, 1, NAME, 3).pseudonym == first.pseudonym
        with database.reading() as connection:
            assert list(books_audit.audit(connection)) == []


def test_a_wallet_that_is_not_known_is_not_erased(tmp_path: Path, new_books: Urls) -> None:
    refused = farebox("privacy", "erase", "missing", "--yes", database_url=new_books("sqlite", tmp_path))
    assert refused.returncode == 2
    assert "there is no wallet 'missing'" in refused.stderr


def test_every_text_of_a_tenants_tables_is_sorted_in() -> None:
    """A new column with text has to say whether a person may be named in it."""
    named = {(table, column) for table, column, _ in personal_places.WALLET_COLUMNS}
    named |= {(table, "user_id") for table, _ in personal_places.USER_COLUMNS}
    named |= set(personal_places.ACTION_COLUMNS)
    named |= {(place.table, column) for place in personal_places.TEXT_COLUMNS for column in place.columns}
    without = {(table, word) for table, words in personal_places.WITHOUT_PERSONS.items() for word in words.split()}
    columns = {
        (table.name, column.name)
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, Text)
    }
    assert columns - named - without == set()
    assert (named | without) - columns == set()
    assert not named & without


@given(
    name=st.text('ab. @-é"\\', min_size=3, max_size=12),
    before=st.text("xy ,", max_size=4),
    extra=st.text("xy", min_size=1, max_size=3),
)
def test_a_name_is_replaced_where_it_is_a_word_of_its_own_only(name: str, before: str, extra: str) -> None:
    stored = json.dumps({"k": [name, f"{extra}{name}{extra}" if name[0].isalnum() and name[-1].isalnum() else "z"]})
    cleaned = json.loads(text_without_names(stored, {name: "PSEUDONYM"}, {}))
    assert cleaned["k"][0] == "PSEUDONYM"
    assert "PSEUDONYM" not in cleaned["k"][1]
