"""The database itself keeps the price book append-only and without two prices of one thing at one moment."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from farebox_collector import assembly
from farebox_collector.ledger.storage.database import Database
from farebox_collector.settings import Settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, IntegrityError

COLUMNS = {
    "import_id": 1,
    "provider": "p",
    "model": "m",
    "unit": "input",
    "over_input_tokens": 0,
    "daily_from_s": 0,
    "daily_to_s": 0,
    "usd_per_1k": "1",
    "valid_from_ns": 100,
    "valid_to_ns": 200,
    "source": "s",
    "source_version": "1",
    "recorded_at_ns": 0,
    "condition": "standard",
    "tenant_id": None,
}
INSERT = f"INSERT INTO price_versions ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)})"
HOUR = 3600


def insert(connection: Connection, **changes: Any) -> None:
    connection.execute(text(INSERT), COLUMNS | changes)


FITS: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"valid_from_ns": 199, "valid_to_ns": None}, False),
    ({"valid_from_ns": 0, "valid_to_ns": 101}, False),
    ({"valid_from_ns": 0, "valid_to_ns": None}, False),
    ({"valid_from_ns": 200, "valid_to_ns": None}, True),
    ({"valid_from_ns": 0, "valid_to_ns": 100}, True),
    ({"valid_from_ns": 150, "valid_to_ns": 150}, True),  # never applies
    ({"unit": "output"}, True),
    ({"condition": "batch"}, True),
    ({"over_input_tokens": 1}, True),
    ({"tenant_id": 1}, True),
    ({"daily_from_s": 22 * HOUR, "daily_to_s": 6 * HOUR}, True),
]


def test_one_thing_has_one_price_at_a_moment(database: Database) -> None:
    with database.transaction() as connection:
        for number, (changes, fits) in enumerate(FITS):
            insert(connection, model=f"m{number}")
            if fits:
                insert(connection, model=f"m{number}", **changes)
            else:
                with pytest.raises(IntegrityError, match="overlap"), connection.begin_nested():
                    insert(connection, model=f"m{number}", **changes)


def test_hours_of_the_day_may_touch_and_not_overlap(database: Database) -> None:
    """Against the plain meaning of hours: 21 pairs of windows, minute by minute."""
    windows = [(22, 6), (6, 22), (0, 1), (5, 7), (23, 24 - 1 / 60), (12, 13)]
    for number, (first, second) in enumerate((one, two) for one in windows for two in windows):
        overlap = bool(_minutes(*first) & _minutes(*second))
        with database.transaction() as connection:
            name = {"model": f"m{number}"}
            insert(connection, **name, daily_from_s=int(first[0] * HOUR), daily_to_s=int(first[1] * HOUR))
            later = {"daily_from_s": int(second[0] * HOUR), "daily_to_s": int(second[1] * HOUR)}
            if overlap:
                with pytest.raises(IntegrityError, match="overlap"), connection.begin_nested():
                    insert(connection, **name, **later)
            else:
                insert(connection, **name, **later)


def _minutes(start: float, end: float) -> set[int]:
    first, last = round(start * 60), round(end * 60)
    return set(range(first, last)) if first < last else set(range(first, 1440)) | set(range(last))


def test_two_that_write_at_once_cannot_both_win(new_books: Callable[[str, Path], str], tmp_path: Path) -> None:
    database = assembly.open_books(Settings(database_url=new_books("postgresql", tmp_path)))
    inserted, failures = threading.Barrier(2), []

    def write() -> None:
        try:
            with database.transaction() as connection:
                inserted.wait()
                insert(connection)
        except IntegrityError as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 1
    with database.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM price_versions WHERE provider = 'p'")).scalar_one() == 1
    database.close()


REFUSED = [
    "UPDATE price_versions SET usd_per_1k = '0.5' WHERE provider = 'p'",
    "UPDATE price_versions SET valid_from_ns = 99 WHERE provider = 'p'",
    "UPDATE price_versions SET valid_to_ns = 201 WHERE provider = 'p'",
    "UPDATE price_versions SET valid_to_ns = NULL WHERE provider = 'p'",
    "UPDATE price_versions SET tenant_id = 1 WHERE provider = 'p'",
    "DELETE FROM price_versions WHERE provider = 'p'",
]


def test_a_version_is_never_altered_but_for_an_earlier_end(database: Database) -> None:
    with database.transaction() as connection:
        insert(connection)
        for statement in REFUSED:
            with pytest.raises(DBAPIError, match="never"), connection.begin_nested():
                connection.execute(text(statement))
        connection.execute(text("UPDATE price_versions SET valid_to_ns = 150 WHERE provider = 'p'"))


spans = st.tuples(st.integers(1, 30), st.one_of(st.none(), st.integers(1, 30)))


def test_what_the_database_lets_in_never_overlaps(new_books: Callable[[str, Path], str], tmp_path: Path) -> None:
    database = assembly.open_books(Settings(database_url=new_books("sqlite", tmp_path)))
    numbers = iter(range(10**6))

    @hypothesis_settings(max_examples=60, deadline=None)
    @given(st.lists(spans, max_size=8))
    def holds(wanted: list[tuple[int, int | None]]) -> None:
        model, taken = f"h{next(numbers)}", set[int]()
        with database.transaction() as connection:
            for start, end in wanted:
                if end is not None and end < start:
                    continue
                moments = set(range(start, 40 if end is None else end))
                if moments & taken:
                    with pytest.raises(IntegrityError), connection.begin_nested():
                        insert(connection, model=model, valid_from_ns=start, valid_to_ns=end)
                else:
                    insert(connection, model=model, valid_from_ns=start, valid_to_ns=end)
                    taken |= moments

    holds()
    database.close()
