"""The short form of `make torture`: a few tries of every fault, on both databases."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from faults import BOTH, FAULTS, POSTGRESQL, Fault
from postgres import PostgresServer
from world import Result, World

SEED = 20_260_101
CASES = [(fault, kind) for fault in FAULTS for kind in fault.databases]

Results = dict[tuple[str, str], "Future[Result]"]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """What the chosen tests need, begun at once: the databases are tortured side by side, for most of it is waiting."""
    own = [item.callspec.params for item in request.session.items if item.path == request.path]  # type: ignore[attr-defined]
    workers = {kind: ThreadPoolExecutor(1, thread_name_prefix=kind) for kind in BOTH}
    begun: Results = {}
    for fault, kind in ((chosen["fault"], chosen["kind"]) for chosen in own):
        server: PostgresServer | None = None
        if kind == POSTGRESQL:
            try:
                server = request.getfixturevalue("postgres")
            except pytest.skip.Exception:
                continue
        directory = tmp_path_factory.mktemp("torture")
        begun[fault.name, kind] = workers[kind].submit(torture, fault, kind, directory, server)
    yield begun
    for worker in workers.values():
        worker.shutdown(cancel_futures=True)


def torture(fault: Fault, kind: str, directory: Path, server: PostgresServer | None) -> Result:
    world = World(kind, directory, SEED, short=True, postgres=server)
    try:
        return fault.hurt(world)
    finally:
        world.close()


@pytest.mark.parametrize(("fault", "kind"), CASES, ids=[f"{fault.name}, {kind}" for fault, kind in CASES])
def test_nothing_acknowledged_is_lost_and_nothing_is_charged_twice(
    fault: Fault, kind: str, results: Results, request: pytest.FixtureRequest
) -> None:
    if kind == POSTGRESQL:
        # Skipped where it is missing, unless this is CI.
        request.getfixturevalue("postgres")
    result = results[fault.name, kind].result()
    assert result.clean, result
