"""Compare the books with Stripe's lists, or with a downloaded report. Writes nothing.

Compares each payment with its returned credits, each standing refund and dispute, and each fee. Lists unmatched
payments too.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from farebox_collector.ledger.payments.payment_fees import booked_fees
from farebox_collector.ledger.payments.refunds import (
    DISPUTE,
    REFUND,
    due_now,
    out_now,
    returns_between,
    taken_returns,
)
from farebox_collector.ledger.payments.topups import TopupState, paid_between, topup_by_payment
from farebox_collector.ledger.payments.unmatched import unmatched_between
from farebox_collector.model.minor_units import decimals
from farebox_collector.payments.events import TOPUP_METADATA
from farebox_collector.payments.stripe_client import (
    FEE,
    GatewayRefused,
    Listed,
    StripeGateway,
)

PAYMENT = "payment"
_DAY_S = 86_400
_NANO = 10**9
_CATEGORIES = {"charge": PAYMENT, "refund": REFUND, "dispute": DISPUTE}
_TAKEN_BACK = {"refund_failure": REFUND, "dispute_reversal": DISPUTE}
_NEEDED = ("reporting_category", "source_id", "payment_intent_id", "created_utc", "gross", "currency")
_METADATA = f"payment_metadata[{TOPUP_METADATA}]"


class Side(StrEnum):
    """Where an item was found."""

    STRIPE = "only at Stripe"
    FAREBOX = "only in the books"
    BOTH = "different"
    UNMATCHED = "unmatched"


class Difference(NamedTuple):
    """A payment, refund, dispute or fee that differs between the books and Stripe, or that is unmatched."""

    side: Side
    kind: str
    id: str
    payment_intent: str
    currency: str
    amount_minor: int
    why: str


class BadReport(ValueError):
    """A file is not a readable report; the message says why."""


def differences(
    connection: Connection,
    tenant_id: int,
    listed: Iterable[Listed],
    start_ns: int,
    end_ns: int,
    fees_until_ns: int | None = None,
) -> list[Difference]:
    """Find items of [start, end) that are on one side only, differ, or are unmatched.

    `listed` may cover a longer time: then an item of an adjacent day is not reported as missing. Fees of items made
    after `fees_until_ns` may be missing: they are requested some time after the payment.
    """
    every = list(listed)
    items = [one for one in every if one.kind != FEE]
    ours = {one.payment_intent: topup for one in every if (topup := _topup(connection, tenant_id, one))}
    known = {row.return_id: row for row in taken_returns(connection, tenant_id, [one.id for one in items])}
    found = [difference for one in items if (difference := _compare(one, ours, known, start_ns, end_ns))]
    payments, returns = ({one.id for one in items if (one.kind == PAYMENT) is payment} for payment in (True, False))
    for row in paid_between(connection, tenant_id, start_ns, end_ns):
        if row.payment_intent not in payments:
            facts = (PAYMENT, row.payment_intent, row.payment_intent, row.currency, row.amount_minor)
            found.append(Difference(Side.FAREBOX, *facts, f"top-up {row.key} of {row.wallet}"))
    concerned = [*ours.values(), *paid_between(connection, tenant_id, start_ns, end_ns)]
    for row in {row.id: row for row in concerned}.values():
        found += _wrong_out(connection, row)
    for row in returns_between(connection, tenant_id, start_ns, end_ns):
        if row.return_id not in returns:
            facts = (row.kind, row.return_id, row.payment_intent, row.currency, row.amount_minor)
            found.append(Difference(Side.FAREBOX, *facts, "its credits were taken from the wallet"))
    fees = [one for one in every if one.kind == FEE and one.payment_intent in ours]
    inside = [one for one in fees if start_ns <= one.created_s * _NANO < end_ns]
    latest_ns = end_ns if fees_until_ns is None else fees_until_ns
    found += _fees(connection, ours, inside, fees, latest_ns)
    for one in unmatched_between(connection, tenant_id, start_ns, end_ns):
        facts = (one.kind, one.id, one.payment_intent, one.currency, one.amount_minor)
        found.append(Difference(Side.UNMATCHED, *facts, one.reason))
    return found


def _wrong_out(connection: Connection, topup: Row[Any]) -> Iterator[Difference]:
    due, found = due_now(connection, topup), out_now(connection, topup)
    if due != found:
        facts = (PAYMENT, topup.payment_intent, topup.payment_intent, topup.currency, topup.amount_minor)
        why = f"{due.returned_minor} minor units of it were returned, but the books took back {found.returned_minor}"
        if due.returned_minor == found.returned_minor:
            why = f"{due.out_nano} nanocredits must be taken from its lot, but {found.out_nano} are"
        yield Difference(Side.BOTH, *facts, why)


def _fees(
    connection: Connection,
    ours: Mapping[str, Row[Any]],
    inside: Iterable[Listed],
    every: Iterable[Listed],
    until_ns: int,
) -> Iterator[Difference]:
    """Yield fees that are not booked or booked differently, and booked fees that Stripe does not list."""
    listed_ids = {one.id for one in every}
    for payment_intent, of_payment in groupby(sorted(inside, key=_by_payment), _by_payment):
        topup = ours[payment_intent]
        booked = {row.fee_id: row for row in booked_fees(connection, topup)}
        for one in of_payment:
            row = booked.get(one.id) or _same_fee(one, booked.values())
            facts = (FEE, one.id, payment_intent, one.currency, one.amount_minor)
            if row is None:
                if one.created_s * _NANO < until_ns:
                    yield Difference(Side.STRIPE, *facts, f"the fee of top-up {topup.key} is not booked")
            elif row.reason:
                yield Difference(Side.STRIPE, *facts, f"the fee waits: {row.reason}")
            elif (row.currency, row.fee_minor) != (one.currency, one.amount_minor):
                why = f"the books have {row.fee_minor} minor units of {row.currency}"
                yield Difference(Side.BOTH, *facts, why)
        if "" not in listed_ids:
            for fee_id, row in booked.items():
                if fee_id not in listed_ids:
                    facts = (FEE, fee_id, payment_intent, row.currency, row.fee_minor)
                    yield Difference(Side.FAREBOX, *facts, f"a fee of top-up {topup.key}")


def _by_payment(one: Listed) -> str:
    return one.payment_intent


def _same_fee(one: Listed, booked: Iterable[Row[Any]]) -> Row[Any] | None:
    """Find a booked fee by amount, for a report without balance transactions."""
    if one.id:
        return None
    same = (row for row in booked if (row.currency, row.fee_minor) == (one.currency, one.amount_minor))
    return next(same, None)


def from_stripe(gateway: StripeGateway, start_ns: int, end_ns: int) -> list[Listed]:
    """List the items of [start, end) at Stripe, with a day before and after. Raises as `StripeGateway.listed` does."""
    listed = gateway.listed(start_ns // _NANO - _DAY_S, -(-end_ns // _NANO) + _DAY_S)
    # The account may have other payments than top-ups.
    return [one for one in listed if one.topup_key or one.kind != PAYMENT]


def still_unpaid(gateway: StripeGateway, found: Iterable[Difference]) -> Iterator[Difference]:
    """Drop payments that Stripe lists under another day: some take days to succeed. Raises GatewayUnavailable."""
    for one in found:
        if one.side is Side.FAREBOX and one.kind == PAYMENT:
            try:
                payment = gateway.payment(one.payment_intent)
            except (GatewayRefused, KeyError):
                yield one
                continue
            if payment.status == "succeeded" and payment.fact.amount_minor == one.amount_minor:
                continue
        yield one


def from_report(path: Path) -> list[Listed]:
    """Read Stripe's itemized report of balance changes, as CSV. Raises BadReport, OSError."""
    found: dict[tuple[str, str], Listed] = {}
    fees: list[Listed] = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
        if missing:
            raise BadReport(f"the report lacks the columns {', '.join(missing)}: download the itemized balance report")
        has_metadata = _METADATA in (rows.fieldnames or ())
        for number, row in enumerate(rows, 2):
            try:
                category = row["reporting_category"]
                if category in _CATEGORIES and not (has_metadata and category == "charge" and not row[_METADATA]):
                    one = _reported(row, _CATEGORIES[category])
                    found[one.kind, one.id] = one
                elif category in _TAKEN_BACK:
                    found.pop((_TAKEN_BACK[category], row["source_id"]), None)
                else:
                    continue
                fees += _reported_fee(row)
            except (InvalidOperation, ValueError, TypeError) as error:
                raise BadReport(f"line {number}: {error}") from None
    return [*found.values(), *fees]


def _reported_fee(row: Mapping[str, Any]) -> Iterator[Listed]:
    """The fee in a row of the report, if the report has that column."""
    if not row.get("fee") or not Decimal(row["fee"]):
        return
    currency = row["currency"].upper()
    minor = Decimal(row["fee"]).scaleb(decimals(currency))
    facts = (FEE, row.get("balance_transaction_id") or "", row["payment_intent_id"], row.get(_METADATA) or "", currency)
    yield Listed(*facts, int(minor), _seconds(row))


def _seconds(row: Mapping[str, Any]) -> int:
    return int(datetime.fromisoformat(row["created_utc"]).replace(tzinfo=UTC).timestamp())


def _reported(row: Mapping[str, Any], kind: str) -> Listed:
    facing = bool(row.get("customer_facing_currency")) and bool(row.get("customer_facing_amount"))
    currency = (row["customer_facing_currency"] if facing else row["currency"]).upper()
    amount = abs(Decimal(row["customer_facing_amount"] if facing else row["gross"]))
    minor = amount.scaleb(decimals(currency))
    if minor != minor.to_integral_value():
        raise ValueError(f"{amount} {currency} has too many decimals")
    intent = row["payment_intent_id"]
    thing_id = intent if kind == PAYMENT else row["source_id"]
    return Listed(kind, thing_id, intent, row.get(_METADATA) or "", currency, int(minor), _seconds(row))


def _topup(connection: Connection, tenant_id: int, one: Listed) -> Row[Any] | None:
    row = topup_by_payment(connection, tenant_id, one.payment_intent)
    return row if row is not None and row.state == TopupState.PAID else None


def _compare(
    one: Listed, ours: Mapping[str, Row[Any]], known: Mapping[str, Row[Any]], start_ns: int, end_ns: int
) -> Difference | None:
    topup = ours.get(one.payment_intent)
    inside = start_ns <= one.created_s * _NANO < end_ns
    facts = (one.kind, one.id, one.payment_intent, one.currency, one.amount_minor)
    if one.kind == PAYMENT:
        if topup is None:
            why = f"top-up {one.topup_key}" if one.topup_key else "no top-up in the books has this payment"
            return Difference(Side.STRIPE, *facts, why) if inside else None
        booked = (topup.currency, topup.amount_minor)
    else:
        row = known.get(one.id)
        if row is None:
            # Returns of payments that are not top-ups are not compared.
            why = f"of top-up {topup.key}" if topup is not None else ""
            return Difference(Side.STRIPE, *facts, why) if inside and topup is not None else None
        booked = (row.currency, row.amount_minor)
    if booked != (one.currency, one.amount_minor):
        return Difference(Side.BOTH, *facts, f"the books have {booked[1]} minor units of {booked[0]}")
    return None
