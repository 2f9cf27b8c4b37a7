"""Nothing acknowledged is lost, nothing is charged twice: kill -9 and SIGTERM in the middle of load."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import grpc
import httpx2
from blank import blank_sqlite
from harness import Collector
from spans import SpanSpec, llm_span, protobuf_body

REQUESTS = 300
SPANS_PER_REQUEST = 20
WALLETS = 17
SENDERS = 4


class Load:
    """Requests with known spans, sent by several threads over both transports, and the log of what was acknowledged."""

    def __init__(self, seed: int) -> None:
        chosen = random.Random(seed)
        self.requests: list[list[SpanSpec]] = [
            [
                llm_span(
                    wallet=f"wallet-{chosen.randrange(WALLETS)}",
                    input_tokens=chosen.randrange(1, 5000),
                    output_tokens=chosen.randrange(1, 2000),
                    response_id=f"r-{request}-{number}",
                )
                for number in range(SPANS_PER_REQUEST)
            ]
            for request in range(REQUESTS)
        ]
        self.acknowledged: set[int] = set()
        self.reached = threading.Event()
        self._lock = threading.Lock()

    def send(self, collector: Collector, numbers: list[int], tell_at: int) -> None:
        """Send these requests, each once, and stop at the first failure; sets `reached` after `tell_at` answers."""
        self.reached.clear()
        todo = iter(numbers)
        threads = [
            threading.Thread(target=self._send, args=(collector, todo, index % 2 == 0, tell_at))
            for index in range(SENDERS)
        ]
        for thread in threads:
            thread.start()
        self.threads = threads

    def join(self) -> None:
        """Wait until all senders have ended."""
        for thread in self.threads:
            thread.join()

    def _send(self, collector: Collector, todo: Iterator[int], over_grpc: bool, tell_at: int) -> None:
        while True:
            with self._lock:
                number = next(todo, None)
            if number is None:
                self.reached.set()
                return
            body = protobuf_body(self.requests[number])
            try:
                if over_grpc:
                    collector.export_grpc(body)
                elif collector.export_http(body).status_code != 200:
                    return
            except (grpc.RpcError, httpx2.HTTPError, ValueError, RuntimeError):
                return  # killed, draining, or this process has closed the client after the kill
            with self._lock:
                self.acknowledged.add(number)
                if len(self.acknowledged) >= tell_at:
                    self.reached.set()

    def expected(self, numbers: set[int]) -> dict[str, Decimal]:
        """Credits that these requests debit: $0.15 and $0.60 a million tokens."""
        nano: Counter[str] = Counter()
        for number in numbers:
            for span in self.requests[number]:
                tokens = span.attributes["gen_ai.usage.input_tokens"], span.attributes["gen_ai.usage.output_tokens"]
                nano[str(span.attributes["farebox.wallet"])] += int(str(tokens[0])) * 150 + int(str(tokens[1])) * 600
        return {wallet: Decimal(amount) / 10**9 for wallet, amount in nano.items()}


def spent(collector: Collector) -> dict[str, Decimal]:
    return {row["wallet"]: Decimal(row["spent_credits"]) for row in collector.pages("/v1/wallets", limit=1000)}


def missing(collector: Collector, load: Load, numbers: set[int]) -> int:
    """L: how many spans of these requests are not in the books."""
    kept = {(record["trace_id"], record["span_id"]) for record in collector.usage(limit=1000)}
    return sum(
        (span.trace_id.hex(), span.span_id.hex()) not in kept for number in numbers for span in load.requests[number]
    )


def test_kill_9_under_load_loses_nothing_acknowledged_and_doubles_nothing(tmp_path: Path) -> None:
    collector, load, moments = Collector(tmp_path / "farebox.db"), Load(1), random.Random(1)
    everything = list(range(REQUESTS))
    for kill in range(3):
        before = len(load.acknowledged)
        load.send(collector, [n for n in everything if n not in load.acknowledged], before + moments.randrange(1, 60))
        assert load.reached.wait(60)
        collector.kill()
        load.join()
        collector.start()
        assert missing(collector, load, load.acknowledged) == 0, f"after kill {kill}"
        collector.audit()

    # What was acknowledged is sent again, with what was not: each request in the books exactly once.
    resent = everything + sorted(load.acknowledged)
    moments.shuffle(resent)
    load.send(collector, resent, REQUESTS)
    load.join()
    assert load.acknowledged == set(everything)
    assert missing(collector, load, load.acknowledged) == 0
    assert spent(collector) == load.expected(load.acknowledged)
    assert collector.stop() == 0
    collector.audit()


def test_sigterm_under_load_finishes_what_was_taken_and_ends_with_0(tmp_path: Path) -> None:
    collector, load = Collector(blank_sqlite(tmp_path)), Load(4)
    load.send(collector, list(range(REQUESTS)), 30)
    assert load.reached.wait(60)
    collector.process.terminate()
    assert collector.process.wait(timeout=60) == 0
    load.join()
    collector.stop()
    assert len(load.acknowledged) < REQUESTS, "the load was over before the signal: nothing was tried"
    assert not Path(f"{collector.database}-wal").exists(), "the log was not moved into the database"
    collector.audit()
    collector.start()
    assert missing(collector, load, load.acknowledged) == 0
    load.send(collector, list(range(REQUESTS)), REQUESTS)
    load.join()
    assert spent(collector) == load.expected(set(range(REQUESTS)))
    collector.close()
