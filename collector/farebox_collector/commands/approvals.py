"""`farebox approvals`: proposals that wait for a second person, and the policy that requires them."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import typer
from sqlalchemy import Connection

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Limit,
    Stop,
    figure_table,
    out,
    print_json,
    print_table,
    reading_books,
    writable_books,
)
from farebox_collector.ledger.access.actors import acting
from farebox_collector.ledger.approvals import proposals
from farebox_collector.ledger.approvals.changes import execute
from farebox_collector.ledger.approvals.proposals import (
    BadApprovalPolicy,
    NoSuchApproval,
    NotPending,
    Policy,
)
from farebox_collector.model.money import AmountError, parse_nano
from farebox_collector.surfaces.api.approvals import NOT_DONE, show_approval

app = typer.Typer(help="Changes that wait for a second person.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(min=1, max=2**62, help="The number that `farebox approvals list` shows.")]


@app.command("list")
def list_command(
    state: Annotated[str, typer.Option(help="pending, executed, refused or expired (default: all).")] = "",
    limit: Limit = 100,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List changes that wait or waited for approval, newest first."""
    with reading_books(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        rows = proposals.approvals_of(connection, tenant_id, state, limit=limit)
        votes = proposals.votes_of(connection, tenant_id, [row.number for row in rows])
    shown = [show_approval(row, votes[row.number]) for row in rows]
    if as_json:
        print_json([one.model_dump() for one in shown])
        return
    table = figure_table("Approvals", "number", "what", "state", "by", "approved by", "until")
    for one in shown:
        who = " ".join(one.approved_by)
        table.add_row(str(one.approval_id), one.summary, one.state, one.author, who, one.expires_at[:19])
    print_table(table, len(shown), limit)


@app.command("approve")
def approve_command(number: Number, tenant: TenantName = "default", database_url: DatabaseUrl = None) -> None:
    """Approve a proposal and make its change. On the database you may approve your own; the audit log names you."""
    with _writing(database_url) as connection:
        now_ns = time.time_ns()
        row = proposals.approve(
            connection,
            tenant_id_of(connection, tenant),
            number,
            now_ns,
            lambda proposed: execute(connection, proposed, now_ns),
        )
    out.print(f"Proposal {number} is {row.state}: {row.summary}.", soft_wrap=True)


@app.command("refuse")
def refuse_command(
    number: Number,
    reason: Annotated[str, typer.Option(help="Why; kept with the proposal.")] = "",
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Refuse a proposal permanently."""
    with _writing(database_url) as connection:
        proposals.refuse(connection, tenant_id_of(connection, tenant), number, reason, time.time_ns())
    out.print(f"Proposal {number} is refused.")


@app.command("policy")
def policy_command(
    movements_from: Annotated[
        str, typer.Option(help="Movements of at least so many credits wait; `none` for none.")
    ] = "none",
    prices: Annotated[bool, typer.Option(help="Prices wait.")] = False,
    rules: Annotated[bool, typer.Option(help="Charge rules wait.")] = False,
    expires_hours: Annotated[int, typer.Option(help="How long a proposal waits.")] = 72,
    reason: Annotated[str, typer.Option(help="Why; kept with the policy.")] = "",
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Set which changes wait for a second person from now on; without options none do."""
    try:
        least = None if movements_from == "none" else parse_nano(movements_from)
    except AmountError as error:
        raise Stop(f"--movements-from: {error}") from None
    policy = Policy(least, prices, rules, expires_hours)
    with _writing(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        proposals.set_policy(connection, tenant_id, policy, reason, acting().author, time.time_ns())
    out.print("These changes need approval from now on." if policy.is_on else "No change needs approval from now on.")


@contextmanager
def _writing(database_url: str | None) -> Iterator[Connection]:
    try:
        with closing(writable_books(database_url)) as database, database.transaction() as connection:
            yield connection
    except NoSuchApproval as error:
        raise Stop(f"there is no proposal {error}") from None
    except (NotPending, BadApprovalPolicy) as error:
        raise Stop(str(error)) from None
    except NOT_DONE as error:
        raise Stop(f"the change is no longer possible; the proposal still waits: {error}") from None
