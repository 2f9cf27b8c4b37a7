"""Not a fault but all that may happen to books, in any order: the ledger against the plain model, by Hypothesis."""

from pathlib import Path

from blank import blank_postgresql, blank_sqlite
from torture.books_machine import try_histories
from torture.shop_machine import try_money
from torture.world import Result, World


def any_history(world: World) -> Result:
    """Random histories of deposits, charges, resends, better witnesses, new prices, replays and restarts.

    Raises what the first history ends with, made as short as possible, whose books do not say what the model says.
    """

    def new_books(directory: Path) -> str:
        return blank_sqlite(directory) if world.postgres is None else blank_postgresql(world.postgres)

    histories = world.tries(full=60, short=1)
    try_histories(new_books, world.chosen.randrange(2**32), histories, steps=world.tries(full=40, short=5))
    return Result(histories, 0, 0, 0, None)


def any_payments(world: World) -> Result:
    """Random histories of all that moves money: payments that go back, fees, top-ups, expiry, actions, holds, agents.

    Raises what the first history ends with, made as short as possible, whose books break a documented rule.
    """

    def new_books(directory: Path) -> str:
        return blank_sqlite(directory) if world.postgres is None else blank_postgresql(world.postgres)

    histories = world.tries(full=60, short=2)
    try_money(new_books, world.chosen.randrange(2**32), histories, steps=world.tries(full=50, short=10))
    return Result(histories, 0, 0, 0, None)
