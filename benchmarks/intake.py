"""How fast spans are taken: beside the floor, at half the rate, by replicas, and for long with /metrics being read."""

import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import httpx2
from bodies import Shape
from figures import Figure, quantile, ratio
from load import GRPC, HTTP, Generator
from rich.console import Console
from rounds import Round, Subject, alternating, difference_nanocredits, median_rate, rates, window_rates
from systems import POSTGRESQL, SQLITE, Databases, FloorServer, usage

TRANSPORTS = (HTTP, GRPC)
REPLICAS = 8
_IN_FLIGHT_OF_REPLICAS = 16
_CORES_FOR_TWO = 4
"""Two replicas, the database, and the generator: with fewer cores they take them from each other."""
_HTTP_TIMEOUT_S = 30


class Sizes(NamedTuple):
    """How long it measures."""

    rounds: int = 3
    seconds: float = 3.0
    """Of one round."""
    warm_up_seconds: float = 1.0
    latency_seconds: float = 6.0
    soak_seconds: float = 30.0
    soak_window_seconds: float = 2.0


class Bench(NamedTuple):
    """What all measurements need."""

    generator: Generator
    databases: Databases
    sizes: Sizes
    console: Console


def beside_the_floor(bench: Bench, kind: str, transports: Sequence[str]) -> list[Figure]:
    """Farebox and the floor in turns, then Farebox alone at half of its top rate."""
    found = []
    floor_server = FloorServer(bench.databases.empty(kind))
    try:
        with bench.databases.farebox(bench.databases.blank(kind)) as farebox_server:
            floor = Subject(bench.generator, [floor_server], Shape(seed=1))
            farebox = Subject(bench.generator, [farebox_server], Shape(seed=2))
            for transport in transports:
                where = f"{kind}, {transport}"
                rounds = _in_turns(bench, transport, farebox, floor)
                found += _throughput(where, *rounds)
                top = median_rate(rounds[0])
                bench.console.print(f"{where}: {top:,.0f} spans/s; the floor {median_rate(rounds[1]):,.0f}")
                found.append(_at_half_rate(bench, where, farebox, transport, top))
            found += _come_again(bench, kind, farebox)
            found.append(_exact(difference_nanocredits(farebox_server, [farebox]), kind, farebox.spans))
    finally:
        floor_server.close()
    return found


def _come_again(bench: Bench, kind: str, farebox: Subject) -> list[Figure]:
    """How fast requests are taken that the books have already, and second reports of their calls."""
    new, again, second = [], [], []
    for _ in range(bench.sizes.rounds):
        load = farebox.load(HTTP, bench.sizes.seconds)._replace(began_ns=time.time_ns())
        new.append(farebox.send(load))
        bodies = len(new[-1].sent.answered)
        repeated = load._replace(seconds=math.inf, bodies=bodies)
        again.append(farebox.measure(repeated))
        second.append(farebox.measure(repeated._replace(shape=load.shape._replace(second=True))))
    return [
        Figure(
            what,
            f"{kind}, {HTTP}",
            ratio(rates(rounds), rates(new)),
            goal=goal,
            note=f"{median_rate(rounds):,.0f} ÷ {median_rate(new):,.0f} spans/s",
            samples=rates(rounds),
        )
        for what, goal, rounds in (
            ("spans that come again ÷ new ones", 1.7, again),
            ("second spans of known calls ÷ new ones", 0.7, second),
        )
    ]


def _in_turns(bench: Bench, transport: str, *subjects: Subject) -> list[list[Round]]:
    for subject in subjects:
        subject.send(subject.load(transport, bench.sizes.warm_up_seconds))
    works = [lambda subject=subject: subject.send(subject.load(transport, bench.sizes.seconds)) for subject in subjects]
    return alternating(bench.sizes.rounds, *works)


def _throughput(where: str, farebox: list[Round], floor: list[Round]) -> list[Figure]:
    cpu = [one.server_cpu_s for one in farebox]
    latencies = [quantile(one.sent.latencies_s(), 0.99) * 1000 for one in farebox]
    return [
        Figure("acknowledged spans/s", where, median_rate(farebox), note=_refused(farebox), samples=rates(farebox)),
        Figure("the floor's", where, median_rate(floor), samples=rates(floor)),
        Figure("÷ the floor", where, ratio(rates(farebox), rates(floor)), goal=0.33 if SQLITE in where else 0.17),
        Figure("server CPU for 1,000 spans", where, statistics.median(cpu), "s", 0.035, False, samples=cpu),
        Figure("p99 of an acknowledgement at the top rate", where, statistics.median(latencies), "ms"),
    ]


def _refused(rounds: Sequence[Round]) -> str:
    """What was refused at first, in words; it was sent again until it was taken."""
    counts = sum((one.sent.refused for one in rounds), Counter[str]())
    return "".join(f"{times} × {status}, sent again; " for status, times in counts.items()).rstrip("; ")


def _at_half_rate(bench: Bench, where: str, farebox: Subject, transport: str, top: float) -> Figure:
    load = farebox.load(transport, bench.sizes.latency_seconds, rate=top / 2)
    latencies_ms = [taken * 1000 for taken in farebox.send(load).sent.latencies_s()]
    note = f"{top / 2:,.0f} spans/s, p50 {quantile(latencies_ms, 0.5):.1f} ms, of {len(latencies_ms):,}"
    what = "p99 of an acknowledgement at half the top rate"
    return Figure(what, where, quantile(latencies_ms, 0.99), "ms", 45, False, note)


def _exact(difference: int, where: str, spans: int) -> Figure:
    what = "debited wallet by wallet, less what the calls cost"
    return Figure(what, where, difference, "nano-USD", 0, False, f"of {spans:,} spans")


def of_signals(bench: Bench, kind: str) -> list[Figure]:
    """Log records of a coding agent against spans, by one collector in turns."""
    with bench.databases.farebox(bench.databases.blank(kind)) as server:
        spans = Subject(bench.generator, [server], Shape(seed=6))
        logs = Subject(bench.generator, [server], Shape(seed=7, logs=True))
        of_logs, of_spans = _in_turns(bench, HTTP, logs, spans)
        difference = difference_nanocredits(server, [spans, logs])
    where = f"{kind}, {HTTP}"
    return [
        Figure(
            "log records ÷ spans",
            where,
            ratio(rates(of_logs), rates(of_spans)),
            goal=0.9,
            note=f"{median_rate(of_logs):,.0f} ÷ {median_rate(of_spans):,.0f} calls/s {_refused(of_logs)}".strip(),
            samples=rates(of_logs),
        ),
        _exact(difference, f"{kind}, logs and spans", spans.spans + logs.spans),
    ]


def of_replicas(bench: Bench) -> list[Figure]:
    """Two replicas against one, and eight against one where all calls are of one wallet."""
    url = bench.databases.blank(POSTGRESQL)
    seconds = bench.sizes.seconds
    with ExitStack() as stack:
        servers = [stack.enter_context(bench.databases.farebox(url)) for _ in range(REPLICAS)]
        spread = Subject(bench.generator, servers, Shape(seed=3))
        hot = Subject(bench.generator, servers, Shape(seed=4, wallets=1))

        def rounds(subject: Subject, *counts: int) -> list[list[Round]]:
            def send(count: int) -> Round:
                return subject.send(subject.load(HTTP, seconds, in_flight=_IN_FLIGHT_OF_REPLICAS, servers=count))

            works = [partial(send, count) for count in counts]
            for work in works:
                work()
            return alternating(bench.sizes.rounds, *works)

        one, two = rounds(spread, 1, 2)
        hot_one, hot_all = rounds(hot, 1, REPLICAS)
        difference = difference_nanocredits(servers[0], [spread, hot])
    enough = (os.cpu_count() or 1) >= _CORES_FOR_TWO
    where = f"{POSTGRESQL}, {HTTP}"
    return [
        Figure(
            "two replicas ÷ one",
            where,
            ratio(rates(two), rates(one)),
            goal=1.5 if enough else None,
            note=f"{median_rate(two):,.0f} ÷ {median_rate(one):,.0f} spans/s"
            + ("" if enough else f"; {os.cpu_count()} cores are too few for the goal of 1.5"),
            samples=rates(two),
        ),
        Figure(
            f"{REPLICAS} replicas on one hot wallet ÷ one",
            where,
            ratio(rates(hot_all), rates(hot_one)),
            goal=0.75,
            note=f"{median_rate(hot_all):,.0f} ÷ {median_rate(hot_one):,.0f} spans/s {_refused(hot_all)}".strip(),
            samples=rates(hot_all),
        ),
        _exact(difference, f"{POSTGRESQL}, {REPLICAS} replicas", spread.spans + hot.spans),
    ]


def for_long(bench: Bench, kind: str = SQLITE) -> list[Figure]:
    """The top rate for long, with memory watched and /metrics read once a second in every second window."""
    sizes = bench.sizes
    with (
        bench.databases.farebox(bench.databases.blank(kind)) as server,
        httpx2.Client(timeout=_HTTP_TIMEOUT_S) as client,
    ):
        subject = Subject(bench.generator, [server], Shape(seed=5))
        subject.send(subject.load(HTTP, sizes.warm_up_seconds))
        load = subject.load(HTTP, sizes.soak_seconds)
        running = bench.generator.start(load)
        began_s = time.monotonic()
        scrapes: list[tuple[float, float]] = []
        resident: list[tuple[float, float]] = []
        while not running.ready():
            now_s = time.monotonic()
            resident.append((now_s - began_s, usage(server.pid).resident_mib))
            if int((now_s - began_s) / sizes.soak_window_seconds) % 2:
                client.get(server.collector.metrics_url).raise_for_status()
                scrapes.append((now_s, time.monotonic() - now_s))
            running.wait(max(0.0, 1.0 - (time.monotonic() - now_s)))
        sent = running.get()
        subject.sent(sent)
        peak = usage(server.pid).peak_mib
        difference = difference_nanocredits(server, [subject])
    windows = window_rates(sent, subject.shape, sizes.soak_window_seconds)
    # The generator begins a moment after us: what counts is where a scrape really fell.
    scraped = {int((at_s - sent.began_s) / sizes.soak_window_seconds) for at_s, _ in scrapes}
    return [
        *_of_soak(kind, sizes, windows, scraped, scrapes, resident, peak),
        _exact(difference, f"{kind}, {HTTP}", subject.spans),
    ]


def _of_soak(
    kind: str,
    sizes: Sizes,
    windows: list[float],
    scraped: set[int],
    scrapes: list[tuple[float, float]],
    resident: list[tuple[float, float]],
    peak: float,
) -> list[Figure]:
    where = f"{kind}, {HTTP}"
    busy = [rate for window, rate in enumerate(windows) if window in scraped]
    calm = [rate for window, rate in enumerate(windows) if window not in scraped]
    taken_ms = [seconds * 1000 for _, seconds in scrapes]
    quarter = sizes.soak_seconds / 4
    second = statistics.mean(mib for at_s, mib in resident if quarter <= at_s < 2 * quarter)
    last = statistics.mean(mib for at_s, mib in resident if at_s >= 3 * quarter)
    note = f"{sizes.soak_seconds:.0f} s at {statistics.mean(windows):,.0f} spans/s"
    return [
        Figure("peak RSS at the top rate", where, peak, "MiB", 250, False, note),
        Figure("RSS of the last quarter less the second", where, last - second, "MiB", 5, False, note),
        Figure(
            "/metrics scrape under load, p99",
            where,
            quantile(taken_ms, 0.99),
            "ms",
            100,
            False,
            f"p50 {statistics.median(taken_ms):.1f} ms, of {len(taken_ms)}",
            taken_ms,
        ),
        Figure(
            "throughput while scraped each second ÷ while not",
            where,
            ratio(busy, calm),
            goal=0.98,
            note=f"{len(busy)} and {len(calm)} windows of {sizes.soak_window_seconds:.0f} s, by turns",
        ),
    ]
