"""Any sequence of deposits, charges, resends, contradictions, new prices and restarts, against a plain model."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from blank import blank_postgresql, blank_sqlite
from farebox_collector import dialects
from farebox_collector.ledger import statements
from farebox_collector.ledger.audit import audit
from farebox_collector.ledger.connect import open_database
from farebox_collector.ledger.prices import set_price
from farebox_collector.ledger.totals import TotalLabels
from farebox_collector.ledger.usage import record_usage
from farebox_collector.ledger.wallets import IdempotencyConflict, deposit
from farebox_collector.pricing.price import price
from farebox_collector.records import DEFAULT_TENANT_ID, CatalogueRow, PricedUsage, Rejected, Span, UsageRecord
from farebox_collector.tariffs import Tariffs
from farebox_collector.verdicts import Verdict
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from postgres import PostgresServer

HOUR_NS = 3600 * 10**9
BEGIN_NS = 1_767_300_000 * 10**9
WEEK_NS = 168 * HOUR_NS
MODEL = "gpt-4o-mini"
OUTPUT_NANO = 600

wallets = st.sampled_from(("ada", "bob", "cy"))
calls = st.lists(st.tuples(wallets, st.integers(1, 9), st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=8)


class BooksMachine(RuleBasedStateMachine):
    """The ledger through its own functions, and next to it the few lines that say what it must hold."""

    def __init__(self, new_books: Callable[[Path], str]) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._url = new_books(Path(self._directory.name))
        self._now_ns = BEGIN_NS
        self._spans = 0
        self._sent: list[Span] = []
        # The model: input prices from a moment on, who has what, which keys were used.
        self._prices = [(0, 150)]
        self._balance: Counter[str] = Counter()
        self._keys: dict[str, tuple[str, int]] = {}
        self._conflicts: set[tuple[bytes, str]] = set()
        with closing(open_database(self._url)) as database, database.transaction() as connection:
            # One model's prices: reading thousands at every turn would take most of the time.
            others = f"model <> '{MODEL}' OR provider <> 'openai' OR condition <> 'standard'"
            connection.exec_driver_sql(f"UPDATE price_versions SET valid_to_ns = valid_from_ns WHERE {others}")
            connection.exec_driver_sql(f"DELETE FROM priced_models WHERE model <> '{MODEL}' OR provider <> 'openai'")
        self._open()

    def _open(self) -> None:
        self._database = open_database(self._url)
        self._labels = TotalLabels()
        self._tariffs = Tariffs(self._database, lambda: self._now_ns)

    @rule(wallet=wallets, nano=st.integers(1, 10**12), key=st.sampled_from("abcdef"))
    def deposit(self, wallet: str, nano: int, key: str) -> None:
        known = self._keys.setdefault(key, (wallet, nano))
        try:
            with self._database.transaction() as connection:
                made = deposit(connection, DEFAULT_TENANT_ID, wallet, nano, key, self._now_ns)
        except IdempotencyConflict:
            assert known != (wallet, nano)
            return
        assert known == (wallet, nano)
        if not made.repeated:
            self._balance[wallet] += nano
        assert made.balance_nanocredits == self._balance[wallet]

    @rule(new=calls)
    def charge(self, new: list[tuple[str, int, int, int]]) -> None:
        spans = []
        for wallet, tokens_in, tokens_out, hours_ago in new:
            self._spans += 1
            start_ns = self._now_ns - hours_ago * HOUR_NS
            spans.append(_span(self._spans, start_ns, wallet, tokens_in, tokens_out))
            rate = next(nano for since_ns, nano in reversed(self._prices) if since_ns <= start_ns)
            self._balance[wallet] -= tokens_in * rate + tokens_out * OUTPUT_NANO
        assert set(self._record(spans)) == {Verdict.CHARGED}
        self._sent += spans

    @precondition(lambda self: self._sent)
    @rule(data=st.data())
    def resend(self, data: st.DataObject) -> None:
        again = data.draw(st.lists(st.sampled_from(self._sent), min_size=1, max_size=12))
        cut = data.draw(st.integers(0, len(again)))
        for part in (again[:cut], again[cut:]):
            assert set(self._record(part)) <= {Verdict.DUPLICATE}

    @precondition(lambda self: self._sent)
    @rule(data=st.data(), tokens=st.integers(100, 103))
    def contradict(self, data: st.DataObject, tokens: int) -> None:
        original = data.draw(st.sampled_from(self._sent))
        attributes = {**original.attributes, "gen_ai.usage.input_tokens": tokens, "farebox.wallet": "mallory"}
        assert self._record([original._replace(attributes=attributes), original]) == [
            Verdict.CONFLICT,
            Verdict.DUPLICATE,
        ]
        self._conflicts.add((original.span_id, json.dumps(tokens)))

    @rule(nano=st.integers(1, 1_000), hours_ago=st.integers(0, 5))
    def reprice(self, nano: int, hours_ago: int) -> None:
        since_ns = self._now_ns - hours_ago * HOUR_NS
        row = CatalogueRow("openai", MODEL, "input", 0, 0, 0, Decimal(nano) / 10**6, since_ns, None)
        with self._database.transaction() as connection:
            set_price(connection, row, "test", self._now_ns)
        self._prices = [entry for entry in self._prices if entry[0] < since_ns] + [(since_ns, nano)]
        # A collector looks for new prices once a second.
        self._now_ns += 2 * 10**9

    @rule(hours=st.integers(1, 3))
    def wait(self, hours: int) -> None:
        self._now_ns += hours * HOUR_NS

    @rule()
    def restart(self) -> None:
        self._database.close()
        self._open()

    def teardown(self) -> None:
        """The books add up, and say what the model says."""
        try:
            with closing(self._database), self._database.reading() as connection:
                assert list(audit(connection)) == []
                found = statements.wallets(connection, DEFAULT_TENANT_ID)
                conflicts = connection.exec_driver_sql("SELECT count(*) FROM usage_conflicts").scalar_one()
            assert {row.name: row.balance_nano for row in found} == dict(self._balance)
            assert conflicts == len(self._conflicts)
        finally:
            self._directory.cleanup()

    def _record(self, spans: list[Span]) -> list[Verdict]:
        self._tariffs.refresh()
        priced: list[PricedUsage] = []
        for span in spans:
            usage = dialects.read(span, ("user.id",))
            assert isinstance(usage, UsageRecord), usage.reason if isinstance(usage, Rejected) else usage
            priced.append(price(usage, self._now_ns, WEEK_NS, *self._tariffs.of(1)))
        with self._database.transaction() as connection:
            return record_usage(connection, DEFAULT_TENANT_ID, priced, self._now_ns, self._labels)


def _span(number: int, start_ns: int, wallet: str, tokens_in: int, tokens_out: int) -> Span:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.usage.input_tokens": tokens_in,
        "gen_ai.usage.output_tokens": tokens_out,
        "gen_ai.response.id": f"r-{number}" if number % 2 else "",
        "farebox.wallet": wallet,
    }
    ids = number.to_bytes(16, "big"), number.to_bytes(8, "big")
    return Span(*ids, b"", start_ns, start_ns + 10**9, False, attributes, {}, "test", "1")


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 25), ("postgresql", 8)])
def test_whatever_happens_the_books_say_what_a_plain_model_says(
    kind: str, examples: int, request: pytest.FixtureRequest
) -> None:
    new_books: Callable[[Path], str] = blank_sqlite
    if kind == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")

        def new_books(_directory: Path) -> str:
            return blank_postgresql(server)

    run_state_machine_as_test(
        lambda: BooksMachine(new_books),
        settings=settings(max_examples=examples, stateful_step_count=20, deadline=None),
    )
