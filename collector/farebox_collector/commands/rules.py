"""`farebox rules`: what an event costs its wallet."""

import time
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import typer

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Stop,
    figure_table,
    moment_ns,
    out,
    positive_decimal,
    print_json,
    progress_bar,
    reading_books,
    require_named,
    writable_books,
)
from farebox_collector.ledger.reports import simulation, statements
from farebox_collector.ledger.tariffs.effective_times import CannotBegin, begin
from farebox_collector.ledger.tariffs.rules import RuleAuthorship, RuleOverlap, set_rule
from farebox_collector.model.moments import DAY_NS, format_ns
from farebox_collector.pricing.rules import (
    COST_PLUS,
    FLAT,
    PER_1K_TOKENS,
    BadRule,
    RuleTerms,
    describe,
)
from farebox_collector.surfaces.api.rules import show_outcome, show_rule, stated_terms

app = typer.Typer(help="Charge rules: what an event costs its wallet.", no_args_is_help=True)

Event = Annotated[str, typer.Argument(help="Event, such as chat.reply; * is every event without its own rule.")]
Multiplier = Annotated[str | None, typer.Option(help="Charge the provider's cost times this, such as 1.5.")]
Minimum = Annotated[str | None, typer.Option(help="With --multiplier: minimum credits per action.")]
Flat = Annotated[str | None, typer.Option(help="Charge this many credits once per action, regardless of its calls.")]
Input = Annotated[str | None, typer.Option("--input", help="Credits per 1,000 input tokens.")]
Cached = Annotated[str | None, typer.Option("--cached", help="Credits per 1,000 tokens read from a cache.")]
Output = Annotated[str | None, typer.Option("--output", help="Credits per 1,000 output tokens.")]


@app.command("list")
def list_command(tenant: TenantName = "default", database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List every version of every charge rule."""
    _show_versions(None, tenant, database_url, as_json)


@app.command("history")
def history_command(
    event: Event, tenant: TenantName = "default", database_url: DatabaseUrl = None, as_json: AsJson = False
) -> None:
    """List every version of an event's rule with author and reason."""
    _show_versions(event, tenant, database_url, as_json)


@app.command("set")
def set_command(
    event: Event,
    reason: Annotated[str, typer.Option(help="Why; kept with the rule.")],
    multiplier: Multiplier = None,
    minimum: Minimum = None,
    flat: Flat = None,
    input_credits: Input = None,
    cached_credits: Cached = None,
    output_credits: Output = None,
    author: Annotated[str, typer.Option(help="Who sets it; kept with the rule.")] = "cli",
    valid_from: Annotated[datetime | None, typer.Option("--from", help="When it starts, UTC (default: now).")] = None,
    valid_to: Annotated[datetime | None, typer.Option("--to", help="When it ends, UTC; * applies then.")] = None,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Set an event's charge terms from now or a later time on. Earlier versions are kept."""
    terms = _terms(multiplier, minimum, flat, input_credits, cached_credits, output_credits)
    _require_event(event)
    start_ns = None if valid_from is None else moment_ns(valid_from)
    end_ns = None if valid_to is None else moment_ns(valid_to)
    with closing(writable_books(database_url)) as database:
        try:
            version, begins_ns = begin(
                database,
                time.time_ns,
                start_ns,
                lambda connection, at_ns, begins_ns: (
                    set_rule(
                        connection,
                        tenant_id_of(connection, tenant),
                        event,
                        terms,
                        RuleAuthorship(author, reason),
                        at_ns,
                        begins_ns,
                        end_ns,
                    ),
                    begins_ns,
                ),
            )
        except (BadRule, RuleOverlap, CannotBegin) as error:
            raise Stop(str(error)) from None
    since = "now" if start_ns is None else format_ns(begins_ns)[:19]
    out.print(f"{event} is charged {describe(terms)} from {since} on (rule version {version}).")


@app.command("simulate")
def simulate_command(
    event: Event,
    multiplier: Multiplier = None,
    minimum: Minimum = None,
    flat: Flat = None,
    input_credits: Input = None,
    cached_credits: Cached = None,
    output_credits: Output = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="Number of past days.")] = 30,
    by: Annotated[str, typer.Option(help="event or wallet.")] = "event",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum rows to print.")] = 50,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a rule on the last days: what it would have charged, at which margin at list. Changes nothing."""
    terms = _terms(multiplier, minimum, flat, input_credits, cached_credits, output_credits)
    _require_event(event)
    if by not in ("event", "wallet"):
        raise Stop("--by must be event or wallet")
    now_ns = time.time_ns()
    with reading_books(database_url) as connection, progress_bar("simulating") as progress:
        try:
            result = simulation.simulate(
                connection, tenant_id_of(connection, tenant), event, terms, now_ns - days * DAY_NS, now_ns, progress
            )
        except BadRule as error:
            raise Stop(str(error)) from None
    rows = result.by_wallet if by == "wallet" else result.by_event
    if as_json:
        print_json(
            {
                "days": days,
                "rule": describe(terms),
                "by_event": [show_outcome(name, row).model_dump() for name, row in result.by_event.items()],
                "by_wallet": [show_outcome(name, row).model_dump() for name, row in result.by_wallet.items()],
            }
        )
        return
    title = f"The last {days} days if {event} were charged {describe(terms)}"
    headings = ("credits charged", "credits proposed", "credits more", "USD cost", "margin at list", "proposed")
    table = figure_table(title, by, "calls", *headings)
    for name, row in sorted(rows.items(), key=lambda item: -item[1].proposed_nanocredits)[:limit]:
        shown = show_outcome(name, row)
        credits = shown.charged_credits, shown.proposed_credits, shown.difference_credits
        margins = shown.margin_at_list_percent, shown.proposed_margin_at_list_percent
        percents = (f"{percent} %" if percent else "" for percent in margins)
        table.add_row(name, f"{row.calls:,}", *credits, shown.cost_usd, *percents)
    out.print(table)


def _show_versions(event: str | None, tenant: str, database_url: str | None, as_json: bool) -> None:
    with reading_books(database_url) as connection:
        rows = statements.charge_rules_of(connection, tenant_id_of(connection, tenant), event or "")
    rules = [show_rule(row) for row in rows]
    if as_json:
        print_json([rule.model_dump() for rule in rules])
        return
    if event is not None and not rules:
        raise Stop(f"{event!r} never had its own rule: * applies")
    table = figure_table("Charge rules", "event", "rule", "from", "to", "author", "reason")
    for rule in rules:
        since = "" if rule.valid_from.startswith("1970") else rule.valid_from[:19]
        table.add_row(rule.event, rule.terms, since, (rule.valid_to or "")[:19], rule.author, rule.reason)
    out.print(table)


def _terms(
    multiplier: str | None,
    minimum: str | None,
    flat: str | None,
    input_credits: str | None,
    cached_credits: str | None,
    output_credits: str | None,
) -> RuleTerms:
    """Return the terms of the options. Raises Stop."""
    tokens = {
        "input_credits_per_1k": input_credits,
        "cached_credits_per_1k": cached_credits,
        "output_credits_per_1k": output_credits,
    }
    asked = {
        FLAT: flat is not None,
        COST_PLUS: multiplier is not None or minimum is not None,
        PER_1K_TOKENS: any(tokens.values()),
    }
    if sum(asked.values()) != 1:
        raise Stop("give either --multiplier (and --minimum), or --flat, or --input, --cached and --output")
    if flat is not None:
        return RuleTerms(FLAT, flat_credits=_figure(flat))
    if asked[PER_1K_TOKENS]:
        return stated_terms(PER_1K_TOKENS, {name: _figure(text) for name, text in tokens.items() if text})
    if multiplier is None:
        raise Stop("--minimum needs --multiplier")
    least = Decimal(0) if minimum is None else _figure(minimum)
    return RuleTerms(COST_PLUS, multiplier=positive_decimal(multiplier), minimum_credits=least)


def _figure(text: str) -> Decimal:
    return Decimal(0) if text.strip("0.") == "" and text.strip(".") else positive_decimal(text)


def _require_event(event: str) -> None:
    require_named(event, "an event's name")
