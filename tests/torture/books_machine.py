"""Any sequence of deposits, charges, resends, contradictions, better witnesses, new prices, replays, retirements and
restarts, against a plain model."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from farebox_collector import dialects
from farebox_collector.background.replay import Replay
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.deposits import IdempotencyConflict, deposit
from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.tariffs.prices import set_price
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.replay_candidates import ReplayScope
from farebox_collector.ledger.usage.retention import retire
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.ledger.usage.tombstones import DetailRetired
from farebox_collector.model.moments import DAY_NS
from farebox_collector.model.records import (
    DEFAULT_TENANT_ID,
    UNATTRIBUTED,
    CatalogueRow,
    PricedUsage,
    Rejected,
    Span,
    UsageRecord,
)
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.price import price
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

HOUR_NS = 3600 * 10**9
BEGIN_NS = 1_767_300_000 * 10**9
WEEK_NS = 168 * HOUR_NS
MODEL = "gpt-4o-mini"
OUTPUT_NANO = 600

wallets = st.sampled_from(("ada", "bob", "cy"))
calls = st.lists(st.tuples(wallets, st.integers(1, 9), st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=8)


class Charged(NamedTuple):
    """A call as the model knows it."""

    number: int
    wallet: str
    start_ns: int
    tokens_in: int
    tokens_out: int
    paid_nano: int = 0


class BooksMachine(RuleBasedStateMachine):
    """The ledger through its own functions, and next to it the few lines that say what it must hold."""

    def __init__(self, new_books: Callable[[Path], str]) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._url = new_books(Path(self._directory.name))
        self._now_ns = BEGIN_NS
        self._spans = 0
        self._sent: list[Span] = []
        # The model: input prices from a moment on, what was charged, who has what, which keys were used.
        self._prices = [(0, 150)]
        self._charged: list[Charged] = []
        self._nameless: list[Span] = []
        self._balance: Counter[str] = Counter()
        self._keys: dict[str, tuple[str, int]] = {}
        self._conflicts: set[tuple[bytes, str]] = set()
        # When each span was recorded and began, which were corrected since, and whose detail is gone.
        self._booked: dict[int, tuple[int, int]] = {}
        self._corrected: set[int] = set()
        self._retired: set[int] = set()
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
            self._pay(Charged(self._spans, wallet, start_ns, tokens_in, tokens_out))
        assert set(self._record(spans)) == {Verdict.CHARGED}
        self._book(spans)

    @rule(tokens=st.tuples(st.integers(1, 9), st.integers(1, 9)), hours_ago=st.integers(0, 5))
    def charge_nobody(self, tokens: tuple[int, int], hours_ago: int) -> None:
        """A span that names no wallet: a client's own, inside an instrumentation that will report it, too."""
        self._spans += 1
        start_ns = self._now_ns - hours_ago * HOUR_NS
        span = _span(self._spans, start_ns, "", *tokens, f"shared {self._spans}")
        assert self._record([span]) == [Verdict.CHARGED]
        self._pay(Charged(self._spans, UNATTRIBUTED, start_ns, *tokens))
        self._book([span])
        self._nameless.append(span)

    @precondition(lambda self: self._nameless)
    @rule(data=st.data(), wallet=wallets)
    def correct(self, data: st.DataObject, wallet: str) -> None:
        """The better span arrives: the unattributed charge is reversed and its wallet pays, unless it is too late."""
        nameless = data.draw(st.sampled_from(self._nameless))
        self._nameless.remove(nameless)
        before = next(one for one in self._charged if one.number == int.from_bytes(nameless.span_id, "big"))
        self._spans += 1
        response_id = str(nameless.attributes["gen_ai.response.id"])
        span = _span(self._spans, before.start_ns, wallet, before.tokens_in, before.tokens_out, response_id)
        verdicts = self._record([span])
        self._book([span])
        if before.number in self._retired:
            assert verdicts == [Verdict.COVERED]
            return
        assert verdicts == [Verdict.CHARGED]
        self._corrected.add(before.number)
        self._charged.remove(before)
        self._balance[before.wallet] += before.paid_nano
        self._pay(Charged(self._spans, wallet, before.start_ns, before.tokens_in, before.tokens_out))

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

    @rule(first=st.integers(0, 8), hours=st.integers(1, 8), chunk=st.integers(1, 5))
    def replay(self, first: int, hours: int, chunk: int) -> None:
        """Price some of the past anew."""
        from_ns = self._now_ns - first * HOUR_NS
        scope = ReplayScope(from_ns, from_ns + hours * HOUR_NS)
        chosen = [one for one in self._charged if scope.from_ns <= one.start_ns < scope.to_ns]
        changed = [one for one in chosen if one.paid_nano != self._cost(one)]
        made = Replay(self._database, DEFAULT_TENANT_ID, scope, lambda: self._now_ns, chunk)
        first_day, last_day = scope.from_ns // DAY_NS, (scope.to_ns - 1) // DAY_NS
        if any(first_day <= self._booked[number][1] // DAY_NS <= last_day for number in self._retired):
            with pytest.raises(DetailRetired):
                made.post()
            return
        assert made.compare().total.records == len(changed)
        report = made.post()
        assert (report.looked_at, report.total.records) == (len(chosen), len(changed))
        for one in changed:
            self._corrected.add(one.number)
            self._charged.remove(one)
            self._balance[one.wallet] += one.paid_nano
            self._pay(one)

    @rule(hours_ago=st.integers(0, 4), at_once=st.integers(1, 5))
    def retire(self, hours_ago: int, at_once: int) -> None:
        """Let go of the detail of what came before a moment, but for what was corrected."""
        self._spans += 1
        span = _span(self._spans, self._now_ns, "ada", 1, 1)
        self._pay(Charged(self._spans, "ada", self._now_ns, 1, 1))
        assert self._record([span]) == [Verdict.CHARGED]
        self._book([span])
        before_ns = self._now_ns - hours_ago * HOUR_NS
        old = {number for number, (received_ns, _) in self._booked.items() if received_ns < before_ns}
        going = old - self._corrected - self._retired
        gone, after, ended = 0, 0, False
        while not ended:
            with self._database.transaction() as connection:
                _, retired, _, ended = stretch = retire(connection, after, before_ns, at_once)
            gone, after = gone + retired, stretch.last_id
        assert gone == len(going)
        self._retired |= going

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

    def _book(self, spans: list[Span]) -> None:
        self._sent += spans
        for span in spans:
            self._booked[int.from_bytes(span.span_id, "big")] = self._now_ns, span.start_ns

    def _pay(self, call: "Charged") -> None:
        paid = call._replace(paid_nano=self._cost(call))
        self._charged.append(paid)
        self._balance[call.wallet] -= paid.paid_nano

    def _cost(self, call: "Charged") -> int:
        rate = next(nano for since_ns, nano in reversed(self._prices) if since_ns <= call.start_ns)
        return call.tokens_in * rate + call.tokens_out * OUTPUT_NANO

    def _record(self, spans: list[Span]) -> list[Verdict]:
        self._tariffs.refresh()
        priced: list[PricedUsage] = []
        for span in spans:
            usage = dialects.read(span, ("user.id",))
            assert isinstance(usage, UsageRecord), usage.reason if isinstance(usage, Rejected) else usage
            priced.append(price(usage, self._now_ns, WEEK_NS, *self._tariffs.of(1)[:2]))
        with self._database.transaction() as connection:
            return record_usage(connection, DEFAULT_TENANT_ID, priced, self._now_ns, self._labels)


def _span(number: int, start_ns: int, wallet: str, tokens_in: int, tokens_out: int, response_id: str = "") -> Span:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.usage.input_tokens": tokens_in,
        "gen_ai.usage.output_tokens": tokens_out,
        "gen_ai.response.id": response_id or (f"r-{number}" if number % 2 else ""),
    }
    if wallet:
        attributes["farebox.wallet"] = wallet
    ids = number.to_bytes(16, "big"), number.to_bytes(8, "big")
    return Span(*ids, b"", start_ns, start_ns + 10**9, False, attributes, {}, "test", "1")


def try_histories(new_books: Callable[[Path], str], chosen_by: int, examples: int, steps: int) -> None:
    """So many random histories, each on new books of its own; raises what a history ends with that does not add up."""

    @seed(chosen_by)
    def machine() -> BooksMachine:
        return BooksMachine(new_books)

    limits = settings(max_examples=examples, stateful_step_count=steps, deadline=None, database=None)
    run_state_machine_as_test(machine, settings=limits)  # type: ignore[arg-type]  # a factory will do
