"""The world outside the collector: clients that keep their own log, and a plain model of what the books must hold.

Three figures tell how a fault went. L: spans that were acknowledged and are not in the books. D: how far the books are
from the model, in nano-USD and nanocredits over all wallets, once every span is in them. A: mismatches of the audit.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx2
from blank import blank_postgresql, blank_sqlite
from farebox_collector.dialects.event_identity import identified
from farebox_collector.model.records import EVENT_NAME, Span
from harness import Collector
from logs import GENAI_EVENT, LogSpec, logs_as_json, logs_request
from postgres import PostgresServer
from spans import SpanSpec, json_body, llm_span, protobuf_body
from torture.books import Books, Served

WALLETS = 17
EVENTS = ("chat.reply", "search", "agent.step")
PATIENCE_S = 60
MOST_P99_RATIO = 2
MOST_RESIDENT_MIB = 768
"""The most memory that a collector may take under any load."""
RETRYABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED})

Key = tuple[bytes, bytes]


class Rate(NamedTuple):
    """Nano-USD a token, as the bundled price book has them; a credit is a dollar and events cost what they cost."""

    provider: str
    input: int
    output: int


RATES = {
    "gpt-4o-mini": Rate("openai", 150, 600),
    "gpt-4o": Rate("openai", 2_500, 10_000),
    "claude-haiku-4-5": Rate("anthropic", 1_000, 5_000),
}


BY_SPAN, BY_LOG, BY_BOTH = "span", "log", "both"


class Call(NamedTuple):
    """One call, by the attributes of its span, and what it must cost."""

    span: SpanSpec
    wallet: str
    cost_nano: int
    told: str = BY_SPAN
    """By which signal the collector is told of it."""

    @property
    def key(self) -> Key:
        """What the model knows it by."""
        return self.span.trace_id, self.span.span_id

    @property
    def keys(self) -> list[Key]:
        """What the books know it by."""
        by_span = [] if self.told == BY_LOG else [self.key]
        return by_span if self.told == BY_SPAN else [*by_span, self._key_of_event()]

    @property
    def event(self) -> LogSpec:
        """The log record that tells it: in the same trace, and within the span."""
        span = self.span
        told = LogSpec(span.attributes, GENAI_EVENT, "", span.start_ns, 0, 9, span.trace_id)
        return told._replace(span_id=span.span_id) if self.told == BY_BOTH else told

    def _key_of_event(self) -> Key:
        attributes = {**self.span.attributes, EVENT_NAME: GENAI_EVENT}
        at_ns = self.span.start_ns
        record = Span(self.span.trace_id, b"", b"", at_ns, at_ns, False, attributes, {}, "", "")  # type: ignore[arg-type]
        named = str(attributes["gen_ai.response.id"])
        return self.span.trace_id, identified(record, "genai_event", request_id=named).span_id


class Broken(Exception):
    """The collector broke a promise that is not about amounts; the message says which."""


class Refused(Exception):
    """A request was refused for good."""


class NotNow(Exception):
    """A request got no answer, or was told to try again."""


class Result(NamedTuple):
    """How a fault went."""

    tried: int
    lost_spans: int
    off_nano: int
    audit_mismatches: int
    recovery_s: float | None
    """The longest time from the fault until the next acknowledgement."""
    p99_ratio: float | None = None
    """The bystanders' p99 during the fault, by what it is without; where it was taken, it may be twice that."""
    peak_mib: int = 0
    """The most memory that a collector took."""

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, doubled or left contradictory, no sender had to wait, and memory was bounded."""
        late = self.p99_ratio is not None and self.p99_ratio > MOST_P99_RATIO
        wrong = self.lost_spans or self.off_nano or self.audit_mismatches
        return not (wrong or late or self.peak_mib > MOST_RESIDENT_MIB)


class World:
    """New books of one kind, the collectors over them, and everything that was ever sent to them."""

    def __init__(
        self,
        kind: str,
        directory: Path,
        seed: int,
        *,
        short: bool,
        postgres: PostgresServer | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        postgres = postgres if kind == "postgresql" else None
        self.directory = directory
        self.short = short
        self.postgres = postgres
        self.chosen = random.Random(f"{seed}")
        self._seed = seed
        self._environment = environment
        if kind == "sqlite":
            self.url = blank_sqlite(directory)
        else:
            assert postgres is not None
            self.url = blank_postgresql(postgres)
        self.books = Books(self.url)
        self.collectors: list[Served] = []
        self.calls: dict[Key, Call] = {}
        self.acknowledged: set[Key] = set()
        self.deposits: Counter[str] = Counter()
        self.refusals: list[str] = []
        self.retries = 0
        self.acknowledgements = 0
        self.waits_s: list[float] = []
        """How long each acknowledgement took, in the order they came."""
        self.changed = threading.Condition()
        self._batches = 0
        self._lost: set[Key] = set()
        # Recent, or the collector would not believe the spans' own times.
        self._base_ns = time.time_ns() - 2 * 3600 * 10**9

    def serve(self, url: str | None = None, **options: Any) -> Served:
        """Start one more collector over the books."""
        log = self.directory / f"collector-{len(self.collectors)}.log"
        self.collectors.append(Served(url or self.url, log, environment=self._environment, **options))
        return self.collectors[-1]

    def move_books(self, directory: Path) -> None:
        """Keep the books somewhere else; before the first collector."""
        self.url = blank_sqlite(directory)
        self.books = Books(self.url)

    def expect(self, statement: str, number: int) -> None:
        """Raise Broken unless the books say this."""
        found = self.books.number(statement)
        if found != number:
            raise Broken(f"{statement}: expected {number}, found {found}")

    def close(self) -> None:
        """End every collector."""
        for collector in self.collectors:
            collector.close()

    def tries(self, full: int, short: int) -> int:
        """How often to try something."""
        return short if self.short else full

    def new_batch(
        self, spans: int = 20, start_ns: int | None = None, model: str | None = None, *, by_spans_alone: bool = False
    ) -> list[Call]:
        """New calls that were never sent; the n-th batch of a seed is always the same but for the time of day.

        One in five is told by a log record, alone or beside its span.
        """
        with self.changed:
            self._batches += 1
            chosen = random.Random(f"{self._seed}/{self._batches}")
        # All or half of them have response ids, so that both ways of booking and of telling calls apart are used.
        named = chosen.choice((0.5, 1.0))
        batch = [self._new_call(chosen, start_ns, model, named) for _ in range(spans)]
        if not by_spans_alone:
            batch = [self._by_a_signal(chosen, call) for call in batch]
        with self.changed:
            self.calls |= {call.key: call for call in batch}
        return batch

    def _new_call(self, chosen: random.Random, start_ns: int | None, model: str | None, named: float) -> Call:
        name = model or chosen.choice(list(RATES))
        rate = RATES[name]
        tokens_in, tokens_out = chosen.randrange(1, 5_000), chosen.randrange(1, 2_000)
        trace_id, span_id = chosen.randbytes(16), chosen.randbytes(8)
        wallet = f"wallet-{chosen.randrange(WALLETS)}"
        span = llm_span(
            trace_id=trace_id,
            span_id=span_id,
            start_ns=self._base_ns + chosen.randrange(3600 * 10**9) if start_ns is None else start_ns,
            wallet=wallet,
            event=chosen.choice(EVENTS),
            model=name,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            response_id=f"r-{span_id.hex()}" if chosen.random() < named else None,
            gen_ai__provider__name=rate.provider,
        )
        return Call(span, wallet, tokens_in * rate.input + tokens_out * rate.output)

    def _by_a_signal(self, chosen: random.Random, call: Call) -> Call:
        """The same call, told by one signal or by both. Only calls with a response id can be told by both."""
        if chosen.random() >= 0.2 or "gen_ai.response.id" not in call.span.attributes:
            return call
        return call._replace(told=chosen.choice((BY_LOG, BY_BOTH)))

    def reprice(self, call: Call, times: int) -> Call:
        """The same call, with input at so many times the price that the bundled book has for it."""
        more = (times - 1) * RATES[str(call.span.attributes["gen_ai.request.model"])].input
        priced = call._replace(cost_nano=call.cost_nano + more * int(str(call.span.attributes[_INPUT])))
        self.replace([priced])
        return priced

    def replace(self, calls: Iterable[Call]) -> None:
        """From now on the model has these."""
        with self.changed:
            self.calls |= {call.key: call for call in calls}

    def send(self, collector: Collector, calls: Sequence[Call], transport: str = "grpc") -> None:
        """Send once and log the acknowledgement. Raises NotNow and Refused."""
        spans = [call.span for call in calls if call.told != BY_LOG]
        events = [call.event for call in calls if call.told != BY_SPAN]
        sent_at = time.monotonic()
        if spans or not events:
            post(collector, json_body(spans) if transport == "json" else protobuf_body(spans), transport)
            with self.changed:
                self.waits_s.append(time.monotonic() - sent_at)
        if events:
            request = logs_request(events)
            body = logs_as_json(request) if transport == "json" else request.SerializeToString()
            post(collector, body, transport, signal="logs")
        with self.changed:
            self.acknowledged |= {key for call in calls for key in call.keys}
            self.acknowledgements += 1
            self.changed.notify_all()

    def insist(
        self, calls: Sequence[Call], transport: str = "grpc", collector: Callable[[], Collector] | None = None
    ) -> None:
        """Send again and again until it is acknowledged. A refusal for good of good spans is a broken promise."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.send(collector() if collector else self.collectors[0], calls, transport)
            except Refused as refused:
                with self.changed:
                    self.refusals.append(str(refused))
                return None
            except NotNow as error:
                if time.monotonic() > deadline:
                    raise Broken(f"not acknowledged within {PATIENCE_S} s: {error}") from error
                with self.changed:
                    self.retries += 1
                    self.changed.notify_all()
                    # Only polling tells when a server is back.
                    self.changed.wait(0.02)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something about the log holds."""
        with self.changed:
            if not self.changed.wait_for(condition, PATIENCE_S):
                raise Broken(f"waited {PATIENCE_S} s for {what}")

    def wait_acknowledged(self, more: int) -> None:
        """Wait for so many further acknowledgements."""
        target = self.acknowledgements + more
        self.wait_for(lambda: self.acknowledgements >= target, f"{more} acknowledgements")

    def lost(self) -> int:
        """L, now: looks after every fault, also in the middle of load."""
        with self.changed:
            acknowledged = set(self.acknowledged)
        kept = {(bytes(trace), bytes(span)) for trace, span in self.books.rows(_KEYS)}
        # What was missed once counts, even if a resend has healed it since.
        self._lost |= acknowledged - kept
        return len(self._lost)

    def off(self) -> int:
        """D: everything that was sent is in the books once, or it is off."""
        cost: Counter[str] = Counter()
        for call in self.calls.values():
            cost[call.wallet] += call.cost_nano
        off = 0
        records = {row[0]: row[1:] for row in self.books.rows(_RECORDS)}
        accounts = {row[0]: row[1:] for row in self.books.rows(_ACCOUNTS)}
        # Also wallets that no call was to be charged to.
        for wallet in {*cost, *self.deposits, *records, *accounts}:
            recorded_usd, recorded_credits = records.get(wallet, (0, 0))
            balance, spent = accounts.get(wallet, (0, 0))
            off += abs(recorded_usd - cost[wallet]) + abs(recorded_credits - cost[wallet])
            off += abs(spent - cost[wallet]) + abs(self.deposits[wallet] - cost[wallet] - balance)
        samples = self.collectors[0].metrics()
        for booked, taken_back, column in (("cost_usd", "cost_usd", 0), ("charged_credits", "credits", 1)):
            signs = {f"farebox_{booked}_total{{": 1, f"farebox_reversed_{taken_back}_total{{": -1}
            exported = sum(
                sign * round(value * 10**9)
                for name, sign in signs.items()
                for key, value in samples.items()
                if key.startswith(name)
            )
            off += abs(exported - sum(row[column] for row in records.values()))
        return int(off)

    def result(
        self, tried: int, recovery_s: float | None = None, resend: bool = True, p99_ratio: float | None = None
    ) -> Result:
        """Send what is there again in another company, and take the three figures."""
        if resend:
            again = sorted(self.calls.values())
            self.chosen.shuffle(again)
            again = again[: self.tries(20_000, 500)]
            size = self.chosen.randrange(50, 200)
            for start in range(0, len(again), size):
                self.insist(again[start : start + size], ("grpc", "http")[start // size % 2])
        if self.refusals:
            raise Broken(f"good spans were refused for good: {self.refusals[0]}")
        mismatches = self.books.mismatches(through_the_command=not self.short)
        peak_mib = max(collector.peak_bytes for collector in self.collectors) >> 20
        return Result(tried, self.lost(), self.off(), len(mismatches), recovery_s, p99_ratio, peak_mib)


def p99(waits_s: Sequence[float]) -> float:
    """The 99th percentile."""
    return sorted(waits_s)[int(0.99 * len(waits_s))]


class Load:
    """Threads that send new batches over all transports, now and then one they have sent before, until the block ends.

    At its end every batch that was begun is acknowledged.
    """

    def __init__(self, world: World, senders: int = 3, spans: int = 20) -> None:
        self._world = world
        self._spans = spans
        self._ending = threading.Event()
        self._errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(senders)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        if self._errors and kind is None:
            raise self._errors[0]

    def _run(self, number: int) -> None:
        chosen = random.Random(number)
        transport = ("grpc", "http", "json")[number % 3]
        world = self._world
        turn = number
        earlier: list[Call] = []
        try:
            while not self._ending.is_set():
                batch = earlier if earlier and chosen.random() < 0.1 else world.new_batch(self._spans)
                turn += 1
                world.insist(batch, transport, lambda: world.collectors[turn % len(world.collectors)])  # noqa: B023
                earlier = batch
        except Exception as error:
            self._errors.append(error)


def post(collector: Collector, body: bytes, transport: str, signal: str = "traces", **headers: str) -> None:
    """Send a body. Raises NotNow and Refused."""
    try:
        if transport == "grpc":
            # The first field of a partial success is the number of what was rejected, whatever the signal.
            answer = collector.export_grpc(body, signal=signal)
            if answer.partial_success.rejected_spans:
                raise Refused(f"partial success: {answer.partial_success.error_message}")
            return
        kind = "application/json" if transport == "json" else "application/x-protobuf"
        answered = collector.export_http(body, kind, signal, **headers)
    except grpc.RpcError as error:
        code, text = error.code(), error.details()
        if code in RETRYABLE:
            raise NotNow(f"{code}: {text}") from error
        raise Refused(f"{code}: {text}") from error
    except (httpx2.HTTPError, ValueError, RuntimeError, OSError) as error:
        # Killed, or this process has closed the client after the kill.
        raise NotNow(repr(error)) from error
    if answered.status_code == 503:
        raise NotNow("503")
    if answered.status_code != 200:
        raise Refused(f"{answered.status_code}: {answered.text[:200]}")


def in_threads(works: Iterable[Callable[[], None]]) -> None:
    """Run all at once; raises the first error."""
    errors: list[Exception] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


_INPUT = "gen_ai.usage.input_tokens"
_KEYS = "SELECT trace_id, span_id FROM usage_records"
_RECORDS = (
    "SELECT wallet, sum(cost_nanousd), sum(charge_nanocredits) FROM usage_records"
    " WHERE verdict = 'charged' GROUP BY wallet"
)
_ACCOUNTS = "SELECT name, balance_nano, spent_nano FROM accounts WHERE kind = 'wallet'"
