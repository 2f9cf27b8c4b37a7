"""`farebox receipt`: the arithmetic of a charge."""

from typing import Annotated

import typer
from rich.table import Table

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    AsJson,
    DatabaseUrl,
    Stop,
    figure_table,
    out,
    print_json,
    reading_books,
)
from farebox_collector.model.records import STANDARD
from farebox_collector.pricing.rules import COST_PLUS, describe, rule_terms
from farebox_collector.surfaces.api.receipt_check import mismatches
from farebox_collector.surfaces.api.receipt_models import (
    Receipt,
    ReceiptCharge,
    ReceiptCorrection,
    ReceiptLine,
)
from farebox_collector.surfaces.api.receipts import receipt


def receipt_command(
    trace_id: Annotated[str, typer.Argument(metavar="TRACE", help="The trace id, 32 hexadecimal digits.")],
    span_id: Annotated[str, typer.Argument(metavar="SPAN", help="The span id, 16 hexadecimal digits.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the receipt; exit with status 1 on a mismatch.")
    ] = False,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Print the arithmetic behind a call's charge."""
    trace, span = _identifier(trace_id, 16, "a trace id"), _identifier(span_id, 8, "a span id")
    with reading_books(database_url) as connection:
        found = receipt(connection, tenant_id_of(connection, tenant), trace, span)
    if found is None:
        raise Stop("there is no usage record of this span")
    wrong = mismatches(found) if verify else []
    if as_json:
        print_json(found.model_dump() | ({"verified": not wrong, "mismatches": wrong} if verify else {}))
    else:
        _show(found)
        for sentence in wrong:
            out.print(f"MISMATCH {sentence}", style="bold red")
        if verify and not wrong:
            out.print("Verified: recomputing the figures above gives the same result.")
    if wrong:
        raise typer.Exit(1)


def _identifier(text: str, size: int, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size:
        raise Stop(f"{what} must have {2 * size} hexadecimal digits")
    return value


def _show(found: Receipt) -> None:
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("call", f"{found.trace_id} {found.span_id}"),
        ("wallet", f"{found.wallet}, event {found.event}"),
        ("model", ", ".join(filter(None, (f"{found.provider}/{found.model}", *_processing(found))))),
        ("priced at", found.priced_at),
        ("verdict", f"{found.verdict}: {found.reason}" if found.reason else found.verdict),
        ("read as", ", ".join([found.dialect, *found.assumptions])),
    ):
        facts.add_row(name, value)
    out.print(facts)
    for correction in found.corrections:
        out.print(_correction(correction))
    if found.cost_usd is None or found.charge is None:
        if found.estimated_cost_usd is not None:
            _show_lines(found)
            out.print(f"estimate {found.estimated_cost_usd} USD: the call's end was not observed; not a cost.")
        out.print("Nothing was charged.")
        return
    _show_lines(found)
    charge = found.charge
    out.print(f"cost    {found.cost_usd} USD: {found.rounding}")
    out.print(f"charge  {charge.charge_credits} credits: {_rule(charge)}")


def _processing(found: Receipt) -> tuple[str, ...]:
    """Return how the provider processed the call, as far as reported."""
    region = f"in {found.inference_region}" if found.inference_region else ""
    return found.service_tier, found.speed, region


def _show_lines(found: Receipt) -> None:
    """Show billed lines and related costs."""
    table = figure_table("", "unit", "credits count", "USD per 1k", "USD", "price")
    table.columns[1].header = "count"
    labels = {part.part: f"{part.label} " for part in found.other_parts}
    for line in found.lines:
        per = "" if line.divisor == 1000 else " ÷ 3,600"
        exact = line.exact_usd if line.divisor == 1000 else f"{float(line.exact_usd):.12f}…"
        unit = labels.get(line.part, "") + line.unit
        table.add_row(unit, f"{line.count:,}", line.price.usd_per_1k + per, exact, _origin(line))
    for without in found.unpriced:
        table.add_row(labels.get(without.part, "") + without.unit, f"{without.count:,}", "", "", "no price yet")
    out.print(table)
    if found.stated_cost_usd is not None:
        listed = found.list_cost_usd or "unknown"
        out.print(f"stated  {found.stated_cost_usd} USD by the provider; by the price book {listed} USD")
    if found.at_stake_usd is not None:
        out.print(f"at stake {found.at_stake_usd} USD: the counts contradict each other")


def _correction(made: ReceiptCorrection) -> str:
    """Return a correction of the record as one line."""
    before, after = (
        verdict if cost is None else f"{verdict} at {cost} USD, {charge} credits"
        for verdict, cost, charge in (
            (made.verdict_before, made.cost_before_usd, made.charge_before_credits),
            (made.verdict_after, made.cost_after_usd, made.charge_after_credits),
        )
    )
    return f"corrected {made.recorded_at[:19]} ({made.cause}): {before} → {after}"


def _origin(line: ReceiptLine) -> str:
    """Return the price version of a line and its conditions."""
    price = line.price
    parts = [f"#{price.version_id} {price.source} {price.source_version}"]
    if price.unit != line.unit:
        parts.append(f"priced as {price.unit}")
    if price.condition != STANDARD:
        parts.append(price.condition)
    if price.over_input_tokens:
        parts.append(f"over {price.over_input_tokens:,}")
    if price.daily_from and price.daily_to:
        parts.append(f"{price.daily_from[:5]}-{price.daily_to[:5]}")
    if price.weekdays:
        parts.append(price.weekdays)
    if price.scope != "list":
        parts.append(price.scope)
    if price.original_per_1k is not None:
        parts.append(f"{price.original_per_1k} {price.currency} at {price.usd_per_currency}")
    return ", ".join(parts)


def _rule(charge: ReceiptCharge) -> str:
    """Return in words how the rule computed the charge."""
    how = describe(rule_terms(charge.kind, charge.model_dump()))
    price = f", at {charge.usd_per_credit} USD a credit" if charge.kind == COST_PLUS else ""
    parts = [f"{how}{price} (rule #{charge.rule_version_id} for {charge.rule_event}, {charge.kind})"]
    if charge.action is not None:
        parts.append(
            f"action {charge.action.action_id} is charged at least {charge.action.floor_credits}: this call's share is"
            f" {charge.action.share_credits}, {charge.action.calls_before} calls before it had"
            f" {charge.action.shares_before_credits}"
        )
    return "; ".join(parts)
