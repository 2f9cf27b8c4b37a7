"""What metrics are read from that no running total has: wallets by how long their credits last."""

import pytest
from calls import START_NS, call
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.reports.metric_readings import wallets_running_dry
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.money import NANO

DAY_NS = 86_400 * 10**9
NOON_NS = START_NS // DAY_NS * DAY_NS + DAY_NS // 2


def spend(database: Database, credits_on: dict[int, int], left: int, wallet: str = "ada") -> None:
    """Let a wallet that is ten days old spend credits on days before today, and have some left."""
    with database.transaction() as connection:
        total = left + sum(credits_on.values())
        deposit(connection, 1, wallet, total * NANO, f"for {wallet}", NOON_NS - 10 * DAY_NS)
        made = [
            call(number, trace=len(wallet) * 1000 + number, wallet=wallet, cost_nanousd=0, start_ns=NOON_NS)._replace(
                charge_nanocredits=amount * NANO, priced_at_ns=NOON_NS - days_ago * DAY_NS
            )
            for number, (days_ago, amount) in enumerate(credits_on.items(), start=1)
        ]
        record_usage(connection, 1, made, NOON_NS, TotalLabels())


@pytest.mark.parametrize(
    ("credits_on", "left", "expected"),
    [
        # 10 a day: 15 in the last day and a half, 65 in the last six and a half.
        (dict.fromkeys(range(1, 8), 10) | {0: 5}, 9, {"1d": 1, "7d": 1}),
        (dict.fromkeys(range(1, 8), 10) | {0: 5}, 11, {"1d": 0, "7d": 1}),
        (dict.fromkeys(range(1, 8), 10) | {0: 5}, 71, {"1d": 0, "7d": 0}),
        # One busy hour today: 15 in six and a half days.
        ({0: 15}, 9, {"1d": 0, "7d": 1}),
        # All of it days ago.
        ({4: 100}, 9, {"1d": 0, "7d": 0}),
        # What was spent before the seven days does not count.
        ({9: 1000, 0: 1}, 9, {"1d": 0, "7d": 0}),
        ({0: 15, 1: 15}, 0, {"1d": 0, "7d": 0}),
    ],
)
def test_wallets_are_dry_when_both_paces_say_so(
    database: Database, credits_on: dict[int, int], left: int, expected: dict[str, int]
) -> None:
    spend(database, credits_on, left)
    spend(database, {0: 1}, 10_000, wallet="rich")
    with database.reading() as connection:
        assert wallets_running_dry(connection, NOON_NS) == expected


def test_a_new_wallet_is_taken_to_be_a_day_old(database: Database) -> None:
    with database.transaction() as connection:
        deposit(connection, 1, "new", 8 * NANO, "for new", NOON_NS - 60 * NANO)
        made = call(1, wallet="new", cost_nanousd=0, start_ns=NOON_NS)._replace(charge_nanocredits=3 * NANO)
        record_usage(connection, 1, [made], NOON_NS, TotalLabels())
    with database.reading() as connection:
        assert wallets_running_dry(connection, NOON_NS) == {"1d": 0, "7d": 1}, "3 a day, not 3 a minute"
