"""A whole collector on PostgreSQL as the role `farebox_write`, over books that `farebox_migrate` made."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.dialects import read
from farebox_collector.ledger.access.tenants import create_tenant, ensure_default_tenant
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.credentials import new_token
from farebox_collector.model.records import Span, UsageRecord
from farebox_collector.model.secret_box import new_secrets_key
from farebox_collector.pricing.price import price
from harness import Collector, farebox
from postgres import PostgresServer
from spans import llm_span, protobuf_body

DEPLOY = Path(__file__).parents[3] / "deploy"
DAY_NS = 86_400 * 10**9
ROLES = ("migrate", "write", "read")


class Books(NamedTuple):
    """The URL of the same books for each role, a key of the installation, and the key of the secrets in them."""

    superuser: str
    migrate: str
    write: str
    read: str
    token: str
    secrets_key: str

    def command(self, *words: str, role: str = "write") -> str:
        """Run a command of `farebox` as a role; what it printed."""
        url = getattr(self, role)
        done = farebox(*words, "--database-url", url, secrets_key=self.secrets_key, retention_days=40)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def run_sql(url: str, name: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as link:
        link.execute((DEPLOY / name).read_bytes())


@pytest.fixture(scope="module")
def books(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Books:
    """Books as docker-compose.yml makes them: roles, schema, rights, keys."""
    url = postgres.new_database()
    run_sql(url, "roles.sql")
    made = Books(
        url,
        **{role: url.replace("farebox@", f"farebox_{role}@") for role in ROLES},
        token=new_token(),
        secrets_key=new_secrets_key(),
    )
    assert "The schema is at" in made.command("migrate", role="migrate")
    run_sql(made.migrate, "grants.sql")
    key = tmp_path_factory.mktemp("secrets") / "admin_key"
    key.write_text(made.token, encoding="utf-8")
    scopes = [f"--scope={scope}" for scope in ("admin", "ingest", "read", "wallets", "pricing", "alerts", "routes")]
    assert made.command("keys", "create", "admin", *scopes, "--key-file", str(key)) == "admin: created.\n"
    calls_of_long_ago(made)
    return made


def calls_of_long_ago(books: Books) -> None:
    """Two calls that came in sixty days ago, as the writer books them."""
    then_ns = time.time_ns() - 60 * DAY_NS
    sent = [llm_span(response_id=f"old-{n}", start_ns=then_ns, wallet="byron") for n in range(2)]
    with closing(open_database(books.write)) as database, database.transaction() as connection:
        tariff = Tariffs(database, time.time_ns).of(1)
        usages = [
            read(Span(*one[:2], b"", one.start_ns, one.end_ns, False, dict(one.attributes), {}, "", ""), ())  # type: ignore[arg-type]  # no lists among them
            for one in sent
        ]
        calls = [price(usage, then_ns, DAY_NS, *tariff[:2]) for usage in usages if type(usage) is UsageRecord]
        record_usage(connection, 1, calls, then_ns, TotalLabels())


@pytest.fixture(scope="module")
def collector(books: Books, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    log = tmp_path_factory.mktemp("log") / "log"
    collector = Collector(books.write, log, key=books.token, secrets_key=books.secrets_key, audit_seconds=0.5)
    yield collector
    assert collector.stop() == 0
    collector.audit()
    collector.close()
    assert "permission denied" not in log.read_text(encoding="utf-8")


def test_it_ingests_moves_reports_and_audits(books: Books, collector: Collector) -> None:
    api = collector.api

    def post(path: str, body: object, key: str = "") -> dict[str, Any]:
        answer = api.post(path, json=body, headers={"Idempotency-Key": key} if key else {})
        assert answer.status_code < 300, answer.text
        return dict(answer.json())

    post("/v1/wallets/ada/deposits", {"amount_credits": "10"}, "paid")
    post("/v1/wallets/ada/movements", {"type": "grant", "amount_credits": "2", "memo": "welcome"}, "granted")
    post("/v1/wallets/ada/links", {"expires_in_seconds": 60})
    taken = post("/v1/holds", {"wallet": "ada", "amount_credits": "1"}, "held")
    post(f"/v1/holds/{taken['hold_id']}/void", {})
    sent = [llm_span(wallet="ada") for _ in range(700)]
    assert collector.export_http(protobuf_body(sent)).status_code == 200
    collector.export_grpc(protobuf_body(sent))
    assert len(collector.usage(wallet="ada")) == len(sent)
    post("/v1/people", {"login": "grace", "role": "viewer", "password": "a long password of hers"})
    made = post("/v1/keys", {"name": "gone soon", "scopes": ["read"]})
    assert api.delete(f"/v1/keys/{made['key_id']}").status_code < 300
    post("/v1/tenants", {"tenant": "acme"})
    post("/v1/tenants", {"tenant": "globex"})
    for path in ("/v1/reports/summary", "/v1/audit-log", "/v1/wallets/ada/overview", "/v1/approvals"):
        assert api.get(path).status_code == 200, path
    assert "clean" in books.command("audit")
    assert "clean" in books.command("audit", role="read")
    assert "ada" in books.command("wallets", "list", role="read")


def test_it_lets_go_of_old_detail_and_erases_a_person(books: Books, collector: Collector) -> None:
    """What deletes and changes rows: retirement and erasure need no right to change a posting."""
    assert collector.export_http(protobuf_body([llm_span(wallet="byron")])).status_code == 200
    assert json.loads(books.command("maintain", "--json"))["retired"] == 2
    books.command("privacy", "erase", "byron", "--yes")
    assert "byron" not in {row["wallet"] for row in collector.pages("/v1/wallets")}
    assert "clean" in books.command("audit")


def test_the_migrating_role_sees_who_else_writes(books: Books, collector: Collector) -> None:
    """An upgrade refuses to begin beside older collectors, which it knows by the names of their connections."""
    assert collector.process.poll() is None
    with psycopg.connect(books.migrate.replace("+psycopg", ""), autocommit=True) as link:
        names = link.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'farebox_write' AND application_name LIKE 'farebox%'"
        ).fetchone()
    assert names is not None
    assert names[0] >= 1


def test_books_from_before_there_were_roles_are_handed_over(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    assert farebox("migrate", "--database-url", url).returncode == 0
    for _ in range(2):
        run_sql(url, "roles.sql")
    migrate = url.replace("farebox@", "farebox_migrate@")
    run_sql(migrate, "grants.sql")
    with psycopg.connect(migrate.replace("+psycopg", ""), autocommit=True) as link:
        link.execute("ALTER TABLE lots ADD COLUMN of_a_later_version integer")
        others = link.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relowner <> 'farebox_migrate'::regrole"
        ).fetchall()
        assert others == []
    assert farebox("migrate", "--database-url", migrate).returncode == 0
    with closing(open_database(url.replace("farebox@", "farebox_write@"))) as database:
        database.transact(lambda connection: ensure_default_tenant(connection, 1))
        assert database.transact(lambda connection: create_tenant(connection, "acme", Decimal(1), 1)) == 2


def test_the_roles_get_the_passwords_of_the_secrets(books: Books, tmp_path: Path) -> None:
    """`psql` runs deploy/passwords.sql; the verifier that the server keeps is of the password in the file."""
    psql = shutil.which("psql") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/psql"))), None)
    assert psql, "PostgreSQL's server comes with its client"
    for role in ROLES:
        (tmp_path / f"postgres_{role}_password").write_text(f"it's {role}", encoding="utf-8")
    url = books.superuser.replace("+psycopg", "")
    told = (psql, url, "-v", "ON_ERROR_STOP=1", "-f", str(DEPLOY / "passwords.sql"))
    environment = os.environ | {"SECRETS": str(tmp_path)}
    done = subprocess.run(told, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with psycopg.connect(url, autocommit=True) as link:
        stored = link.execute("SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'farebox\\_%'").fetchall()
        kept = {name: secret for name, secret in stored if secret}
        link.execute("ALTER ROLE farebox_migrate PASSWORD NULL")
        link.execute("ALTER ROLE farebox_write PASSWORD NULL")
        link.execute("ALTER ROLE farebox_read PASSWORD NULL")
    assert set(kept) == {f"farebox_{role}" for role in ROLES}
    assert all(secret.startswith("SCRAM-SHA-256$") for secret in kept.values())
    assert all(is_verifier_of(f"it's {name.removeprefix('farebox_')}", secret) for name, secret in kept.items())
    assert not is_verifier_of("it's write", kept["farebox_read"])


def is_verifier_of(password: str, stored: str) -> bool:
    """Whether a SCRAM-SHA-256 verifier of PostgreSQL is of a password (RFC 5802)."""
    import base64
    import hashlib
    import hmac

    _, costs, keys = stored.split("$")
    rounds, salt = costs.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    client_key = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    return hashlib.sha256(client_key).digest() == base64.b64decode(keys.split(":")[0])
