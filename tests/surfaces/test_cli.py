"""The command `farebox` in a process of its own: what it prints, what it writes, what it refuses and how it says so."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from harness import Collector, clean_environment
from rich.cells import cell_len
from spans import llm_span, protobuf_body

WIDTH = 80
Result = subprocess.CompletedProcess[str]


WARM_COMMAND = """
import json, os, sys, traceback

from farebox_collector import cli

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        os.chdir(order["cwd"])
        os.environ.update(order["environment"])
        for number, path in ((1, order["out"]), (2, order["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["farebox", *order["arguments"]]
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class WarmCommand:
    """The command `farebox`, its modules imported once: each run is a process of its own, forked where `main` begins.

    Importing takes ten times as long as what the commands do; there are some eighty of them here.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process = subprocess.Popen(
            [sys.executable, "-c", WARM_COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment() | {"COLUMNS": str(WIDTH)},
            cwd=directory,
        )

    def run(self, arguments: tuple[str, ...], cwd: Path | None, environment: dict[str, str]) -> Result:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out, err = self._directory / "stdout", self._directory / "stderr"
        order = {
            "arguments": arguments,
            "cwd": str(cwd or self._directory),
            "environment": environment,
            "out": str(out),
            "err": str(err),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return Result(arguments, status, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def close(self) -> None:
        self._process.communicate(timeout=30)


_warm: list[WarmCommand] = []


@pytest.fixture(scope="module", autouse=True)
def warm_command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for the module, before the first command runs."""
    _warm.append(WarmCommand(tmp_path_factory.mktemp("command")))
    yield
    _warm.pop().close()


def run(*arguments: str, books: Path | None = None, cwd: Path | None = None, **environment: str) -> Result:
    """Run `farebox` on a terminal of 80 columns."""
    where = () if books is None else ("--database-url", f"sqlite:///{books}")
    return _warm[0].run((*arguments, *where), cwd, environment)


def run_all(commands: list[tuple[str, ...]], **options: Any) -> list[Result]:
    return [run(*command, **options) for command in commands]


def succeed(*arguments: str, **options: Any) -> str:
    """What a command prints that has to succeed."""
    result = run(*arguments, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    if "--json" not in arguments:
        assert_fits(result.stdout)
    return result.stdout


def parsed(*arguments: str, **options: Any) -> Any:
    """What a command prints with --json."""
    return json.loads(succeed(*arguments, "--json", **options))


def assert_fits(text: str) -> None:
    wide = [line for line in text.splitlines() if cell_len(line.rstrip()) > WIDTH]
    assert not wide


def assert_refused(result: Result, *words: str) -> None:
    """Status 2, and one sentence on stderr that a person can act on."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stdout == ""
    sentence = " ".join(result.stderr.split())
    assert "Traceback" not in sentence
    assert sentence.startswith("farebox: "), sentence
    assert len(sentence) < 400
    for word in words:
        assert word in sentence, sentence


@pytest.fixture(scope="module")
def written_books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Books that a collector has written: ada paid in 10 and made two calls of $0.00027, bob made one and one unpriced.

    1000 × 150 + 200 × 600 nano-USD each.
    """
    path = tmp_path_factory.mktemp("written") / "farebox.db"
    collector = Collector(path)
    try:
        headers = {"Idempotency-Key": "first"}
        collector.api.post("/v1/wallets/ada/deposits", json={"amount_credits": "10"}, headers=headers)
        spans = [llm_span(wallet=wallet, event="chat.reply") for wallet in ("ada", "ada", "bob")]
        collector.export_grpc(protobuf_body([*spans, llm_span(wallet="bob", model="no-such-model")]))
        assert collector.stop() == 0
    finally:
        collector.close()
    return path


@pytest.fixture
def books(written_books: Path, tmp_path: Path) -> Path:
    """A copy of the written books, to do with as one likes."""
    return Path(shutil.copy(written_books, tmp_path / "farebox.db"))


# ---- help

COMMANDS: list[tuple[str, ...]] = [
    (),
    ("serve",),
    ("audit",),
    ("prices",),
    ("prices", "list"),
    ("prices", "import"),
    ("prices", "set"),
    ("prices", "check"),
    ("prices", "rate", "set"),
    ("receipt",),
    ("costs",),
    ("wallets",),
    ("wallets", "list"),
    ("wallets", "show"),
    ("wallets", "deposit"),
    ("rules",),
    ("rules", "list"),
    ("rules", "set"),
    ("replay",),
]


def test_every_command_explains_itself_within_80_columns(tmp_path: Path) -> None:
    results = run_all([(*command, "--help") for command in COMMANDS], cwd=tmp_path)
    for command, result in zip(COMMANDS, results, strict=True):
        assert (result.returncode, result.stderr) == (0, ""), command
        assert result.stdout.startswith("Usage:")
        assert_fits(result.stdout)
        for longer in COMMANDS:
            if longer[:-1] == command and longer:
                (line,) = (line for line in result.stdout.splitlines() if line.startswith(f"  {longer[-1]} "))
                assert len(line.split()) > 2, f"{longer} is not explained"
    assert list(tmp_path.iterdir()) == [], "help writes nothing"


def test_the_installed_command_is_the_same_program() -> None:
    script = Path(sys.executable).with_name("farebox")
    result = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout.split()[1]) == (0, "farebox")


# ---- wallets


def test_a_deposit_is_made_once_for_each_key_and_shown_exactly(tmp_path: Path) -> None:
    books = tmp_path / "new" / "farebox.db"
    deposit = ("wallets", "deposit", "ada", "1.000000001", "--key", "k1", "--memo", "invoice 7")
    assert "1.000000001 credits paid in" in succeed(*deposit, books=books)
    assert "already paid in" in succeed(*deposit, books=books)
    assert_refused(run("wallets", "deposit", "ada", "2", "--key", "k1", books=books), "k1", "already used")
    assert parsed("wallets", "show", "ada", books=books)["balance_credits"] == "1.000000001"


@pytest.mark.parametrize(
    ("wallet", "amount", "word"),
    [
        ("ada", "0", "positive"),
        ("ada", "1e999", "1e999"),
        ("ada", "0.0000000001", "nine decimals"),
        ("ada", "NaN", "NaN"),
        ("ada\nada", "1", "printable"),
        ("", "1", "printable"),
    ],
)
def test_a_deposit_that_cannot_be_is_refused_and_writes_nothing(
    tmp_path: Path, wallet: str, amount: str, word: str
) -> None:
    books = tmp_path / "farebox.db"
    assert_refused(run("wallets", "deposit", wallet, amount, "--key", "k", books=books), word)
    assert not books.exists()


def test_wallets_are_listed_and_shown_as_tables_and_as_json(books: Path) -> None:
    listed = parsed("wallets", "list", books=books)
    # 10 - 2 × 0.00027
    figures = {wallet["wallet"]: (wallet["balance_credits"], wallet["spent_credits"]) for wallet in listed}
    assert figures == {"ada": ("9.999460000", "0.000540000"), "bob": ("-0.000270000", "0.000270000")}
    assert parsed("wallets", "show", "ada", books=books) == listed[0]
    table = succeed("wallets", "list", books=books)
    for wallet, amounts in figures.items():
        (line,) = (line for line in table.splitlines() if line.split()[:1] == [wallet])
        assert line.split()[1:3] == list(amounts)
    shown = succeed("wallets", "show", "ada", books=books)
    assert [shown.count(word) for word in ("9.999460000", "-0.000270000", "10.000000000")] == [1, 2, 1]
    assert_refused(run("wallets", "show", "missing", books=books), "missing")


def test_a_list_that_is_cut_says_so(books: Path) -> None:
    table = succeed("wallets", "list", "--limit", "1", books=books)
    assert "bob" not in table
    assert "--limit" in table


HOSTILE_NAMES = ["[/x]", "[bold]bold[/bold]", "[link=x]click", "\\[a]", ":warning:", "{0} %s", "日本" * 20]


def test_names_from_outside_are_printed_as_they_are_and_never_as_markup(books: Path) -> None:
    """Senders of spans name wallets and events."""
    with closing(sqlite3.connect(books)) as connection:
        connection.execute("UPDATE usage_records SET event = '[/red]'")
        connection.execute("UPDATE charge_rules SET reason = '[/red] because'")
        connection.executemany(
            "INSERT INTO accounts (tenant_id, kind, name, commodity, created_at_ns)"
            " VALUES (1, 'wallet', ?, 'CREDIT', 0)",
            [(name,) for name in HOSTILE_NAMES],
        )
        connection.commit()
    assert {wallet["wallet"] for wallet in parsed("wallets", "list", books=books)} >= set(HOSTILE_NAMES)
    commands = [("wallets", "list"), ("wallets", "show", "ada"), ("rules", "list"), ("wallets", "show", "[/x]")]
    table, shown, rules, other = run_all(commands, books=books)
    for result in (table, shown, rules, other):
        assert (result.returncode, result.stderr) == (0, ""), result.stderr[-300:]
        assert_fits(result.stdout)
    assert [name for name in HOSTILE_NAMES if name not in table.stdout] == ["日本" * 20], "which is folded"
    assert "[/red]" in shown.stdout
    assert "[/red]" in rules.stdout
    assert "[/x]" in other.stdout


def test_a_deposit_prints_the_name_of_its_wallet_as_it_is(books: Path) -> None:
    assert "[/x] has 1.000000000" in succeed("wallets", "deposit", "[/x]", "1", "--key", "k", books=books)


# ---- prices


def price_of(books: Path, unit: str = "input", *at: str) -> tuple[str, str]:
    """USD per 1,000 of gpt-4o-mini, and where it is from."""
    listed = parsed("prices", "list", "openai", "gpt-4o-mini", *at, books=books)
    (price,) = (price for price in listed if (price["unit"], price["condition"]) == (unit, "standard"))
    return price["usd_per_1k"], price["source"]


def imported(books: Path, *arguments: str) -> Any:
    """What an import that was applied says of itself."""
    return parsed("prices", "import", "--apply", *arguments, books=books)


def test_a_second_import_changes_nothing(tmp_path: Path) -> None:
    books = tmp_path / "farebox.db"
    first = imported(books)
    assert first["applied"] is True
    whole = books.read_bytes()
    again = imported(books)
    assert again["prices"] | {"unchanged": 0} == {
        "added": 0,
        "changed": 0,
        "closed": 0,
        "unchanged": 0,
        "kept_by_hand": 0,
    }
    assert (again["versions_added"], again["versions_closed"], again["differences"]) == (0, 0, [])
    assert again["prices"]["unchanged"] > 1000
    with closing(sqlite3.connect(books)) as connection:
        imports = [source for (source,) in connection.execute("SELECT source FROM price_imports ORDER BY id")]
        (versions,) = connection.execute("SELECT count(*) FROM price_versions").fetchone()
    # The catalogue, and what corrects and completes it.
    assert imports == ["genai-prices", "farebox-corrections", "farebox-conditions"]
    assert versions > 1000
    assert len(books.read_bytes()) == len(whole)


def test_an_import_brings_an_older_book_up_to_date_without_touching_the_past(books: Path) -> None:
    with closing(sqlite3.connect(books)) as connection:
        # What the book itself never does.
        connection.execute("DROP TRIGGER price_versions_altered")
        connection.execute(
            "UPDATE price_versions SET usd_per_1k = '0.0002' WHERE provider = 'openai' AND model = 'gpt-4o-mini'"
            " AND unit = 'input' AND condition = 'standard'"
        )
        connection.commit()
    assert price_of(books) == ("0.0002", "genai-prices")
    shown = succeed("prices", "import", "--dry-run", books=books)
    assert "0.0002" in shown
    assert "0 added, 1 changed, 0 closed" in shown
    assert price_of(books) == ("0.0002", "genai-prices"), "a dry run changed something"
    (difference,) = imported(books)["differences"]
    assert (difference["kind"], difference["old_usd_per_1k"], difference["new_usd_per_1k"]) == (
        "changed",
        "0.0002",
        "0.00015",
    )
    assert price_of(books) == ("0.00015", "genai-prices")
    assert price_of(books, "input", "--at", "2026-01-01") == ("0.0002", "genai-prices")
    assert imported(books)["differences"] == []


def test_a_price_set_by_hand_holds_from_its_moment_on_and_survives_an_import(books: Path) -> None:
    command = ("prices", "set", "openai", "gpt-4o-mini", "input", "0.0003", "--author", "ada")
    assert "1 price version added, 1 closed" in succeed(*command, "--from", "2026-02-01T12:00:00", books=books)
    assert imported(books)["prices"]["kept_by_hand"] == 1
    assert price_of(books) == ("0.0003", "manual")
    assert price_of(books, "input", "--at", "2026-02-01T12:00:00") == ("0.0003", "manual")
    assert price_of(books, "input", "--at", "2026-02-01T11:59:59") == ("0.00015", "genai-prices")
    assert price_of(books, "output") == ("0.0006", "genai-prices")
    assert run("audit", books=books).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("prices", "set", "openai", "m", "inputs", "1"), "inputs"),
        (("prices", "set", "openai", "m", "reasoning", "1"), "reasoning"),
        (("prices", "set", "openai", "m", "input", "0"), "positive"),
        (("prices", "set", "openai", "m", "input", "NaN"), "positive"),
        (("prices", "set", "openai", "m", "input", "1", "--from", "1960-01-01"), "1970"),
        (("prices", "list", "--at", "1960-01-01"), "1970"),
        (("rules", "set", "e", "--multiplier", "0", "--reason", "r"), "positive"),
        (("rules", "set", "", "--multiplier", "1", "--reason", "r"), "event"),
    ],
)
def test_a_price_or_rule_that_cannot_be_is_refused_in_one_sentence(
    books: Path, arguments: tuple[str, ...], word: str
) -> None:
    before = books.read_bytes()
    assert_refused(run(*arguments, books=books), word)
    assert books.read_bytes() == before


# ---- rules


def test_a_rule_is_a_new_version_and_the_one_before_stays(books: Path) -> None:
    (default,) = parsed("rules", "list", books=books)
    assert (default["event"], default["multiplier"], default["valid_to"]) == ("*", "1", None)
    for multiplier in ("1.5", "2"):
        command = ("rules", "set", "chat.reply", "--multiplier", multiplier, "--reason", "support", "--author", "ada")
        assert f"times {multiplier}" in succeed(*command, books=books)
    rules = parsed("rules", "list", books=books)
    assert [(rule["event"], rule["multiplier"]) for rule in rules] == [
        ("*", "1"),
        ("chat.reply", "1.5"),
        ("chat.reply", "2"),
    ]
    assert rules[1]["valid_to"] == rules[2]["valid_from"]
    assert rules[2]["valid_to"] is None
    assert (rules[2]["author"], rules[2]["reason"]) == ("ada", "support")


# ---- replay

PERIOD = ("replay", "--from", "2020-01-01", "--to", "2100-01-01")


def test_a_replay_shows_the_difference_and_posts_it_when_told_to(books: Path) -> None:
    succeed("prices", "set", "openai", "gpt-4o-mini", "output", "0.0012", "--from", "2020-01-01", books=books)
    for options, words in ((("--dry-run",), "Nothing is posted."), ((), "use --yes")):
        shown = succeed(*PERIOD, *options, books=books)
        # Three calls of 1000 × 150 + 200 × 600, and now 200 × 1200 nano-USD; one has no price.
        for expected in ("openai/gpt-4o-mini", "0.000810000", "→ 0.001170000", "4 records read, 3 change", words):
            assert expected in shown
        assert shown.index("ada") < shown.index("bob"), "the largest difference first"
    assert parsed("wallets", "show", "ada", books=books)["spent_credits"] == "0.000540000"
    posted = parsed(*PERIOD, "--wallet", "ada", "--yes", books=books)
    assert (posted["posted"], posted["total"]["records"], posted["total"]["cost_after_usd"]) == (True, 2, "0.000780000")
    spent = {wallet["wallet"]: wallet["spent_credits"] for wallet in parsed("wallets", "list", books=books)}
    assert spent == {"ada": "0.000780000", "bob": "0.000270000"}
    assert "Corrections posted: 1;" in succeed(*PERIOD, "--yes", books=books)
    assert parsed(*PERIOD, books=books)["total"]["records"] == 0
    succeed("audit", books=books)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--from", "2026-02-01", "--to", "2026-02-01"), ("--from must be before --to",)),
        ((*PERIOD[1:], "--yes", "--dry-run"), ("either",)),
        ((*PERIOD[1:], "--tenant", "missing"), ("missing", "tenants list")),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused(books: Path, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(run("replay", *options, books=books), *words)


# ---- the audit


def test_clean_books_pass_the_audit(books: Path) -> None:
    assert "clean" in succeed("audit", books=books)
    report = parsed("audit", books=books)
    assert report["clean"] is True
    assert report["mismatches"] == []
    assert {"legs", "balances", "charges", "costs", "totals"} <= set(report["checks"])


@pytest.mark.parametrize(
    ("tampering", "check", "what"),
    [
        ("UPDATE accounts SET balance_nano = balance_nano + 1 WHERE name = 'ada'", "balances", "ada"),
        ("UPDATE accounts SET spent_nano = spent_nano - 1 WHERE name = 'ada'", "spent", "ada"),
        ("UPDATE postings SET amount_nano = amount_nano + 1 WHERE id = 1", "legs", "transaction 1"),
        ("UPDATE postings SET commodity = 'USD' WHERE id = 1", "commodities", "posting 1"),
        ("UPDATE usage_records SET charge_nanocredits = 0 WHERE wallet = 'bob' AND cost_nanousd > 0", "charges", "bob"),
        ("UPDATE usage_records SET wallet = 'ada' WHERE wallet = 'bob'", "charges", "bob"),
        ("DELETE FROM usage_records WHERE wallet = 'bob'", "charges", "bob"),
        ("UPDATE usage_records SET cost_nanousd = cost_nanousd + 1 WHERE wallet = 'ada'", "costs", "gpt-4o-mini"),
        ("UPDATE usage_records SET verdict = 'charged' WHERE verdict = 'unpriced'", "verdicts", "usage record"),
        ("UPDATE usage_totals SET input_tokens = input_tokens + 1 WHERE verdict = 'charged'", "totals", "charged"),
    ],
)
def test_tampered_books_fail_the_audit_which_names_the_mismatch(
    books: Path, tampering: str, check: str, what: str
) -> None:
    with closing(sqlite3.connect(books)) as connection:
        assert connection.execute(tampering).rowcount > 0
        connection.commit()
    result = run("audit", books=books)
    assert (result.returncode, result.stderr) == (1, "")
    named = [line for line in result.stdout.splitlines() if line.startswith(f"{check}: ")]
    assert any(what in line for line in named), result.stdout
    assert all("expected" in line and "found" in line for line in named)


def test_a_failed_audit_is_json_too(books: Path) -> None:
    with closing(sqlite3.connect(books)) as connection:
        connection.execute("UPDATE accounts SET balance_nano = 1 WHERE name = 'ada'")
        connection.commit()
    result = run("audit", "--json", books=books)
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["clean"] is False
    # 10 - 2 × 0.00027 credits
    found = {mismatch.pop("check"): mismatch for mismatch in report["mismatches"]}
    assert found["balances"] == {"what": "wallet ada", "expected": "9999460000", "found": "1"}
    assert set(found) == {"balances", "drawn", "bridge credits"}, (
        "and the wallet's lots and the bridge, no longer tell what is left"
    )


# ---- one writer


@pytest.fixture(scope="module")
def running(written_books: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that runs on a copy of the written books."""
    collector = Collector(Path(shutil.copy(written_books, tmp_path_factory.mktemp("running") / "farebox.db")))
    yield collector
    assert collector.stop() == 0
    collector.audit()
    collector.close()


def test_a_second_writer_is_refused_while_a_collector_runs(running: Collector) -> None:
    before = running.pages("/v1/ledger")
    commands = [
        ("wallets", "deposit", "ada", "5", "--key", "second"),
        ("prices", "set", "openai", "gpt-4o-mini", "input", "1"),
        ("prices", "import", "--apply"),
        ("rules", "set", "chat.reply", "--multiplier", "9", "--reason", "none"),
        (*PERIOD, "--yes"),
        ("serve", *(f"--{name}-address=127.0.0.1:0" for name in ("grpc", "otlp-http", "api", "metrics"))),
    ]
    for result in run_all(commands, books=running.database):
        assert_refused(result, str(running.process.pid), "stop it first", "HTTP API")
    assert running.pages("/v1/ledger") == before
    assert not running.export_grpc(protobuf_body([llm_span(wallet="bob")])).HasField("partial_success")


def test_readers_are_welcome_while_a_collector_runs(running: Collector) -> None:
    commands = [("wallets", "list"), ("wallets", "show", "ada"), ("prices", "list"), ("rules", "list"), ("audit",)]
    for result in run_all([(*command, "--json") for command in commands], books=running.database):
        assert (result.returncode, result.stderr) == (0, "")
        json.loads(result.stdout)


# ---- what cannot be started or read


def test_an_address_that_is_not_loopback_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    refused = ["0.0.0.0:0", "[::]:0", ":0", "192.168.1.1:4317", "8.8.8.8:80", "example.com:80"]
    unusable = ["4317", "localhost", "127.0.0.1:99999", "127.0.0.1:http", ""]
    books = tmp_path / "farebox.db"
    commands: list[tuple[str, ...]] = [("serve", "--api-address", address) for address in refused + unusable]
    commands += [("serve", f"--{name}-address", "0.0.0.0:0") for name in ("grpc", "otlp-http", "metrics")]
    for command, result in zip(commands, run_all(commands, books=books), strict=True):
        assert_refused(result, command[1].removeprefix("--").replace("-", "_"))
    assert_refused(run("serve", books=books, FAREBOX_GRPC_ADDRESS="0.0.0.0:4317"), "grpc_address", "0.0.0.0")
    assert list(tmp_path.iterdir()) == []


def test_reading_books_that_are_not_there_says_so_and_makes_none(tmp_path: Path) -> None:
    commands = [("wallets", "list"), ("wallets", "show", "ada"), ("prices", "list"), ("rules", "list"), ("audit",)]
    for result in run_all(commands, books=tmp_path / "missing.db"):
        assert_refused(result, "no books at")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_books_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.db", tmp_path / "text.db"
    sqlite3.connect(empty).close()
    empty.touch()
    text.write_text("these are not the books you are looking for " * 100, encoding="utf-8")
    before = text.read_bytes()
    assert_refused(run("wallets", "list", books=empty), "schema")
    assert_refused(run("wallets", "list", books=text))
    assert_refused(run("wallets", "deposit", "ada", "1", "--key", "k", books=text))
    assert text.read_bytes() == before


def test_books_in_a_database_of_another_kind_are_refused(tmp_path: Path) -> None:
    result = run("audit", "--database-url", "postgresql://localhost/farebox", cwd=tmp_path)
    assert_refused(result, "database_url", "postgresql+psycopg://")


# ---- width


def test_tables_fit_80_columns_with_long_names_and_keep_every_figure(books: Path) -> None:
    long_name = "a-wallet-with-a-name-that-goes-on-and-on " * 4
    model = "a-model-with-a-really-quite-long-name/and-a-slash-2026-01-01-preview-thinking"
    succeed("wallets", "deposit", long_name, "4611686017.123456789", "--key", "k", books=books)
    succeed("prices", "set", "a-provider-of-models", model, "output_reasoning", "0.000000000123456",
            "--over", "200000", "--author", "a person with a long name", books=books)  # fmt: skip
    rule = ("rules", "set", "an.event.with.a.long.name." * 3, "--multiplier", "1.234567890123456789")
    succeed(
        *rule, "--reason", "we have to earn something with this, " * 5, "--author", "ada lovelace " * 3, books=books
    )
    commands = [
        ("wallets", "list"),
        ("wallets", "show", long_name),
        ("prices", "list", "a-provider-of-models"),
        ("prices", "list", "--limit", "2000"),
        ("rules", "list"),
    ]
    results = run_all(commands, books=books)
    for command, result in zip(commands, results, strict=True):
        assert result.returncode == 0, command
        assert_fits(result.stdout)
        assert "…" not in result.stdout, f"{command} cuts something off"
    for result, figure in zip(results, ["4611686017.123456789"] * 2 + ["0.000000000123456"], strict=False):
        assert figure in result.stdout
