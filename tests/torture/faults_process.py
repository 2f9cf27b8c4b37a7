"""Faults of the collector's own process: killed at any moment, killed at the worst moments, told to stop."""

import threading
import time

from torture.serve import FAILPOINTS
from torture.world import Load, Result, World


def kill_9(world: World) -> Result:
    """kill -9 at random moments under load, over and over on the same books."""
    tries = world.tries(full=100, short=2)
    collector = world.serve()
    recovery_s = 0.0
    with Load(world):
        for _ in range(tries):
            world.wait_acknowledged(world.chosen.randrange(1, 20))
            # Anywhere between two acknowledgements, not just after one.
            threading.Event().wait(world.chosen.random() * 0.02)
            killed_at = time.monotonic()
            collector.kill()
            collector.start()
            world.wait_acknowledged(1)
            recovery_s = max(recovery_s, time.monotonic() - killed_at)
            world.lost()
    return world.result(tries, recovery_s)


def kill_at_failpoints(world: World) -> Result:
    """kill -9 just before a COMMIT, just after it, between it and the answer, and before, in and after a fold."""
    tries = world.tries(full=7, short=1)
    passes = [
        f"{name}:{world.chosen.randrange(1, 6 if 'fold' in name else 30)}" for name in FAILPOINTS for _ in range(tries)
    ]
    recovery_s = 0.0
    collector = world.serve(fail=passes[0])
    with Load(world):
        for following in (*passes[1:], ""):
            collector.wait_killed()
            killed_at = time.monotonic()
            collector.fail = following
            collector.start()
            if not following:
                world.wait_acknowledged(1)
                recovery_s = time.monotonic() - killed_at
            world.lost()
    return world.result(len(passes), recovery_s)


def sigterm(world: World) -> Result:
    """SIGTERM under load: what was taken is answered, the rest is told to come again; the exit status is 0."""
    tries = world.tries(full=10, short=1)
    collector = world.serve()
    recovery_s = 0.0
    with Load(world):
        for _ in range(tries):
            world.wait_acknowledged(world.chosen.randrange(1, 20))
            stopped_at = time.monotonic()
            status = collector.stop()
            assert status == 0, f"SIGTERM ended with status {status}"
            collector.start()
            world.wait_acknowledged(1)
            recovery_s = max(recovery_s, time.monotonic() - stopped_at)
            world.lost()
    return world.result(tries, recovery_s)
