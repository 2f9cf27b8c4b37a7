"""Requests that are read in a process of their own come to what they come to here, and nothing is lost when it dies."""

import json
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from blank import blank_sqlite
from farebox_collector.assembly import open_books
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.intake.decoding.errors import MalformedRequest
from farebox_collector.intake.reader import Encoding, RequestReader
from farebox_collector.intake.reader_wire import Task, packed, unpacked
from farebox_collector.intake.reader_worker import ReaderWorker, ReadingFailed
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.records import NO_QUALITY
from farebox_collector.settings import Settings
from harness import Collector
from spans import json_body, llm_span, protobuf_body

NOW_NS = 1_780_000_000 * 10**9


def various_bodies() -> Iterator[tuple[Encoding, bytes]]:
    """Calls, what is none, what cannot be priced, agents, reports of quality, and what can never be booked."""
    spans = [
        llm_span(wallet="acme", event="chat.reply"),
        llm_span(model="unknown-model", farebox__quality__cache_hit=True),
        llm_span(gen_ai__operation__name="execute_tool"),
        llm_span(gen_ai__operation__name="invoke_agent"),
        llm_span(farebox__units__web_searches=2),
        llm_span()._replace(trace_id=b""),
        llm_span(error__type="timeout", gen_ai__usage__input_tokens=None, gen_ai__usage__output_tokens=None),
        llm_span(gen_ai__usage__input_tokens=-1),
    ]
    yield Encoding.PROTOBUF, protobuf_body(spans)
    yield Encoding.JSON, json_body(spans)
    yield Encoding.PROTOBUF, protobuf_body([])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(database_url=blank_sqlite(tmp_path))


@pytest.fixture
def books(settings: Settings) -> Iterator[Database]:
    database = open_books(settings)
    yield database
    database.close()


@pytest.fixture
def aside(settings: Settings, books: Database) -> Iterator[ReaderWorker]:
    made = ReaderWorker(settings)
    made.start()
    yield made
    made.close()


def test_another_process_reads_the_same(settings: Settings, books: Database, aside: ReaderWorker) -> None:
    here = RequestReader(settings, Tariffs(books, lambda: NOW_NS))
    kinds: set[str] = set()
    for encoding, body in various_bodies():
        read = here.read(encoding, body, 1, NOW_NS)
        there = aside.read(Task(encoding, body, 1, NOW_NS))
        assert there == read == unpacked(packed(read))
        for mine, theirs in zip(read.calls, there.calls, strict=True):
            assert [type(value) for value in mine] == [type(value) for value in theirs]
            assert [type(value) for value in mine.usage] == [type(value) for value in theirs.usage]
            assert (mine.usage.quality is NO_QUALITY) == (theirs.usage.quality is NO_QUALITY)
        kinds |= {call.verdict for call in read.calls}
        kinds |= {"dead"} if read.dead else set()
        kinds |= {"not billable"} if read.not_billable else set()
    assert len(kinds) >= 5


def test_what_is_no_request_is_refused_and_the_process_goes_on(aside: ReaderWorker) -> None:
    with pytest.raises(MalformedRequest, match="not an OTLP"):
        aside.read(Task(Encoding.PROTOBUF, b"\xff" * 20, 1, NOW_NS))
    assert aside.read(Task(Encoding.PROTOBUF, protobuf_body([llm_span()]), 1, NOW_NS)).spans == 1


def test_a_process_that_died_says_so_once_and_the_next_one_reads(settings: Settings, aside: ReaderWorker) -> None:
    assert aside.pid is not None
    os.kill(aside.pid, signal.SIGKILL)
    with pytest.raises(ReadingFailed):
        aside.read(Task(Encoding.PROTOBUF, protobuf_body([llm_span()]), 1, NOW_NS))
    assert not aside.ready
    aside.start()
    assert aside.read(Task(Encoding.PROTOBUF, protobuf_body([llm_span()]), 1, NOW_NS)).spans == 1


def test_under_load_the_collector_reads_aside_and_survives_its_death(tmp_path: Path) -> None:
    collector = Collector(blank_sqlite(tmp_path))
    with closing(collector):
        acknowledged: list[str] = []

        def send(wallet: str, enough: Callable[[], bool]) -> None:
            while not enough():
                body = protobuf_body([llm_span(wallet=wallet) for _ in range(4)])
                while collector.export_http(body).status_code != 200:
                    acknowledged.append("later")
                acknowledged.append(wallet)

        def send_until(enough: Callable[[], bool]) -> None:
            with ThreadPoolExecutor(4) as senders:
                list(senders.map(lambda number: send(f"w{number}", enough), range(4)))

        send_until(lambda: reading_processes(collector) != [])
        (pid,) = reading_processes(collector)
        os.kill(pid, signal.SIGKILL)
        send_until(lambda: "later" in acknowledged)
        assert sum(1 for _ in collector.usage()) == 4 * sum(answer != "later" for answer in acknowledged)
        assert collector.stop() == 0


def reading_processes(collector: Collector) -> list[int]:
    """The ids of the processes that the collector said it reads in."""
    lines = map(json.loads, collector.log.read_text(encoding="utf-8").splitlines())
    return [line["pid"] for line in lines if "pid" in line and "separate process" in line["message"]]


def test_the_process_ends_with_its_collector_however_that_ends(tmp_path: Path) -> None:
    settings = Settings(database_url=blank_sqlite(tmp_path))
    open_books(settings).close()
    program = "import sys, pickle; from farebox_collector.intake.reader_worker import ReaderWorker as R;"
    program += "r = R(pickle.loads(bytes.fromhex(sys.argv[1]))); r.start(); print(r.pid, flush=True); sys.stdin.read()"
    parent = subprocess.Popen(
        [sys.executable, "-c", program, pickle.dumps(settings).hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended, _, _ = select.select([child], [], [], 30)
    os.close(child)
    assert ended
