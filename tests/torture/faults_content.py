"""Faults of what is sent: again, torn apart, contradicting, late, from a wrong clock, and from people who mean harm."""

import random
import threading
from collections.abc import Callable
from functools import partial

from torture.books import Served
from torture.world import WALLETS, Broken, Call, Load, Result, World, in_threads

_THREADS = 4


def sent_again(world: World) -> Result:
    """Every batch comes one to five times, shuffled, split differently each time, from several threads at once."""
    rounds = world.tries(full=10, short=1)
    world.serve()
    if world.kind == "postgresql":
        world.serve()
    for _ in range(rounds):
        arrivals = [call for _ in range(20) for call in world.new_batch(30) * world.chosen.randrange(1, 6)]
        world.chosen.shuffle(arrivals)
        parts: list[list[Call]] = []
        while arrivals:
            size = world.chosen.randrange(1, 120)
            parts.append(arrivals[:size])
            arrivals = arrivals[size:]

        def deliver(number: int, parts: list[list[Call]] = parts) -> None:
            collector = world.collectors[number % len(world.collectors)]
            for part in parts[number::_THREADS]:
                world.insist(part, ("grpc", "http", "json")[number % 3], lambda: collector)

        in_threads([lambda number=number: deliver(number) for number in range(_THREADS)])  # type: ignore[misc]
        world.lost()
    return world.result(rounds)


def conflicts(world: World) -> Result:
    """The same span ids come again with other tokens and another wallet: the first stays, the second is kept apart."""
    spans = world.tries(full=2_000, short=200)
    world.serve()
    batch = world.new_batch(spans)
    world.insist(batch)
    others = []
    for call in batch:
        attributes = {**call.span.attributes, "gen_ai.usage.input_tokens": 999_999, "farebox.wallet": "mallory"}
        others.append(call._replace(span=call.span._replace(attributes=attributes)))
    # Twice, once in the company of their originals: a contradiction is kept once, and pays nothing.
    world.insist(others)
    mixed = others + batch
    world.chosen.shuffle(mixed)
    world.insist(mixed, "http")
    world.expect("SELECT count(*) FROM usage_conflicts", sum(len(call.keys) for call in batch))
    world.expect("SELECT count(*) FROM usage_records WHERE wallet = 'mallory'", 0)
    return world.result(spans)


def deposits_among_charges(world: World) -> Result:
    """Deposits into the wallets that are charged at the same moment, each sent twice under its key."""
    rounds = world.tries(full=200, short=20)
    replicas = 2 if world.kind == "postgresql" else 1
    for _ in range(replicas):
        world.serve()

    def deposit(number: int) -> None:
        chosen = random.Random(number)
        for turn in range(rounds):
            wallet, credits_paid = f"wallet-{chosen.randrange(WALLETS)}", chosen.randrange(1, 100)
            for attempt in range(2):
                answer = world.collectors[(number + attempt) % replicas].api.post(
                    f"/v1/wallets/{wallet}/deposits",
                    json={"amount_credits": str(credits_paid)},
                    headers={"Idempotency-Key": f"{number}/{turn}"},
                )
                if answer.status_code not in (200, 201):
                    raise Broken(f"a deposit was answered with {answer.status_code}: {answer.text}")
            with world.changed:
                world.deposits[wallet] += credits_paid * 10**9

    with Load(world):
        in_threads([lambda number=number: deposit(number) for number in range(3)])  # type: ignore[misc]
        world.lost()
    return world.result(3 * rounds)


def twin_spans(world: World) -> Result:
    """Every call is shown by two spans with its response id, which arrive at the same moment: one of them pays."""
    return _twins(world, lambda number: f"twin-{number}")


def nested_twins(world: World) -> Result:
    """The same for calls without a response id (embeddings, failures): one span is nested in the other."""
    return _twins(world, lambda number: "")


def _twins(world: World, response_id: Callable[[int], str]) -> Result:
    rounds = world.tries(full=30, short=5)
    first, second = world.serve(), world.serve() if world.kind == "postgresql" else world.collectors[0]
    for turn in range(rounds):
        outer, inner = [], []
        for number, call in enumerate(world.new_batch(40, by_spans_alone=True), start=40 * turn):
            attributes = {**call.span.attributes, "gen_ai.response.id": response_id(number)}
            span = call.span._replace(attributes=attributes)
            twin = span._replace(span_id=world.chosen.randbytes(8), parent_span_id=span.span_id)
            outer.append(call._replace(span=span))
            # Whichever of the two pays, it is the same wallet and the same amount.
            inner.append(Call(twin, call.wallet, 0))
        world.replace([*outer, *inner])
        gate = threading.Barrier(2)

        def deliver(batch: list[Call], to: Served, gate: threading.Barrier = gate) -> None:
            gate.wait(30)
            world.insist(batch, collector=lambda: to)

        in_threads([partial(deliver, outer, first), partial(deliver, inner, second)])
        world.lost()
    return world.result(40 * rounds)
