"""How fast holds are: 50 clients of one hot wallet on PostgreSQL, over HTTP; and a wallet's overview in large books.

At a steady rate first: each client asks when its time has come, and latency is counted from that moment, so that a
collector that falls behind cannot hide it. Then as fast as they are answered. Beside it stands what the disk takes for
one small write, below which no durable hold can be, and the machine's load.

The overview is asked for by one client, one after the other, of a wallet with a tenth of all usage records.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness import Collector
from postgres import PostgresServer, find_binaries
from wallet_history import fill

CLIENTS = 50
OVERVIEWS = 200
_WARM_UP = 0.1


class Client:
    """One connection that is kept; as lean as can be, since it shares the machine with what it measures."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host, self._reader, self._writer = host, reader, writer

    @classmethod
    async def connect(cls, host: str) -> "Client":
        """Open the connection."""
        name, _, port = host.partition(":")
        return cls(host, *await asyncio.open_connection(name, int(port)))

    async def post(self, path: str, key: str, body: dict[str, str]) -> None:
        """Ask, and read the answer; anything but 201 is an error."""
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Idempotency-Key: {key}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._writer.write(head.encode() + content)
        await self._answer(b"201")

    async def _answer(self, status: bytes) -> bytes:
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        said = await self._reader.readexactly(length)
        assert answer.startswith(b"http/1.1 " + status), said
        return said

    async def get(self, path: str) -> bytes:
        """Read an answer; anything but 200 is an error."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        return await self._answer(b"200")

    async def hold(self, name: str) -> None:
        """One hold on the hot wallet."""
        await self.post("/v1/holds", name, {"wallet": "hot", "amount_credits": "0.000000001", "action_id": name})


async def at_a_rate(client: Client, number: int, rate: float, seconds: float) -> list[float]:
    """One client at a steady rate: seconds from when each hold was due."""
    taken: list[float] = []
    begin = due = time.perf_counter() + number / CLIENTS / rate
    while due < begin + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await client.hold(f"rate-{number}-{len(taken)}")
        taken.append(time.perf_counter() - due)
        due += 1 / rate
    return taken


async def as_fast_as_can_be(client: Client, number: int, seconds: float) -> list[float]:
    """One client that asks again as soon as it is answered."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        await client.hold(f"fast-{number}-{len(taken)}")
        taken.append(time.perf_counter() - begun)
    return taken


async def measure(host: str, one: Callable[[Client, int], Awaitable[list[float]]]) -> tuple[list[float], float]:
    """What all clients saw, without the first that warm up, and how long it took in all."""
    clients = [await Client.connect(host) for _ in range(CLIENTS)]
    begun = time.perf_counter()
    taken = await asyncio.gather(*(one(client, number) for number, client in enumerate(clients)))
    elapsed = time.perf_counter() - begun
    return [seconds for each in taken for seconds in each[int(len(each) * _WARM_UP) :]], elapsed


async def pay_in(host: str) -> None:
    """Fill the wallet."""
    client = await Client.connect(host)
    await client.post("/v1/wallets/hot/deposits", "pay", {"amount_credits": "1000"})


async def overviews(host: str) -> list[float]:
    """Seconds that each overview took."""
    client, taken = await Client.connect(host), []
    for _ in range(OVERVIEWS + 10):
        begun = time.perf_counter()
        await client.get("/v1/wallets/hot/overview")
        taken.append(time.perf_counter() - begun)
    return taken[10:]


def syncs_of(directory: Path, seconds: float = 2.0) -> list[float]:
    """How long the disk takes to write 8 KiB for good."""
    taken: list[float] = []
    file = os.open(directory / "sync", os.O_CREAT | os.O_WRONLY)
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        os.pwrite(file, bytes(8192), len(taken) % 128 * 8192)
        os.fdatasync(file)
        taken.append(time.perf_counter() - begun)
    os.close(file)
    return taken


def figures(taken: list[float]) -> str:
    """p50 and p99 in milliseconds."""
    cuts = statistics.quantiles(taken, n=100)
    return f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms, of {len(taken)}"


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rate", type=float, default=4.0, help="holds a second and client")
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--records", type=int, default=10_000_000, help="usage records for the overview; 0 for none")
    options = arguments.parse_args()
    binaries = find_binaries()
    if binaries is None:
        sys.exit("PostgreSQL's server is not installed here")
    server = PostgresServer(binaries)
    with tempfile.TemporaryDirectory() as directory:
        try:
            measure_holds(server.new_database(), Path(directory), options.rate, options.seconds)
            if options.records:
                measure_overview(server.new_database(), Path(directory), options.records)
        finally:
            server.close()


def measure_holds(url: str, directory: Path, rate: float, seconds: float) -> None:
    """Print how long holds take."""
    collector = Collector(url, directory / "holds.log")
    host = collector.api_url.removeprefix("http://")
    try:
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before")
        print(f"one write of 8 KiB to the disk: {figures(syncs_of(directory))}")
        asyncio.run(pay_in(host))
        asyncio.run(measure(host, lambda client, number: at_a_rate(client, number, 4.0, 2.0)))
        taken, _ = asyncio.run(measure(host, lambda client, number: at_a_rate(client, 1000 + number, rate, seconds)))
        print(f"holds, {CLIENTS} clients of one wallet, {rate * CLIENTS:.0f} a second: {figures(taken)}")
        taken, elapsed = asyncio.run(measure(host, lambda client, number: as_fast_as_can_be(client, number, seconds)))
        print(f"holds, {CLIENTS} clients as fast as can be: {len(taken) / elapsed:.0f} a second, {figures(taken)}")
        print(f"load {os.getloadavg()[0]:.1f} after", flush=True)
    finally:
        collector.close()


def measure_overview(url: str, directory: Path, records: int) -> None:
    """Print how long an overview takes in books of so many records."""
    begun = time.perf_counter()

    def tell(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done:,} of {records:,} records", end="", file=sys.stderr)

    fill(url, records, tell)
    print(f"filled the books in {time.perf_counter() - begun:.0f} s", flush=True)
    collector = Collector(url, directory / "overview.log", full_audit_hours=1_000_000)
    try:
        taken = asyncio.run(overviews(collector.api_url.removeprefix("http://")))
        load = os.getloadavg()[0]
        print(f"overview of a wallet among {records:,} usage records: {figures(taken)}, load {load:.1f}")
    finally:
        collector.close()


if __name__ == "__main__":
    main()
