"""Show a customer without credits: the action is refused before it costs anything, and succeeds after a top-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import farebox
import httpx

PACK = "starter"
HELD_CREDITS = "0.5"
ATTEMPTS = 5
"""Maximum attempts to get a hold: the machine may be busy."""
TEST_CARD = "4242 4242 4242 4242"

Tell = Callable[[dict[str, Any]], None]


def first_visit(wallet: str, api_url: str, research: Callable[[], object], tell: Tell) -> None:
    """Try an action that needs credits, top up at the checkout, and retry; `tell` is called with each step.

    Raises InsufficientCredits if the top-up did not help, HoldUnavailable, httpx.HTTPStatusError if there was none.
    """
    try:
        _act(wallet, research)
    except farebox.InsufficientCredits as refusal:
        tell({"step": "refused", "detail": str(refusal)})
        tell({"step": "paid", "detail": _top_up(wallet, api_url)})
        _act(wallet, research)
    tell({"step": "done", "detail": f"with {HELD_CREDITS} credits held for it"})


def _act(wallet: str, research: Callable[[], object]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with farebox.action("agent.run", wallet=wallet, hold=HELD_CREDITS, hold_unreachable="refuse"):
                research()
            return
        except farebox.HoldUnavailable:
            if attempt == ATTEMPTS:
                raise


def _top_up(wallet: str, api_url: str) -> str:
    """Order a pack as the product, and pay for it on the checkout page as its customer."""
    with httpx.Client(timeout=20) as client:
        ordered = client.post(
            f"{api_url}/v1/wallets/{quote(wallet, safe='')}/checkout",
            json={"pack": PACK},
            headers={"Idempotency-Key": f"first-visit-{wallet}"},
        )
        order = ordered.raise_for_status().json()
        paid = client.post(order["checkout_url"], data={"card": TEST_CARD})
        if not paid.is_redirect:
            paid.raise_for_status()
    price = order["price"]
    return f"{order['credits'].rstrip('0').rstrip('.')} credits for {price['value']} {price['currency']}"
