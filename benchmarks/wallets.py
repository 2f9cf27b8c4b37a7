"""How fast holds are: 50 clients of one hot wallet on PostgreSQL, over HTTP, each at a steady rate.

Latency is counted from the moment a request was due, so that a collector that falls behind cannot hide it.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import httpx2
from harness import Collector
from postgres import PostgresServer, find_binaries

CLIENTS = 50


async def ask(client: httpx2.AsyncClient, number: int, rate: float, until: float, taken: list[float]) -> None:
    """One client: a hold, and then another, each when it is due."""
    due = time.perf_counter() + number / CLIENTS / rate
    place = 0
    while due < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        body = {"wallet": "hot", "amount_credits": "0.000000001", "action_id": f"{number}-{place}"}
        answer = await client.post("/v1/holds", json=body, headers={"Idempotency-Key": f"{number}-{place}"})
        taken.append(time.perf_counter() - due)
        assert answer.status_code == 201, answer.text
        due += 1 / rate
        place += 1


async def measure(port_url: str, rate: float, seconds: float) -> list[float]:
    """Seconds that each hold took."""
    taken: list[float] = []
    limits = httpx2.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    async with httpx2.AsyncClient(base_url=port_url, limits=limits, timeout=30) as client:
        await client.post(
            "/v1/wallets/hot/deposits", json={"amount_credits": "1000"}, headers={"Idempotency-Key": "pay"}
        )
        until = time.perf_counter() + seconds
        await asyncio.gather(*(ask(client, number, rate, until, taken) for number in range(CLIENTS)))
    return taken[len(taken) // 10 :]


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rate", type=float, default=4.0, help="holds a second and client")
    arguments.add_argument("--seconds", type=float, default=10.0)
    options = arguments.parse_args()
    binaries = find_binaries()
    if binaries is None:
        sys.exit("PostgreSQL's server is not installed here")
    server = PostgresServer(binaries)
    with tempfile.TemporaryDirectory() as directory:
        collector = Collector(server.new_database(), Path(directory) / "log")
        try:
            taken = asyncio.run(measure(str(collector.api.base_url), options.rate, options.seconds))
        finally:
            collector.close()
            server.close()
    cuts = statistics.quantiles(taken, n=100)
    print(
        f"holds, {CLIENTS} clients, one wallet, {options.rate * CLIENTS:.0f}/s: p50 {cuts[49] * 1000:.1f} ms,"
        f" p99 {cuts[98] * 1000:.1f} ms, of {len(taken)}"
    )


if __name__ == "__main__":
    main()
