"""The demo's live table of wallets, costs and margins at list."""

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
    for heading in ("calls", "cost", "charge value", "margin at list"):
        events.add_column(heading, justify="right")
    for name, event in books.events().items():
        # In the demo a credit sells for a dollar.
        value = event.charged_credits
        margin = f"{(value - event.cost_usd) / value:.1%}" if value else ""
        events.add_row(name, str(event.requests), f"{event.cost_usd:.6f}", f"{value:.6f}", margin)
    return Group(Columns([wallets, events]), Text(below))
