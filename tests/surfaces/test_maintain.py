"""`farebox maintain`, and what the API says of calls whose detail is retired."""

import json
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from blank import blank_sqlite
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.dialects import read
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import Span, UsageRecord
from farebox_collector.pricing.price import price
from farebox_collector.settings import Settings
from harness import Collector, farebox
from pydantic import ValidationError
from spans import llm_span, protobuf_body

DAY_NS = 86_400 * 10**9


def test_old_calls_are_let_go_of_and_known_when_they_come_again(tmp_path: Path) -> None:
    url, now_ns = blank_sqlite(tmp_path), time.time_ns()
    sent = [llm_span(response_id=f"r{n}", start_ns=now_ns - 60 * DAY_NS, wallet="ada") for n in range(3)]
    with closing(open_database(url)) as database, database.transaction() as connection:
        tariff = Tariffs(database, time.time_ns).of(1)
        usages = [
            read(Span(*one[:2], b"", one.start_ns, one.end_ns, False, dict(one.attributes), {}, "", ""), ())  # type: ignore[arg-type]  # no lists among them
            for one in sent
        ]
        prices_and_rules, then_ns = tariff[:2], now_ns - 60 * DAY_NS
        calls = [price(usage, then_ns, DAY_NS, *prices_and_rules) for usage in usages if type(usage) is UsageRecord]
        record_usage(connection, 1, calls, now_ns - 60 * DAY_NS, TotalLabels())
        kept = calls[0]._replace(usage=calls[0].usage._replace(trace_id=b"\1" * 16, response_id=""))
        record_usage(connection, 1, [kept], now_ns, TotalLabels())
    books = ("--database-url", url)
    for words, refusal in (
        ((), "give --before"),
        (("--before", f"{datetime.now(UTC) - timedelta(days=10):%Y-%m-%d}"), "kept for at least 35 days"),
    ):
        refused = farebox("maintain", *words, *books)
        assert (refused.returncode, refusal in refused.stderr) == (2, True), refused.stderr
    counted = farebox("maintain", "--dry-run", *books, retention_days=40)
    assert ("to retire" in counted.stdout, "Nothing is retired." in counted.stdout) == (True, True)
    done = json.loads(farebox("maintain", "--json", *books, retention_days=40).stdout)
    assert (done["to_retire"], done["retired"], set(done["kept"].values())) == (3, 3, {0})
    again = farebox("maintain", *books, retention_days=40)
    assert (again.returncode, "for later records" in again.stdout) == (0, True)
    receipt = ("receipt", sent[0].trace_id.hex(), sent[0].span_id.hex(), *books)
    assert "the detail of this call is retired" in farebox(*receipt).stderr
    replayed = farebox("replay", "--from", "2020-01-01", "--to", "2100-01-01", *books)
    assert (replayed.returncode, "can be replayed from" in replayed.stderr) == (2, True)
    with closing(Collector(url, tmp_path / "log")) as collector:
        spent = collector.wallet("ada")
        assert collector.export_http(protobuf_body(sent)).status_code == 200
        assert collector.wallet("ada") == spent
        assert len(collector.usage()) == 1
        gone = collector.api.get(f"/v1/usage/{sent[0].trace_id.hex()}/{sent[0].span_id.hex()}/receipt")
        assert (gone.status_code, gone.headers["content-type"]) == (410, "application/problem+json")
        assert "is retired" in gone.json()["detail"]
        refused_replay = collector.api.post(
            "/v1/replays", json={"from": "2020-01-01T00:00Z", "to": "2100-01-01T00:00Z"}
        )
        assert refused_replay.status_code == 410
        assert collector.stop() == 0
        collector.audit()


@pytest.mark.parametrize(("days", "hours"), [(34, 168), (36, 24 * 37)])
def test_detail_is_kept_for_as_long_as_it_is_needed(days: int, hours: int) -> None:
    with pytest.raises(ValidationError, match="set retention_days to at least"):
        Settings(retention_days=days, max_span_age_hours=hours)
    assert Settings(retention_days=0, max_span_age_hours=hours).retention_days == 0
