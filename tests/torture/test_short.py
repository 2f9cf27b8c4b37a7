"""The short form of `make torture`: a few tries of every fault, on both databases."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from postgres import PostgresServer
from torture.faults import BOTH, FAULTS, POSTGRESQL, Fault
from torture.world import Result, World

SEED = 20_260_101
CASES = [(fault, kind) for fault in FAULTS for kind in fault.databases]


class Torment:
    """Cases under way: each database kind has a thread of its own, for most of torture is waiting."""

    def __init__(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._request = request
        self._directories = tmp_path_factory
        own = [item.callspec.params for item in request.session.items if item.path == request.path]  # type: ignore[attr-defined]
        self._chosen = [(chosen["fault"], chosen["kind"]) for chosen in own]
        self._threads = {kind: ThreadPoolExecutor(1, thread_name_prefix=kind) for kind in BOTH}
        self._begun: dict[tuple[Fault, str], Future[Result]] = {}

    def result(self, fault: Fault, kind: str) -> Result:
        """How this case goes; while it is waited for, the next of the other kind is under way.

        No further ahead: what follows may be the turn of another process that runs tests.
        """
        following = self._chosen[self._chosen.index((fault, kind)) + 1 :]
        self._begin(fault, kind)
        for next_fault, next_kind in [case for case in following if case[1] != kind][:1]:
            self._begin(next_fault, next_kind)
        return self._begun[fault, kind].result()

    def _begin(self, fault: Fault, kind: str) -> None:
        if (fault, kind) in self._begun:
            return
        # Skipped where it is missing, unless this is CI.
        server = self._request.getfixturevalue("postgres") if kind == POSTGRESQL else None
        directory = self._directories.mktemp("torture")
        self._begun[fault, kind] = self._threads[kind].submit(torture, fault, kind, directory, server)

    def close(self) -> None:
        """End the threads, also those with work under way."""
        for thread in self._threads.values():
            thread.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def torment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Torment]:
    torment = Torment(request, tmp_path_factory)
    yield torment
    torment.close()


def torture(fault: Fault, kind: str, directory: Path, server: PostgresServer | None) -> Result:
    world = World(kind, directory, SEED, short=True, postgres=server)
    try:
        return fault.hurt(world)
    finally:
        world.close()


@pytest.mark.parametrize(("fault", "kind"), CASES, ids=[f"{fault.name}, {kind}" for fault, kind in CASES])
def test_nothing_acknowledged_is_lost_and_nothing_is_charged_twice(fault: Fault, kind: str, torment: Torment) -> None:
    result = torment.result(fault, kind)
    assert result.clean, result
