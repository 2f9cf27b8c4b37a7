"""`farebox stakes`: records with a doubtful cost, and the amount at stake."""

from typing import Annotated

import typer

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
)
from farebox_collector.ledger.usage.stakes import (
    FLAGS,
    StakeFilter,
    stake_rows,
    stake_sums,
)
from farebox_collector.model.pseudonyms import name_in_books
from farebox_collector.surfaces.api.stakes import show_stake, show_sums


def stakes_command(
    flag: Annotated[str, typer.Option(help="Only records with this flag, such as exposed.")] = "",
    wallet: Annotated[str, typer.Option(help="Only records of this wallet.")] = "",
    tenant: TenantName = "default",
    limit: Limit = 50,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List records with a doubtful cost: contradictory counts, unpriced units, calls whose end was not observed."""
    if flag and flag not in FLAGS:
        raise Stop(f"unknown flag {flag!r}; choose from {', '.join(FLAGS)}")
    with reading_books(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        sums = show_sums(stake_sums(connection, tenant_id)).items
        rows = stake_rows(connection, tenant_id, StakeFilter(flag, name_in_books(wallet)), None, limit)
        shown = [show_stake(row) for row in rows]
    if as_json:
        print_json({"sums": [one.model_dump() for one in sums], "items": [one.model_dump() for one in shown]})
        return
    open_sums = [one for one in sums if one.records]
    if not open_sums:
        out.print("Nothing is at stake.")
        return
    totals = figure_table("At stake by flag", "flag", "records", "USD")
    for one in open_sums:
        totals.add_row(one.flag, f"{one.records:,}", one.at_stake_usd)
    out.print(totals)
    table = figure_table("Records", "flag", "wallet", "model", "USD", "call")
    table.columns[-1].no_wrap = True
    for stake in shown:
        model = f"{stake.provider}/{stake.model}"
        table.add_row(stake.flag, stake.wallet, model, stake.at_stake_usd, f"{stake.trace_id} {stake.span_id}")
    print_table(table, len(shown), limit)
