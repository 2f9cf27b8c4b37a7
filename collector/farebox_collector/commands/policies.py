"""`farebox policies`: spending limits of wallets, their users, departments and projects."""

import time
from contextlib import closing
from datetime import datetime
from typing import Annotated, Any

import typer

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    moment_ns,
    out,
    print_json,
    print_table,
    reading_books,
    require_named,
    writable_books,
)
from farebox_collector.ledger.credits.policies import (
    Authorship,
    BadPolicy,
    Terms,
    Validity,
    policies_in_force,
    policy_history,
    set_policy,
    terms_of,
)
from farebox_collector.ledger.credits.spending import LimitScope, Subject, in_books
from farebox_collector.model.moments import format_ns
from farebox_collector.model.money import AmountError, format_nano, parse_nano

app = typer.Typer(help="Spending limits of wallets, their users, departments and projects.", no_args_is_help=True)

Scope = Annotated[LimitScope, typer.Argument(help="wallet, user, dept or project.")]
Named = Annotated[str, typer.Argument(help="Wallet, department or project; *: each without its own policy.")]
User = Annotated[str, typer.Option(help="For the scope user: the wallet's user; *: each without its own policy.")]


@app.command("list")
def list_command(
    limit: Limit = 1_000,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the policies in force."""
    with reading_books(database_url) as connection:
        rows = policies_in_force(connection, tenant_id_of(connection, tenant), time.time_ns(), limit=limit)
    _print("Policies", rows, limit, as_json)


@app.command("history")
def history_command(
    scope: Scope,
    name: Named,
    user: User = "",
    limit: Limit = 1_000,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List every version of a policy with author and reason, newest first."""
    with reading_books(database_url) as connection:
        rows = policy_history(
            connection, tenant_id_of(connection, tenant), in_books(Subject(scope, name, user)), limit=limit
        )
    _print(f"Policy of {scope} {name}", rows, limit, as_json)


@app.command("set")
def set_command(
    scope: Scope,
    name: Named,
    reason: Annotated[str, typer.Option(help="Why; kept with the policy.")],
    user: User = "",
    day: Annotated[str | None, typer.Option(help="Maximum credits per UTC day.")] = None,
    month: Annotated[str | None, typer.Option(help="Maximum credits per UTC month.")] = None,
    soft_day: Annotated[str | None, typer.Option(help="Credits per UTC day above which the webhook is called.")] = None,
    soft_month: Annotated[
        str | None, typer.Option(help="Credits per UTC month above which the webhook is called.")
    ] = None,
    hard_stop: Annotated[bool, typer.Option(help="Refuse holds that would take the wallet below zero.")] = True,
    author: Annotated[str, typer.Option(help="Who sets it; kept with the policy.")] = "cli",
    valid_from: Annotated[datetime | None, typer.Option("--from", help="When it starts, UTC (default: now).")] = None,
    valid_to: Annotated[
        datetime | None, typer.Option("--to", help="When it ends, UTC; the previous policy then applies again.")
    ] = None,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Set a spending limit from now or a later time on; without a limit, end the previous limits."""
    terms = Terms(hard_stop, *(_limit(text) for text in (day, month, soft_day, soft_month)))
    for text in filter(None, (name, user)):
        require_named(text, "a name")
    validity = Validity(*(None if moment is None else moment_ns(moment) for moment in (valid_from, valid_to)))
    subject = in_books(Subject(scope, name, user))
    with closing(writable_books(database_url)) as database:
        try:
            version = database.transact(
                lambda connection: set_policy(
                    connection,
                    tenant_id_of(connection, tenant),
                    subject,
                    terms,
                    Authorship(author, reason),
                    time.time_ns(),
                    validity,
                )
            )
        except BadPolicy as error:
            raise Stop(str(error)) from None
    out.print(f"{_subject_text(scope, name, user)}: {_describe(terms)} (policy version {version}).", soft_wrap=True)


def _limit(text: str | None) -> int | None:
    try:
        return None if text is None else parse_nano(text)
    except AmountError as error:
        raise Stop(f"{text!r}: {error}") from None


def _describe(terms: Terms) -> str:
    parts = [] if terms.hard_stop else ["no stop at zero"]
    for what, limit in (
        ("{} credits a day", terms.day_limit_nano),
        ("{} credits a month", terms.month_limit_nano),
        ("webhook above {} credits a day", terms.soft_day_limit_nano),
        ("webhook above {} credits a month", terms.soft_month_limit_nano),
    ):
        if limit is not None:
            parts.append(what.format(_short(limit)))
    return ", ".join(parts) or "no limit"


def _short(nano: int | None) -> str:
    """Format an amount without trailing zeros."""
    return "" if nano is None else format_nano(nano).rstrip("0").rstrip(".")


def _subject_text(scope: str, name: str, user: str) -> str:
    return f"user {user} of wallet {name}" if user else f"{scope} {name}"


def _print(title: str, rows: Any, limit: int, as_json: bool) -> None:
    if as_json:
        print_json([_policy(row) for row in rows])
        return
    table = figure_table(title, "version", "whose", "credits a day", "credits a month", "more", "from", "to", "why")
    for row in rows:
        since, until = (None if at is None else format_ns(at)[:16] for at in (row.valid_from_ns, row.valid_to_ns))
        terms = terms_of(row)
        more = _describe(terms._replace(day_limit_nano=None, month_limit_nano=None))
        table.add_row(
            str(row.id),
            _subject_text(row.scope, row.name, row.user_id),
            _short(terms.day_limit_nano),
            _short(terms.month_limit_nano),
            "" if more == "no limit" else more,
            since,
            until,
            f"{row.reason} ({row.author})",
        )
    print_table(table, len(rows), limit)


def _policy(row: Any) -> dict[str, Any]:
    terms = terms_of(row)
    limits = {
        name.replace("_limit_nano", "_credits"): None if limit is None else format_nano(limit)
        for name, limit in terms._asdict().items()
        if name != "hard_stop"
    }
    return {
        "policy_id": str(row.id),
        "scope": row.scope,
        "name": row.name,
        "user": row.user_id,
        "hard_stop": terms.hard_stop,
        **limits,
        "valid_from": format_ns(row.valid_from_ns),
        "valid_to": None if row.valid_to_ns is None else format_ns(row.valid_to_ns),
        "author": row.author,
        "reason": row.reason,
    }
