"""A few random histories on each database; `make torture` tries more and longer ones."""

from pathlib import Path

import pytest
from blank import blank_postgresql, blank_sqlite
from postgres import PostgresServer
from torture.books_machine import try_histories
from torture.shop_machine import try_money

SEED = 20_260_101


def test_whatever_happens_books_in_sqlite_say_what_a_plain_model_says() -> None:
    try_histories(blank_sqlite, SEED, examples=25, steps=20)


def test_whatever_happens_books_in_postgresql_say_what_a_plain_model_says(postgres: PostgresServer) -> None:
    def new_books(_directory: Path) -> str:
        return blank_postgresql(postgres)

    try_histories(new_books, SEED, examples=8, steps=20)


@pytest.mark.parametrize("chosen_by", [SEED, SEED + 1])
def test_whatever_moves_money_books_in_sqlite_say_what_the_documentation_says(chosen_by: int) -> None:
    try_money(blank_sqlite, chosen_by, examples=5, steps=30)


def test_whatever_moves_money_books_in_postgresql_say_what_the_documentation_says(postgres: PostgresServer) -> None:
    def new_books(_directory: Path) -> str:
        return blank_postgresql(postgres)

    try_money(new_books, SEED, examples=4, steps=25)
