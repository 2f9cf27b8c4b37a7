"""Take holds in groups: requests that wait together are answered in one transaction.

With one transaction per request, concurrent requests on a wallet would each wait for their own disk write.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection

from farebox_collector.intake.group_commit import GroupCommit
from farebox_collector.ledger.credits.hold_fast_path import are_plain, take_plain_holds
from farebox_collector.ledger.credits.holds import HoldAnswer, HoldRequest, take_holds
from farebox_collector.ledger.storage.database import Database, is_storage_outage

_MOST_AT_ONCE = 500


class _Request(NamedTuple):
    tenant_id: int
    request: HoldRequest


class HoldDesk:
    """Takes holds and answers once they are durable."""

    def __init__(self, database: Database, clock: Callable[[], int], *, strict: bool = False) -> None:
        self._strict = strict
        self._in_one_statement = database.changes_with
        self._database = database
        self._clock = clock
        self._committer = GroupCommit(
            self._commit, lambda request: self._commit([request])[0], lambda _: 1, _MOST_AT_ONCE, is_storage_outage
        )

    async def take(self, tenant_id: int, request: HoldRequest) -> HoldAnswer:
        """Take a hold; see `ledger.credits.holds`. Raises storage errors."""
        return await self._committer.commit(_Request(tenant_id, request))

    def close(self) -> None:
        """Answer waiting requests and stop."""
        self._committer.close()

    def _commit(self, group: Sequence[_Request]) -> Sequence[HoldAnswer]:
        if self._in_one_statement and len({one.tenant_id for one in group}) == 1:
            requests = [one.request for one in group]
            if are_plain(requests):
                take = partial(take_plain_holds, tenant_id=group[0].tenant_id, wanted=requests, at_ns=self._clock())
                answers = self._database.transact_at_once(take)
                if answers is not None:
                    return answers
        return self._database.transact(lambda connection: self._take(connection, group))

    def _take(self, connection: Connection, group: Sequence[_Request]) -> list[HoldAnswer]:
        now_ns = self._clock()
        answers: dict[int, HoldAnswer] = {}
        for tenant_id in sorted({one.tenant_id for one in group}):
            places = [place for place, one in enumerate(group) if one.tenant_id == tenant_id]
            requests = [group[place].request for place in places]
            taken = take_holds(connection, tenant_id, requests, now_ns, strict=self._strict)
            answers.update(zip(places, taken, strict=True))
        return [answers[place] for place in range(len(group))]
