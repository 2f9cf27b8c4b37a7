"""The demo's live table of wallets, costs and margins."""

from __future__ import annotations

from books import Books
from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text


def screen(books: Books, below: str) -> Group:
    """Return the current tables with a text below. Raises httpx2.HTTPError while the collector is away."""
    wallets = Table("wallet", title="Wallets, in credits", title_justify="left")
    for heading in ("left", "spent"):
        wallets.add_column(heading, justify="right")
    for wallet in books.wallets():
        wallets.add_row(wallet["wallet"], wallet["balance_credits"], wallet["spent_credits"])
    events = Table("event", title="Events, in US dollars", title_justify="left")
    for heading in ("calls", "cost", "charged", "margin"):
        events.add_column(heading, justify="right")
    for name, event in books.events().items():
        margin = event.charged_credits - event.cost_usd
        figures = (f"{figure:.6f}" for figure in (event.cost_usd, event.charged_credits, margin))
        events.add_row(name, str(event.requests), *figures)
    return Group(Columns([wallets, events]), Text(below))
