"""Faults of load: malformed bodies, and more good ones than a collector can take at once."""

import statistics
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from torture.assailant import Assailant
from torture.world import Broken, Call, Load, Result, World, in_threads, p99

_REQUEST_BYTES = 16 * 2**20
_SAMPLES = 150
"""Acknowledgements of bystanders in one stretch."""
_MOST_ROUNDS = 50
_PROMPT_BYTES = 64 * 2**10


def hostile_bodies(world: World) -> Result:
    """Malformed, oversized, bombs, deep nesting, a million attributes: refused for good, and bystanders are charged.

    Calm and hostile stretches take turns, so that other load of the machine affects both alike.
    """
    collector = world.serve(max_request_bytes=_REQUEST_BYTES)
    samples = world.tries(full=_SAMPLES, short=1)
    ratios = []
    with Assailant(collector, _REQUEST_BYTES, short=world.short) as assailant, Load(world, senders=2):
        world.wait_acknowledged(2)
        for _ in range(world.tries(full=7, short=1)):
            normal = p99_of_stretch(world, samples, nullcontext())
            ratios.append(p99_of_stretch(world, samples, assailant.loose()) / normal)
        world.wait_acknowledged(2)
    if world.retries:
        raise Broken("bystanders were told to come again because of hostile bodies")
    # Too few to say in the short form.
    return world.result(assailant.tried, p99_ratio=None if world.short else statistics.median(ratios))


def p99_of_stretch(world: World, samples: int, what_happens: AbstractContextManager[None]) -> float:
    """The bystanders' p99 over so many acknowledgements while something happens, in seconds."""
    begin = len(world.waits_s)
    with what_happens:
        world.wait_acknowledged(samples)
    return p99(world.waits_s[begin:])


def more_than_it_can_take(world: World) -> Result:
    """Far more arrives at once than there is room for: it is told to come again, and memory stays where it is.

    How fast the senders are is the machine's business: they go on until a sender was refused.
    """
    senders, rounds = world.tries(full=32, short=12), world.tries(full=8, short=1)
    collector = world.serve(queue_max_bytes=world.tries(full=16, short=4) * 2**20)
    sent: list[int] = []

    def send(number: int) -> None:
        for done in range(_MOST_ROUNDS):
            if done >= rounds and world.retries:
                return
            calls = [_with_prompt(call) for call in world.new_batch(40)]
            world.insist(calls, ("http", "grpc")[number % 2])
            sent.append(number)
        raise Broken("there was room for everything: that was not more than it can take")

    in_threads([partial(send, number) for number in range(senders)])
    if collector.metrics()["farebox_queue_bytes"]:
        raise Broken("room is still taken when everything is answered")
    return world.result(len(sent))


def _with_prompt(call: Call) -> Call:
    """The same call as an instrumentation shows it that sends prompts along."""
    attributes = {**call.span.attributes, "gen_ai.input.messages": "x" * _PROMPT_BYTES}
    return call._replace(span=call.span._replace(attributes=attributes))
