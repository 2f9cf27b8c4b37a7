"""Rounds of load against a server that runs, and what each came to."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bodies import Shape
from load import IN_FLIGHT, Generator, Load, Sent
from log_bodies import maker
from systems import Farebox, Server, usage


class Round(NamedTuple):
    """One stretch of load."""

    spans_a_second: float
    server_cpu_s: float
    """Of all servers, for a thousand spans."""
    sent: Sent


class Subject:
    """One server, or several over one database, with what it was sent so far."""

    def __init__(self, generator: Generator, servers: Sequence[Server], shape: Shape) -> None:
        self._generator = generator
        self._servers = servers
        self.shape = shape
        self.bodies = 0
        """All bodies below this number were acknowledged, and no others were sent."""

    def load(
        self,
        transport: str,
        seconds: float,
        rate: float | None = None,
        in_flight: int = IN_FLIGHT,
        servers: int | None = None,
    ) -> Load:
        """A load of bodies that it has not seen, for all of its servers or the first few."""
        return Load(
            [server.endpoint(transport) for server in self._servers[:servers]],
            transport,
            self.shape,
            first=self.bodies,
            seconds=seconds,
            in_flight=in_flight,
            spans_a_second=rate,
        )

    def send(self, load: Load) -> Round:
        """Send it all, for the first time."""
        made = self.measure(load)
        self.sent(made.sent)
        return made

    def measure(self, load: Load) -> Round:
        """Send it all, and do not count it as sent: it may have been before."""
        # What the round before left for the disk is not this one's to wait for.
        os.sync()
        before = [usage(server.pid).cpu_s for server in self._servers]
        sent = self._generator.send(load)
        used_s = sum(usage(server.pid).cpu_s for server in self._servers) - sum(before)
        spans = len(sent.answered) * self.shape.spans
        return Round(spans / (sent.ended_s - sent.began_s), used_s / spans * 1000, sent)

    def sent(self, sent: Sent) -> None:
        """Note what was sent."""
        self.bodies += len(sent.answered)

    @property
    def spans(self) -> int:
        """How many spans it has acknowledged."""
        return self.bodies * self.shape.spans

    def owed(self) -> Counter[str]:
        """Wallet → what it must have been debited, in nano-dollars, which are nanocredits by the default rule."""
        due: Counter[str] = maker(self.shape).owed(self.shape, range(self.bodies))
        return due


def difference_nanocredits(farebox: Farebox, subjects: Sequence[Subject]) -> int:
    """By how much the wallets' debits differ from what the acknowledged calls cost, added up wallet by wallet."""
    due: Counter[str] = Counter()
    for subject in subjects:
        due.update(subject.owed())
    debited = farebox.debited_nanocredits()
    return sum(abs(debited.get(wallet, 0) - due[wallet]) for wallet in {*due, *debited})


def alternating(count: int, *works: Callable[[], Round]) -> list[list[Round]]:
    """So many rounds of each, in turns; every second time in the opposite order. A list of rounds for each."""
    rounds: list[list[Round]] = [[] for _ in works]
    for turn in range(count):
        order = list(enumerate(works))
        for index, work in order if turn % 2 == 0 else reversed(order):
            rounds[index].append(work())
    return rounds


def rates(rounds: Sequence[Round]) -> list[float]:
    """Spans a second of each."""
    return [one.spans_a_second for one in rounds]


def median_rate(rounds: Sequence[Round]) -> float:
    """The median of them."""
    return statistics.median(rates(rounds))


def window_rates(sent: Sent, shape: Shape, window_s: float) -> list[float]:
    """Spans a second of each whole window since the beginning, by the moment of their acknowledgement."""
    counts = Counter(int((one.acknowledged_s - sent.began_s) / window_s) for one in sent.answered)
    windows = int((sent.ended_s - sent.began_s) / window_s)
    return [counts[window] * shape.spans / window_s for window in range(windows)]


def seconds_until(condition: Callable[[], bool], give_up_s: float, pause_s: float = 0.1) -> float:
    """How long it took until something was so. Raises TimeoutError."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > give_up_s:
            raise TimeoutError(f"not within {give_up_s:.0f} s")
        time.sleep(pause_s)
    return time.monotonic() - started
