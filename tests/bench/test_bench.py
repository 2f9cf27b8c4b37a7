"""The benchmarks measure what they say: bodies, sums, windows and goals, and a moment of the real thing."""

import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from bodies import INPUT_NANOUSD, OUTPUT_NANOUSD, Shape, body, owed
from curves import Curve, Point, short, svg
from figures import Figure, markdown, number, ratio
from harness import Collector
from load import GRPC, HTTP, Answered, Load, Sent, send
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from postgres import PostgresServer
from rounds import Round, Subject, alternating, difference_nanocredits, window_rates
from systems import Farebox, FloorServer, usage

NOW_NS = 1_790_000_000 * 10**9
SMALL = Shape(seed=11, spans=6, wallets=7, projects=3)


def spans_of(request: bytes) -> list[Span]:
    parsed = ExportTraceServiceRequest.FromString(request)
    return list(parsed.resource_spans[0].scope_spans[0].spans)


def attributes(span: Span) -> dict[str, str | int]:
    pairs = {pair.key: pair.value for pair in span.attributes}
    return {key: value.string_value or value.int_value for key, value in pairs.items()}


def test_bodies_are_whole_requests_with_ids_of_their_own() -> None:
    numbers = range(3 * SMALL.templates)
    spans = [span for n in numbers for span in spans_of(body(SMALL, n, NOW_NS))]
    assert len({span.span_id for span in spans}) == len(spans) == len(numbers) * SMALL.spans
    assert len({attributes(span)["gen_ai.response.id"] for span in spans}) == len(spans)
    assert {len(span.attributes) for span in spans} == {27}
    assert {attributes(span)["farebox.wallet"] for span in spans} == {f"wallet-{n:05d}" for n in range(7)}
    for span in spans:
        assert NOW_NS - 2 * 10**9 < span.start_time_unix_nano < span.end_time_unix_nano <= NOW_NS
        siblings = [other for other in spans if other.trace_id == span.trace_id]
        root = siblings[-1]
        assert span.parent_span_id == (b"" if span is root else root.span_id)


def test_a_body_sent_again_later_has_the_same_ids() -> None:
    first, again = (spans_of(body(SMALL, 5, at_ns)) for at_ns in (NOW_NS, NOW_NS + 10**12))
    assert [(span.trace_id, span.span_id) for span in first] == [(span.trace_id, span.span_id) for span in again]
    assert spans_of(body(SMALL._replace(seed=12), 5, NOW_NS))[0].span_id != first[0].span_id


def test_what_is_owed_is_what_the_spans_say() -> None:
    numbers = [0, 1, 60, 60, 123]
    due: Counter[str] = Counter()
    for n in numbers:
        for span in map(attributes, spans_of(body(SMALL, n, NOW_NS))):
            tokens_in, out = int(span["gen_ai.usage.input_tokens"]), int(span["gen_ai.usage.output_tokens"])
            due[str(span["farebox.wallet"])] += tokens_in * INPUT_NANOUSD + out * OUTPUT_NANOUSD
    assert owed(SMALL, numbers) == due


def test_goals() -> None:
    assert Figure("throughput", "", 0.6, goal=0.6).reached is True
    assert Figure("throughput", "", 0.59, goal=0.6).reached is False
    assert Figure("latency", "", 51, "ms", 50, at_least=False).reached is False
    assert Figure("latency", "", 12.345, "ms", 50, False).row() == ("latency", "", "12.3 ms", "≤ 50 ms", "yes", "")
    assert Figure("spans", "", 1).reached is None
    assert ratio([1, 100, 3], [6, 5, 1]) == 3 / 5
    assert [number(value) for value in (12_345.6, 0.00012, 3, 0.5678)] == ["12,346", "0.00012", "3", "0.568"]
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_curves_have_a_panel_and_a_dot_for_each_point_and_begin_at_zero() -> None:
    curves = [Curve("wallets", [Point(1, 10), Point(1_000, 40)]), Curve("a < b", [Point(5, 20)])]
    root = ElementTree.fromstring(svg(curves, "µs"))
    namespace = "{http://www.w3.org/2000/svg}"
    panels = root.findall(f"{namespace}g")
    dots = [panel.findall(f"{namespace}circle") for panel in panels]
    words = [[found.text for found in panel.findall(f"{namespace}text")] for panel in panels]
    assert [len(found) for found in dots] == [2, 1]
    assert {"wallets", "µs", "0", "40", "1", "1k"} <= set(words[0])
    assert "a < b" in words[1]
    # Four times the cost is four times as far from the line of zero, which both panels have at the same place.
    low, high, other = (float(dot.attrib["cy"]) for dot in (*dots[0], *dots[1]))
    lines = [float(line.attrib["y1"]) for line in panels[0].findall(f"{namespace}line")]
    assert (max(lines) - high) / (max(lines) - low) == pytest.approx(4, rel=0.01)
    assert max(lines) - other == pytest.approx(2 * (max(lines) - low), rel=0.01)
    assert [short(size) for size in (7, 1_500, 10_000_000)] == ["7", "1.5k", "10M"]


def test_windows_count_by_the_moment_of_the_acknowledgement() -> None:
    answered = [Answered(n, 100.0, 100.0 + at_s) for n, at_s in enumerate((0.1, 0.9, 1.1, 2.4))]
    sent = Sent(100.0, 102.5, answered, Counter(), 0.0)
    assert window_rates(sent, SMALL, 1.0) == [12, 6]
    assert sent.acknowledged == [0, 1, 2, 3]


def test_rounds_take_turns() -> None:
    order: list[str] = []

    def work(name: str) -> Round:
        order.append(name)
        return Round(len(order), 0, Sent(0, 0, [], Counter(), 0))

    first, second = alternating(3, lambda: work("a"), lambda: work("b"))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [[one.spans_a_second for one in rounds] for rounds in (first, second)] == [[1, 4, 5], [2, 3, 6]]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_floor_keeps_every_span_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    postgres: PostgresServer | None = request.getfixturevalue("postgres") if kind == "postgresql" else None
    url = postgres.new_database() if postgres else f"sqlite:///{tmp_path}/floor.db"
    with closing(FloorServer(url)) as floor:
        for transport in (HTTP, GRPC, HTTP):
            sent = send(Load([floor.endpoint(transport)], transport, SMALL, bodies=20, in_flight=3))
            assert sorted(sent.acknowledged) == list(range(20))
        assert usage(floor.pid).cpu_s > 0
        expected = {(s.trace_id, s.span_id) for n in range(20) for s in spans_of(body(SMALL, n, NOW_NS))}
        query = "SELECT trace_id, span_id FROM spans"
        connect = psycopg.connect(url.replace("+psycopg", "")) if postgres else sqlite3.connect(tmp_path / "floor.db")
        with closing(connect) as connection:
            rows = [tuple(map(bytes, row)) for row in connection.execute(query).fetchall()]
    assert len(rows) == len(expected)
    assert set(rows) == expected


class _InProcess:
    """Sends from this process, where starting another would take longer than the test."""

    def send(self, load: Load) -> Sent:
        return send(load)


def test_farebox_debits_exactly_what_was_acknowledged(collector: Collector) -> None:
    farebox = Farebox.__new__(Farebox)
    farebox.collector = collector
    subject = Subject(_InProcess(), [farebox], SMALL)  # type: ignore[arg-type]
    for transport in (HTTP, GRPC):
        round_ = subject.send(subject.load(transport, seconds=0.2, rate=300))
        assert round_.spans_a_second > 0
        assert round_.server_cpu_s > 0
    assert subject.bodies >= 2
    assert difference_nanocredits(farebox, [subject]) == 0
    sent = subject.bodies
    subject.bodies += 1  # as if one more had been acknowledged
    assert difference_nanocredits(farebox, [subject]) == sum(owed(SMALL, [sent]).values())


@pytest.fixture
def unwilling() -> Iterator[tuple[str, list[bytes]]]:
    """A server that refuses every second request; its address, and the bodies that it took."""
    taken: list[bytes] = []
    asked = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal asked
            asked += 1
            received = self.rfile.read(int(self.headers["content-length"]))
            if asked % 2:
                self.send_response(503)
            else:
                taken.append(received)
                self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}", taken
        server.shutdown()
        thread.join()


def test_what_is_refused_is_sent_until_it_is_taken(unwilling: tuple[str, list[bytes]]) -> None:
    endpoint, taken = unwilling
    sent = send(Load([endpoint], HTTP, SMALL, first=7, bodies=3, in_flight=1))
    assert sent.acknowledged == [7, 8, 9]
    assert sent.refused == {"503": 3}
    ids = [span.span_id for request in taken for span in spans_of(request)]
    assert ids == [span.span_id for n in (7, 8, 9) for span in spans_of(body(SMALL, n, NOW_NS))]
