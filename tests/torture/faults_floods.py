"""Faults of strangers: floods of every kind, while a client with a key goes on as before."""

import statistics
from contextlib import nullcontext

from torture.faults_load import p99_of_stretch
from torture.floods import Flood
from torture.world import Broken, Load, Result, World

KEY = f"fbx_{'f10d' * 4}_{'A' * 43}"
_SAMPLES = 150
_MOST_MIB = 400


def flood(name: str, world: World) -> Result:
    """Calm and flooded stretches take turns; who has a key waits no longer, and none of its spans is turned away."""
    collector = world.serve(key=KEY)
    samples = world.tries(full=_SAMPLES, short=20)
    ratios = []
    with Flood(name, collector) as strangers, Load(world, senders=2):
        world.wait_acknowledged(2)
        for _ in range(world.tries(full=5, short=1)):
            normal = p99_of_stretch(world, samples, nullcontext())
            ratios.append(p99_of_stretch(world, samples, strangers.loose()) / normal)
        world.wait_acknowledged(2)
    if world.retries:
        raise Broken("a client with a key was told to come again because of strangers")
    result = world.result(strangers.tried, p99_ratio=None if world.short else statistics.median(ratios))
    if result.peak_mib > _MOST_MIB:
        raise Broken(f"the collector took {result.peak_mib} MiB because of strangers, and {_MOST_MIB} are allowed")
    return result
