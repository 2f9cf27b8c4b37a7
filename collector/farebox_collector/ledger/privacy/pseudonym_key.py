"""The key of the pseudonyms in the books. It is chosen once, before the first name is stored."""

from sqlalchemy import Connection, select

from farebox_collector.ledger.journal.journal import WALLET
from farebox_collector.ledger.journal.watermarks import set_watermark, watermark
from farebox_collector.ledger.tables.agents import agent_plans
from farebox_collector.ledger.tables.books import accounts, api_keys, usage_records
from farebox_collector.ledger.tables.limits import spending_policies
from farebox_collector.model.pseudonyms import Pseudonyms

_MARK = "pseudonym key"


class WrongPseudonymKey(Exception):
    """The books hold names, or pseudonyms of another key; the message says what to set. Nothing was changed."""


def require_pseudonym_key(connection: Connection, pseudonyms: Pseudonyms | None, *, writable: bool) -> None:
    """Check that settings and books have the same key; books without names adopt it. Raises WrongPseudonymKey."""
    mark = watermark(connection, _MARK)
    wanted = 0 if pseudonyms is None else pseudonyms.fingerprint
    if mark == wanted:
        return
    if not wanted:
        raise WrongPseudonymKey(
            "these books hold pseudonyms: set FAREBOX_PSEUDONYM_KEY or FAREBOX_PSEUDONYM_KEY_FILE to their key"
        )
    if mark:
        raise WrongPseudonymKey("these books hold pseudonyms of another key: set that key")
    if _has_names(connection):
        raise WrongPseudonymKey(
            "these books hold names, and pseudonyms need new books: unset FAREBOX_PSEUDONYM_KEY, or use other books"
        )
    if writable:
        set_watermark(connection, _MARK, wanted)


def _has_names(connection: Connection) -> bool:
    return any(
        connection.execute(query.limit(1)).first() is not None
        for query in (
            select(accounts.c.id).where(accounts.c.kind == WALLET),
            select(usage_records.c.id),
            select(api_keys.c.id).where(api_keys.c.wallet != ""),
            select(spending_policies.c.id).where(spending_policies.c.scope.in_(("wallet", "user"))),
            select(agent_plans.c.id).where(agent_plans.c.account != "*"),
        )
    )
