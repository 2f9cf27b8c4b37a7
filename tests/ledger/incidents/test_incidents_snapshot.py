"""What an incident keeps of the books at the moment it was recorded."""

import json

from calls import SECOND_NS, START_NS, call
from farebox_collector.insight.incidents import CALLS, CONTRIBUTORS, snapshot
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.model.verdicts import Verdict


def test_a_snapshot_names_who_contributed_and_where_to_look(database: Database) -> None:
    cheap = [call(n, trace=n, event="agent", cost_nanousd=10, wallet="bob") for n in range(1, 31)]
    dear = [call(100 + n, trace=100 + n, event="chat", cost_nanousd=10**9, wallet="ada") for n in range(1, 4)]
    early = call(200, trace=200, event="chat", cost_nanousd=7 * 10**9, start_ns=START_NS - 7_000 * SECOND_NS)
    waiting = call(201, trace=201, event="chat", verdict=Verdict.UNPRICED, error_type="timeout")
    with database.transaction() as connection:
        record_usage(connection, DEFAULT_TENANT_ID, [*cheap, *dear, early, waiting], START_NS, TotalLabels())
    now_ns = START_NS + 60 * SECOND_NS
    with database.reading() as connection:
        everything = json.loads(snapshot(connection, DEFAULT_TENANT_ID, {}, START_NS, now_ns))
        chat = json.loads(snapshot(connection, DEFAULT_TENANT_ID, {"event": "chat"}, START_NS, now_ns))
    assert [(line["event"], line["calls"], line["cost_usd"]) for line in everything["contributors"]] == [
        ("chat", 4, "3.000000000"),
        ("agent", 30, "0.000000300"),
    ]
    assert [line["wallet"] for line in everything["wallets"]] == ["ada", "bob"]
    assert len(everything["calls"]) == CALLS
    assert len(everything["contributors"]) <= CONTRIBUTORS
    assert {call["trace_id"] for call in everything["calls"][:3]} == {priced.usage.trace_id.hex() for priced in dear}
    # The catalogue, what corrects it and what completes it.
    assert everything["price_book_edition"] == 3
    assert everything["charge_rules"] == [{"event": "*", "version_id": 1}]
    assert {line["event"] for line in chat["contributors"]} == {"chat"}
    assert sum(line["errors"] for line in chat["contributors"]) == 1
