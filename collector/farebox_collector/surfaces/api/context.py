"""The context shared by all API routers, and the types of amounts, names and times."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from farebox_collector.admission.rates import Rates
from farebox_collector.cache.keyring import KeyRing
from farebox_collector.ledger.access.refusals import Refusals
from farebox_collector.ledger.storage.database import Database
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.moments import to_ns
from farebox_collector.model.names import InvalidName, require_name
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
"""One line of printable characters, as all stored names are."""
NameInBooks = Annotated[Name, AfterValidator(name_in_books)]
"""A normalised wallet or user name."""


STATED_AUTHOR: str = Field(
    "",
    max_length=200,
    description="Ignored: the author is the person or the key that sends the request.",
    deprecated=True,
)
"""A field of older clients."""


class Context(NamedTuple):
    """The state and settings that API handlers use."""

    database: Database
    clock: Callable[[], int]
    """The current time in Unix nanoseconds."""
    ready: Callable[[], bool]
    """Whether all ports listen and shutdown has not begun."""
    keyring: KeyRing
    meters: Meters
    holds: HoldDesk
    payments: PaymentDesk
    refusals: Refusals
    logins: LoginDesk
    charge_exposed: tuple[str, ...] = ()
    """Tenants that are charged an estimate for calls whose end was not observed."""
    strict: bool = False
    """Whether only deposits create wallets."""
    topup_return_url: str = ""
    """The default URL to return to after a checkout."""
    topup_url: str = ""
    """The top-up URL, with `{wallet}` for the name; empty if there is none."""
    rates: Rates | None = None
    """Rate limits of callers."""
    link_max_days: int = 90
    """Maximum lifetime of a signed link, in days."""
    public_url: str = ""
    """The public base URL of this port; empty to use the request's own."""
    private_hosts: tuple[str, ...] = ()
    """Private-network hosts that webhooks may call."""

    @property
    def tenant_id(self) -> int:
        """The tenant of the current request, from its key only. Raises LookupError outside a request."""
        return caller().tenant_id


def require_named(name: str, subject: str) -> None:
    """Raise ApiError 400 for a name that no record can have; `subject` begins the message."""
    try:
        require_name(name, subject)
    except InvalidName as error:
        raise ApiError(400, str(error)) from None


def wallet_name(name: str) -> str:
    """Return the normalised wallet name of a path or body.

    Raises ApiError 400 for a name that no span can have.
    """
    require_named(name, "a wallet's name")
    return name_in_books(name)


def moment_ns(moment: datetime) -> int:
    """Convert a request's time to nanoseconds. Raises ApiError 400 if out of range."""
    try:
        return to_ns(moment)
    except ValueError as error:
        raise ApiError(400, str(error)) from None
