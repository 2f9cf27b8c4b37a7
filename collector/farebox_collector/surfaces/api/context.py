"""What every part of the API needs, and the amounts and times in the form that it shows them."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from farebox_collector.admission.rates import Rates
from farebox_collector.cache.keyring import KeyRing
from farebox_collector.dialects.text import MAX_TEXT, is_clean
from farebox_collector.ledger.access.refusals import Refusals
from farebox_collector.ledger.storage.database import Database
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.moments import to_ns
from farebox_collector.model.pseudonyms import name_in_books
from farebox_collector.payments.desk import PaymentDesk
from farebox_collector.surfaces.api.callers import caller
from farebox_collector.surfaces.api.problems import ApiError
from farebox_collector.surfaces.hold_desk import HoldDesk
from farebox_collector.surfaces.login_desk import LoginDesk

Amount = Annotated[str, Field(pattern=r"^-?\d+\.\d{9}$", examples=["1.500000000"])]
"""A decimal string with nine decimals."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


Name = Annotated[str, AfterValidator(_printable)]
"""A text to compare names with: one line of printable characters, as all names in the books are."""
NameInBooks = Annotated[Name, AfterValidator(name_in_books)]
"""The name of a wallet or a user, as the books have it."""


STATED_AUTHOR: str = Field(
    "",
    max_length=200,
    description="Ignored: the author is the person or the key that sends the request.",
    deprecated=True,
)
"""A field that older clients send."""


class Context(NamedTuple):
    """What the API works on."""

    database: Database
    clock: Callable[[], int]
    """Now, in Unix nanoseconds."""
    ready: Callable[[], bool]
    """Whether all ports listen and nothing is shutting down."""
    keyring: KeyRing
    meters: Meters
    holds: HoldDesk
    payments: PaymentDesk
    refusals: Refusals
    logins: LoginDesk
    charge_exposed: tuple[str, ...] = ()
    """Tenants that are charged the estimate of calls whose end was not seen."""
    strict: bool = False
    """Whether wallets come into being by being paid into only."""
    topup_return_url: str = ""
    """Where customers come back to from a checkout, unless a request says."""
    topup_url: str = ""
    """Where wallets are topped up, `{wallet}` for the name; empty if there is no such place."""
    rates: Rates | None = None
    """Limits on what callers may send in a time."""
    link_max_days: int = 90
    """How long a signed link works at most."""
    public_url: str = ""
    """Where people reach this port with their browsers; empty for what they ask for."""
    private_hosts: tuple[str, ...] = ()
    """Hosts of our own network that webhooks may call."""

    @property
    def tenant_id(self) -> int:
        """The tenant of the request that is being answered; its key alone says which. Raises LookupError outside."""
        return caller().tenant_id


def wallet_name(name: str) -> str:
    """A wallet's name from a path or a body, as the books have it.

    Raises ApiError 400 for one that no span could have.
    """
    if not name or not is_clean(name):
        raise ApiError(400, f"a wallet's name has 1 to {MAX_TEXT} printable characters")
    return name_in_books(name)


def moment_ns(moment: datetime) -> int:
    """A moment of a request in nanoseconds. Raises ApiError 400 where the books have no such time."""
    try:
        return to_ns(moment)
    except ValueError as error:
        raise ApiError(400, str(error)) from None
