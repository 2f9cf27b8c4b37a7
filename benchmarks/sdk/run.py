"""What an instrumentation costs a call, in microseconds, Farebox and its peers; prints a table in Markdown.

python benchmarks/sdk/run.py [--rounds 60] [--write]
python benchmarks/sdk/run.py --only farebox --against TREE

``--against`` measures the SDK of another checkout of this repository beside the one of this tree, in the same run.

Each instrumentation, and none, has a process of its own with the same client, in an environment apart from ours. They
take turns, some calls each, against one server on loopback, which takes their spans as well; so any other load of the
machine affects all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
sys.path.append(str(REPOSITORY / "tests" / "sdk" / "environments"))

import making  # noqa: E402, the tests make the same environment

CHUNKS = 1_000
NAMES = {
    "farebox": "Farebox",
    "before": "Farebox, the other tree",
    "opentelemetry": "OpenTelemetry, official",
    "openllmetry": "OpenLLMetry",
    "openinference": "OpenInference",
}
PEERS = tuple(name for name in NAMES if name != "before")
KINDS = ("openai", "openai stream", "httpx", "httpx stream")
DOCUMENT = REPOSITORY / "docs" / "explanation" / "performance.md"
SECTION = re.compile(r"(<!-- sdk -->\n).*?(<!-- /sdk -->)", re.DOTALL)


@dataclass
class Taken:
    """What the calls of one kind took, in seconds, turn by turn; of the process, a call of the turn on average."""

    wall: list[list[float]] = field(default_factory=list)
    thread: list[list[float]] = field(default_factory=list)
    process: list[float] = field(default_factory=list)

    @property
    def calls(self) -> list[float]:
        """The wall-clock time of each call, in any turn."""
        return [seconds for turn in self.wall for seconds in turn]


class Caller:
    """One process that calls."""

    def __init__(self, name: str, url: str, stack: ExitStack, other_tree: Path | None) -> None:
        instrument, variables = name, making.variables()
        if name == "before":
            instrument, variables["PYTHONPATH"] = "farebox", f"{other_tree}/instrumentation"
        command = [str(making.python_of("beside")), str(HERE / "calls.py"), "--instrument", instrument, "--url", url]
        process = stack.enter_context(
            subprocess.Popen(
                command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._asks: IO[str] = process.stdin
        self._answers: IO[str] = process.stdout
        self.taken = {kind: Taken() for kind in KINDS}

    def turn(self, kind: str, times: int, warm: int, *, counts: bool = True) -> None:
        """Make it call so many times, after some that do not count."""
        self._asks.write(json.dumps({"kind": kind, "times": times, "warm": warm}) + "\n")
        answer = json.loads(self._answers.readline())
        if counts:
            taken = self.taken[kind]
            taken.wall.append(answer["wall"])
            taken.thread.append(answer["thread"])
            taken.process.append(answer["process"] / times)

    def leave(self) -> None:
        """Let it end."""
        self._asks.close()


@contextmanager
def loopback() -> Iterator[str]:
    """The server's address."""
    command = [sys.executable, str(HERE / "loopback.py"), "--chunks", str(CHUNKS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(server.stdout.readline())['port']}"
        finally:
            server.terminate()


def measured(
    names: Sequence[str], rounds: int, plain: int, streams: int, other_tree: Path | None = None
) -> dict[str, dict[str, Taken]]:
    """What the calls took, by instrumentation and by kind."""
    with loopback() as url, ExitStack() as stack:
        callers = {name: Caller(name, url, stack, other_tree) for name in ("none", *names)}
        for number in range(rounds + 1):
            # Who goes first changes, too; the first round only warms up.
            order = list(callers)[number % len(callers) :] + list(callers)[: number % len(callers)]
            for kind in KINDS:
                streamed = kind.endswith("stream")
                for name in order:
                    if kind.startswith("httpx") and name not in ("none", "farebox", "before"):
                        continue  # the others meter clients only
                    times, warm = (streams, 1) if streamed else (plain, 5)
                    callers[name].turn(kind, times, warm, counts=number > 0)
        for caller in callers.values():
            caller.leave()
    return {name: caller.taken for name, caller in callers.items()}


def percentile_99(values: Sequence[float]) -> float:
    """The value that one in a hundred exceeds."""
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def added(turns: Sequence[float], without: Sequence[float]) -> float:
    """The median of what the turns took more than the turns without, in the same round each."""
    return statistics.median(turn - other for turn, other in zip(turns, without, strict=True))


def medians(turns: Sequence[Sequence[float]]) -> list[float]:
    """The median call of each turn."""
    return [statistics.median(turn) for turn in turns]


def rows(taken: dict[str, dict[str, Taken]]) -> Iterator[str]:
    """The table: what is added to a call by the clock, on the processor in its thread, and in the process."""
    headings = ("call", "instrumentation", "calls", "median", "added", "p99 added", "of the thread", "of the process")
    yield f"| {' | '.join(headings)} | a chunk |"
    yield f"|{' --- |' * (len(headings) + 1)}"
    for kind in KINDS:
        without = taken["none"][kind]
        calls = without.calls
        yield f"| {kind} | none | {len(calls)} | {microseconds(statistics.median(calls))} |{' |' * 5}"
        for name, kinds in taken.items():
            one = kinds[kind]
            if name == "none" or not one.wall:
                continue
            by_clock = added(medians(one.wall), medians(without.wall))
            figures = (
                statistics.median(one.calls),
                by_clock,
                percentile_99(one.calls) - percentile_99(calls),
                added(medians(one.thread), medians(without.thread)),
                added(one.process, without.process),
            )
            chunk = f"{by_clock * 1e6 / CHUNKS:.2f} µs" if kind.endswith("stream") else ""
            cells = " | ".join(microseconds(figure) for figure in figures)
            yield f"| {kind} | {NAMES[name]} | {len(one.calls)} | {cells} | {chunk} |"


def compared(taken: dict[str, dict[str, Taken]]) -> Iterator[str]:
    """The table of both trees: processor time added to a call, of its thread and of the process, and the ratio."""
    yield "| call | thread, before | thread, now | ratio | process, before | process, now | ratio |"
    yield f"|{' --- |' * 7}"
    for kind in KINDS:
        without = taken["none"][kind]
        cells = []
        for of_turn in (lambda one: medians(one.thread), lambda one: one.process):
            before, now = (added(of_turn(taken[name][kind]), of_turn(without)) for name in ("before", "farebox"))
            cells += [microseconds(before), microseconds(now), f"{now / before:.2f}"]
        yield f"| {kind} | {' | '.join(cells)} |"


def microseconds(seconds: float) -> str:
    """With the unit, and thousands apart."""
    return f"{seconds * 1e6:,.0f} µs"


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--plain", type=int, default=25, help="calls in a turn")
    parser.add_argument("--streams", type=int, default=1, help="streams in a turn")
    parser.add_argument("--only", action="append", choices=PEERS, help="measure these instrumentations")
    parser.add_argument("--write", action="store_true", help="put the table into docs/explanation/performance.md")
    parser.add_argument("--against", type=Path, metavar="TREE", help="measure the SDK of this checkout, too")
    arguments = parser.parse_args()
    names = arguments.only or list(PEERS)
    if arguments.against is not None:
        if not (arguments.against / "instrumentation" / "farebox").is_dir():
            parser.error(f"--against {arguments.against}: no checkout of this repository; name its top folder")
        names = [*dict.fromkeys(["farebox", *names]), "before"]
    load = os.getloadavg()[0]
    taken = measured(names, arguments.rounds, arguments.plain, arguments.streams, arguments.against)
    both = list(compared(taken)) if arguments.against is not None else []
    taken.pop("before", None)
    table = "".join(f"{row}\n" for row in rows(taken))
    print(f"load of the machine before: {load:.1f}, after: {os.getloadavg()[0]:.1f}\n{table}")
    if both:
        print("\n".join(both))
    if arguments.write:
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(SECTION.sub(lambda found: found[1] + table + found[2], text), encoding="utf-8")


if __name__ == "__main__":
    main()
