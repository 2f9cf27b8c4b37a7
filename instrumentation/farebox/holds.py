"""Hold credits before an action spends any, over the collector's HTTP API, and release the rest.

The collector settles a hold by the action's id when it charges the calls. This module requests the hold, raises if the
wallet has too little, and voids the unused rest.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from opentelemetry.instrumentation.utils import suppress_instrumentation

from farebox import span_attributes
from farebox.guard import guarded, report

if TYPE_CHECKING:
    import requests

API_URL: Final = "FAREBOX_API_URL"
API_URL_DEFAULT: Final = "http://127.0.0.1:8080"
API_KEY: Final = "FAREBOX_API_KEY"
TIMEOUT_S: Final = 2.0
"""Maximum wait for the collector, to connect and to answer each."""

DELIVERY_S: Final = 30.0
"""How long the rest of a hold waits for the delivery of calls; after that it expires."""

Unreachable = Literal["allow", "refuse"]
"""Whether an action continues without a hold."""

_PAYMENT_REQUIRED: Final = 402
_KEY_REFUSED: Final = (401, 403)
_voiding: set[threading.Thread] = set()
_deliver: Callable[[float], bool] = lambda _timeout_s: False  # noqa: E731, until metering is on


class InsufficientCredits(Exception):
    """The wallet has less than the requested hold; nothing was spent."""

    def __init__(self, wallet: str, amount_credits: str, detail: str) -> None:
        """``amount_credits`` is the requested amount; ``detail`` is the collector's explanation."""
        super().__init__(detail or f"wallet {wallet} has less than {amount_credits} credits")
        self.wallet = wallet
        self.amount_credits = amount_credits


class HoldUnavailable(Exception):
    """The collector was unreachable or refused the key, and the terms refuse the action then."""


@dataclass(frozen=True)
class HoldTerms:
    """The hold of each action: credits as decimal text, and its lifetime."""

    amount_credits: str
    expires_in_s: int
    unreachable: Unreachable
    key_refused: Unreachable = "refuse"

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown policy: a misspelt one must not let actions pass."""
        for name, value in (("hold_unreachable", self.unreachable), ("hold_key_refused", self.key_refused)):
            if value not in ("allow", "refuse"):
                raise ValueError(f"{name} must be 'allow' or 'refuse', not {value!r}")

    def take(self, attributes: Mapping[str, str | bool]) -> Hold | None:
        """Request the hold of an action with these attributes; None if the action continues without one.

        Blocks for a few seconds at most. Raises InsufficientCredits; HoldUnavailable if the collector is unreachable or
        refuses the key and the terms refuse then.
        """
        wallet = str(attributes.get(span_attributes.WALLET, ""))
        if not wallet:
            return _without("the action names no wallet to hold credits of: name one, wallet=…", self.unreachable)
        body: dict[str, Any] = {
            "wallet": wallet,
            "amount_credits": self.amount_credits,
            "event": attributes.get(span_attributes.EVENT, ""),
            "action_id": attributes.get(span_attributes.ACTION_ID, ""),
            "expires_in_seconds": self.expires_in_s,
        }
        # Departments and projects may have limits too.
        for name, key in (("dept", span_attributes.DEPT), ("project", span_attributes.PROJECT)):
            if key in attributes:
                body[name] = attributes[key]
        unasked = ""
        try:
            answer = _post("/v1/holds", body)
            content: Any = answer.json() if answer.content else {}
        except (OSError, ValueError) as error:  # includes the HTTP library's errors
            content = None
            unasked = f"the collector could not be asked for a hold at {_base()} ({API_URL}): {_brief(error)}"
        if content is None:
            return _without(unasked, self.unreachable)
        content = content if isinstance(content, dict) else {}
        if answer.status_code in _KEY_REFUSED:
            why = (
                f"the collector refuses a hold with {answer.status_code}: set {API_KEY} to a key that may hold credits"
            )
            return _without(f"{why}. {content.get('detail', '')}".rstrip(". "), self.key_refused)
        if answer.status_code == _PAYMENT_REQUIRED:
            raise InsufficientCredits(wallet, self.amount_credits, str(content.get("detail") or ""))
        if answer.status_code not in (200, 201) or not content.get("hold_id"):
            why = f"the collector at {_base()} ({API_URL}) answered a hold with {answer.status_code}"
            return _without(f"{why}: {content.get('detail', '')}".rstrip(": "), self.unreachable)
        return Hold(str(content["hold_id"]))


def _without(why: str, policy: Unreachable) -> Hold | None:
    if policy == "refuse":
        raise HoldUnavailable(why)
    report("hold", f"{why}; the action goes on without a hold")
    return None


def _brief(error: BaseException) -> str:
    """Return the first cause of an error in one line: the HTTP library's texts name its objects."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__


@dataclass(frozen=True)
class Hold:
    """Credits that the collector holds for an action."""

    hold_id: str

    def end(self, calls: int, ended: int) -> None:
        """End the action: release the rest of its credits from a separate thread.

        The calls must be charged first, which settles their part. If one has not ended, such as a stream read outside
        the action, the rest stays until the hold expires.
        """
        if ended < calls:
            return
        thread = threading.Thread(target=self._void, args=(calls > 0,), name="farebox-void", daemon=True)
        _voiding.add(thread)
        thread.start()

    def _void(self, after_delivery: bool) -> None:
        try:
            with guarded("voiding a hold"):
                if after_delivery and not _deliver(DELIVERY_S):
                    return
                answer = _post(f"/v1/holds/{self.hold_id}/void", {})
                if answer.status_code >= 400:
                    report("void", f"the collector answered a void with {answer.status_code}; the hold will expire")
        finally:
            _voiding.discard(threading.current_thread())


def use_delivery(deliver: Callable[[float], bool]) -> None:
    """Set the function that delivers pending calls within a timeout and returns whether it did."""
    global _deliver
    _deliver = deliver


def settle(timeout_s: float) -> None:
    """Wait for pending voids, for at most this many seconds in total."""
    until_s = time.monotonic() + timeout_s
    for thread in list(_voiding):
        thread.join(max(0.0, until_s - time.monotonic()))


def _base() -> str:
    return os.environ.get(API_URL, "").strip() or API_URL_DEFAULT


def _post(path: str, body: dict[str, Any]) -> requests.Response:
    import requests  # imported only if holds are used

    headers = {"Idempotency-Key": uuid.uuid4().hex}
    if key := os.environ.get(API_KEY, "").strip():
        headers["Authorization"] = f"Bearer {key}"
    with suppress_instrumentation():
        return requests.post(_base().rstrip("/") + path, json=body, headers=headers, timeout=TIMEOUT_S)
