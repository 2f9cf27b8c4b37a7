"""Faults of what the books are kept on: servers that go, connections that break, disks that fill, locks that stay."""

import contextlib
import getpass
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from torture.proxy import Cut, Proxy
from torture.world import Broken, Load, Result, World, in_threads

_TMPFS_MIB = 48
_BUSY_TIMEOUT_S = 10
"""How long the collector waits for a lock before it asks its clients to retry."""


def postgresql_restarted(world: World) -> Result:
    """The server restarts under load: `fast` cuts its connections, `immediate` is as good as a crash."""
    assert world.postgres is not None
    modes = ("fast", "immediate") * world.tries(full=5, short=1)
    recovery_s = 0.0
    world.serve()
    with Load(world):
        for mode in modes:
            world.wait_acknowledged(world.chosen.randrange(1, 20))
            stopped_at = time.monotonic()
            world.postgres.stop(mode)
            world.postgres.start()
            world.wait_acknowledged(1)
            recovery_s = max(recovery_s, time.monotonic() - stopped_at)
            world.lost()
    return world.result(len(modes), recovery_s)


def connections_cut(world: World) -> Result:
    """pg_terminate_backend on every connection, in a loop, under load of two replicas."""
    assert world.postgres is not None
    cuts = world.tries(full=200, short=5)
    world.serve()
    world.serve()
    with Load(world):
        for _ in range(cuts):
            world.wait_acknowledged(1)
            world.postgres.kill_backends()
        cut_at = time.monotonic()
        world.wait_acknowledged(1)
        recovery_s = time.monotonic() - cut_at
        world.lost()
    return world.result(cuts, recovery_s)


def commit_cut(world: World) -> Result:
    """The line to the server breaks before COMMIT arrives, while it runs, and when its answer is due."""
    assert world.postgres is not None
    proxy = Proxy(world.postgres.port)
    world.serve(world.url.replace(f":{world.postgres.port}/", f":{proxy.port}/"))
    cuts = [cut for cut in Cut for _ in range(world.tries(full=20, short=1))]
    world.chosen.shuffle(cuts)
    recovery_s = 0.0
    with Load(world):
        for cut in cuts:
            world.wait_acknowledged(1)
            if not proxy.cut_next(cut, timeout_s=30):
                raise Broken(f"nothing was committed in 30 s: no cut {cut.value}")
            cut_at = time.monotonic()
            world.wait_acknowledged(1)
            recovery_s = max(recovery_s, time.monotonic() - cut_at)
            world.lost()
    result = world.result(len(cuts), recovery_s)
    world.close()
    proxy.close()
    return result


def replicas_in_opposite_order(world: World) -> Result:
    """Two replicas get the same spans at once, one from the first to the last, the other from the last to the first."""
    rounds = world.tries(full=20, short=3)
    first, second = world.serve(), world.serve()
    for _ in range(rounds):
        batches = [world.new_batch(50) for _ in range(10)]
        backwards = [batch[::-1] for batch in batches[::-1]]

        def forth(batches: list[Any] = batches) -> None:
            for batch in batches:
                world.insist(batch, "grpc", lambda: first)

        def back(batches: list[Any] = backwards) -> None:
            for batch in batches:
                world.insist(batch, "http", lambda: second)

        in_threads([forth, back])
        world.lost()
    return world.result(rounds)


def disk_full(world: World) -> Result:
    """The disk fills up under load: clients are told to come again, and are taken as soon as there is room."""
    with _small_disk(world) as (fill, make_room):
        world.serve()
        try:
            return _fill_up(world, fill, make_room)
        finally:
            world.close()


def no_more_pages(world: World) -> Result:
    """SQLite may not add a page to the books any more (`max_page_count`): the same, within what the disk would hold."""
    full = world.directory / "full"
    world.serve(full_while=full)
    return _fill_up(world, full.touch, full.unlink)


def _fill_up(world: World, fill: Callable[[], object], make_room: Callable[[], object]) -> Result:
    tries = world.tries(full=5, short=1)
    recovery_s = 0.0
    with Load(world):
        for _ in range(tries):
            world.wait_acknowledged(world.chosen.randrange(1, 20))
            fill()
            refused = world.retries
            world.wait_for(lambda refused=refused: world.retries >= refused + 4, "refusals without room")  # type: ignore[misc]
            world.lost()
            make_room()
            freed_at = time.monotonic()
            world.wait_acknowledged(1)
            recovery_s = max(recovery_s, time.monotonic() - freed_at)
    return world.result(tries, recovery_s)


@contextmanager
def _small_disk(world: World) -> Iterator[tuple[Any, ...]]:
    """Books on a small disk of their own where this user may mount one, else under a limit on the size of files."""
    place = world.directory / "small"
    place.mkdir()
    ballast = place / "ballast"
    mounted = getpass.getuser() == "root" and _run("mount", "-t", "tmpfs", "-o", f"size={_TMPFS_MIB}m", "tmpfs", place)
    if not mounted:
        size = Path(world.url.removeprefix("sqlite:///"))
        yield (
            lambda: world.collectors[0].limit_file_size(_largest(size)),
            lambda: world.collectors[0].limit_file_size(-1),
        )
        return
    world.move_books(place)
    try:
        yield (lambda: _fill(ballast), ballast.unlink)
    finally:
        _run("umount", place)


def _run(*command: object) -> bool:
    return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0


def _fill(ballast: Path) -> None:
    """Write until there is no room, byte for byte at the end."""
    with open(ballast, "wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def _largest(database: Path) -> int:
    """The size that none of the books' files can grow beyond without some of them failing."""
    return max(file.stat().st_size for file in database.parent.glob(f"{database.name}*"))


def database_locked(world: World) -> Result:
    """Another process holds the write lock, in the long form longer than the collector waits for it."""
    tries = world.tries(full=2, short=1)
    world.serve()
    recovery_s = 0.0
    with Load(world), closing(sqlite3.connect(world.url.removeprefix("sqlite:///"), timeout=30)) as other:
        other.isolation_level = None
        for number in range(tries):
            world.wait_acknowledged(world.chosen.randrange(1, 20))
            other.execute("BEGIN IMMEDIATE")
            if number % 2 == 0 and not world.short:
                refused = world.retries
                world.wait_for(lambda refused=refused: world.retries > refused, "a refusal while it was locked")  # type: ignore[misc]
            else:
                threading.Event().wait(world.chosen.random())
            other.execute("ROLLBACK")
            released_at = time.monotonic()
            world.wait_acknowledged(1)
            recovery_s = max(recovery_s, time.monotonic() - released_at)
            world.lost()
    return world.result(tries, recovery_s)
