"""Faults of senders: wrong clocks, prices that change under them, and people who mean harm."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from harness import farebox
from spans import llm_span
from torture.hostile import STRINGS, WALLET
from torture.world import RATES, Broken, Call, Result, World

_MODEL = "gpt-4o-mini"
_DAY_NS = 86_400 * 10**9
_MAX_COMBINATIONS = 1_000


def price_change(world: World) -> Result:
    """Prices change; spans from before and after come late and in no order, each at the price of its own moment."""
    spans = world.tries(full=3_000, short=300)
    now_s = time.time_ns() // 10**9
    changed_s = now_s - 1_800
    collector = world.serve()
    # What was charged before the change was known keeps its price, also where its moment is past the change.
    early = [world.new_batch(20, start_ns=(changed_s + offset) * 10**9, model=_MODEL) for offset in (-60, 60)]
    for batch in early:
        world.insist(batch)
    collector.kill()
    _set_price(world, "input", 7 * RATES[_MODEL].input, changed_s)
    collector.start()
    late = []
    for number in range(spans):
        start_ns = changed_s * 10**9 + world.chosen.choice((-1, 0, 1, -600 * 10**9, 600 * 10**9))
        late += world.new_batch(1, start_ns=start_ns, model=_MODEL)
        if start_ns >= changed_s * 10**9:
            late[number] = world.reprice(late[number], 7)
    world.chosen.shuffle(late)
    for start in range(0, len(late), 100):
        world.insist(late[start : start + 100], ("grpc", "http")[start // 100 % 2])
    return world.result(spans + 40)


def clock_off(world: World) -> Result:
    """Spans a year from where the collector is: flagged, and charged what holds when they arrive."""
    spans = world.tries(full=500, short=50)
    now_ns = time.time_ns()
    _set_price(world, "input", 3 * RATES[_MODEL].input, (now_ns - 180 * _DAY_NS) // 10**9)
    _set_price(world, "input", 9 * RATES[_MODEL].input, (now_ns + 180 * _DAY_NS) // 10**9)
    flagged = 0
    collector = world.serve()
    # The sender's clock is off, then the collector's, each way.
    cases = ((365, 0, 3), (0, 365, 9), (-365, 0, 3), (0, 0, 3), (0, -365, 1))
    for sender_days, collector_days, times in cases[: world.tries(full=5, short=2)]:
        if collector.clock_offset_s != collector_days * 86_400:
            collector.kill()
            collector.clock_offset_s = collector_days * 86_400
            collector.start()
        batch = world.new_batch(spans, start_ns=now_ns + sender_days * _DAY_NS, model=_MODEL)
        batch = [world.reprice(call, times) for call in batch]
        for start in range(0, spans, 100):
            world.insist(batch[start : start + 100])
        world.lost()
        flagged += sum(len(call.keys) for call in batch) * bool(sender_days or collector_days)
    world.expect("SELECT count(*) FROM usage_records WHERE assumptions LIKE '%start_time_out_of_range%'", flagged)
    return world.result(len(world.calls))


def _set_price(world: World, unit: str, nano_usd: int, from_s: int) -> None:
    """`farebox prices set`, on a stopped collector; the rate is nano-USD a token, the command wants USD per 1,000."""
    moment = datetime.fromtimestamp(from_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    dollars = f"{nano_usd / 10**6:.6f}"
    done = farebox("prices", "set", "openai", _MODEL, unit, dollars, "--from", moment, "--database-url", world.url)
    if done.returncode:
        raise Broken(f"the price could not be set: {done.stderr}")


def hostile_strings(world: World) -> Result:
    """Hostile text in every field, beside good calls in the same request: those are charged, and so are these."""
    collector = world.serve()
    fields = ("wallet", "event", "model", "response_id")
    attributes = ("gen_ai.provider.name", "gen_ai.operation.name", "farebox.task", "error.type", "user.id", "x")
    tried = 0
    for text in STRINGS:
        named: list[Mapping[str, str]] = [{field: text} for field in fields]
        named += [{attribute.replace(".", "__"): text} for attribute in attributes]
        # Unpriced, so that our model need not know which wallet a hostile name ends up as.
        bad = [llm_span(**{"wallet": WALLET, "model": "no-such-model", **field}) for field in named]  # type: ignore[arg-type]
        good = world.new_batch(5)
        mixed = [Call(span, WALLET, 0) for span in bad] + good
        world.chosen.shuffle(mixed)
        for transport in ("grpc", "json"):
            tried += len(bad)
            world.insist(mixed, transport)
    world.lost()
    if collector.metrics()['farebox_usage_records_total{verdict="charged"}'] != len(world.calls):
        raise Broken("hostile strings broke the metrics page, or were charged")
    return world.result(tried)


def many_models(world: World) -> Result:
    """Ever new names of models: totals and series stay at their cap, memory stays bounded, bystanders are charged."""
    names = world.tries(full=100_000, short=3_000)
    size = 500
    collector = world.serve()
    if world.kind == "postgresql":
        # Each with a cap of its own would be no cap.
        world.serve()
    for start in range(0, names, size):
        flood = [
            llm_span(wallet=WALLET, model=f"model-{world.chosen.randbytes(8).hex()}", event=f"event-{number % 7}")
            for number in range(start, start + size)
        ]
        to = world.collectors[start // size % len(world.collectors)]
        world.insist([Call(span, WALLET, 0) for span in flood] + world.new_batch(10), collector=lambda to=to: to)  # type: ignore[misc]
    combinations = world.books.number(
        "SELECT count(*) FROM (SELECT DISTINCT event, provider, model FROM usage_totals) combinations"
    )
    if combinations > 2 * _MAX_COMBINATIONS + 1:  # half of them with tags as `other`
        raise Broken(f"{combinations} combinations have totals of their own")
    series = len(collector.metrics())
    if series > 20 * _MAX_COMBINATIONS:
        raise Broken(f"{series} series are exported")
    return world.result(names)
