"""Books with millions of usage records on PostgreSQL, to look at wallets in.

The first records are booked as calls are, over thirty days, wallets, events and models, so that every roll-up has its
rows. The rest are copies under ids of their own, made by the database, in no roll-up and no posting: such books would
fail an audit, but reading them takes as long as if they did not.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from farebox_collector import assembly
from farebox_collector.ledger.tables.books import usage_records
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import Buckets, PricedUsage, UsageRecord
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from sqlalchemy import text

DAY_NS = 86_400 * 10**9
DAYS, WALLETS, EVENTS, MODELS = 30, 500, 5, 4
BOOKED = 50_000
_BATCH = 2_000


def wallet_of(number: int) -> str:
    """The wallet of a call; one in ten is of `hot`."""
    return "hot" if number % 10 == 0 else f"wallet-{number % WALLETS}"


def calls(count: int, began_ns: int) -> Iterator[PricedUsage]:
    """Charged calls, evenly over the days."""
    for number in range(count):
        at_ns = began_ns + number * DAYS * DAY_NS // count
        usage = UsageRecord(
            trace_id=hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).digest(),
            span_id=(number + 1).to_bytes(8, "big"),
            parent_span_id=b"",
            started_at_ns=at_ns,
            latency_ns=800_000_000,
            wallet=wallet_of(number),
            event=f"event-{number % EVENTS}",
            action_id="",
            operation="chat",
            provider="openai",
            request_model=f"model-{number % MODELS}",
            response_model=f"model-{number % MODELS}",
            response_id=f"resp-{number}",
            service_tier="",
            error_type="",
            buckets=Buckets(input=900, output=150),
            summary=False,
            time_to_first_chunk_ns=None,
            dept="",
            project="",
            task="",
            route="",
            region="",
            dialect="genai",
            assumptions=(),
        )
        yield PricedUsage(
            usage, Verdict.CHARGED, "", at_ns, "openai", usage.request_model, 225_000, 225_000, "[1]", 1, ()
        )


def fill(url: str, records: int, progress: Callable[[int], None]) -> None:
    """Write so many usage records into books that are there."""
    with closing(assembly.open_books(Settings(database_url=url))) as database:
        labels, began_ns = TotalLabels(), time.time_ns() - DAYS * DAY_NS
        batch: list[PricedUsage] = []
        for number, call in enumerate(calls(min(BOOKED, records), began_ns), start=1):
            batch.append(call)
            if len(batch) == _BATCH or number == min(BOOKED, records):
                database.transact(
                    partial(record_usage, tenant_id=1, calls=batch, received_at_ns=began_ns, labels=labels)
                )
                batch = []
        columns = [column.name for column in usage_records.c if column.name != "id"]
        made = {"trace_id": "decode(md5(encode(trace_id, 'hex') || :copy), 'hex')", "call_key": "NULL"}
        copy = text(
            f"INSERT INTO usage_records ({', '.join(columns)})"
            f" SELECT {', '.join(made.get(name, name) for name in columns)} FROM usage_records"
            " WHERE id <= (SELECT min(id) FROM usage_records) + :count - 1"
        )
        done, number = min(BOOKED, records), 0
        while done < records:
            count, number = min(BOOKED, records - done), number + 1
            with database.transaction() as connection:
                connection.execute(text("SET LOCAL synchronous_commit TO off"))
                connection.execute(copy, {"copy": str(number), "count": count})
            done += count
            progress(done)
