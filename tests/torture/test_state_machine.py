"""A few random histories on each database; `make torture` tries more and longer ones."""

from pathlib import Path

from blank import blank_postgresql, blank_sqlite
from books_machine import try_histories
from postgres import PostgresServer

SEED = 20_260_101


def test_whatever_happens_books_in_sqlite_say_what_a_plain_model_says() -> None:
    try_histories(blank_sqlite, SEED, examples=25, steps=20)


def test_whatever_happens_books_in_postgresql_say_what_a_plain_model_says(postgres: PostgresServer) -> None:
    def new_books(_directory: Path) -> str:
        return blank_postgresql(postgres)

    try_histories(new_books, SEED, examples=8, steps=20)
