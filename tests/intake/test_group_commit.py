"""What goes into one transaction together."""

import asyncio
from collections.abc import Sequence

from farebox_collector.intake.group_commit import GroupCommit


def test_a_transaction_waits_for_half_of_what_is_coming() -> None:
    groups: list[list[str]] = []

    def commit(group: Sequence[str]) -> Sequence[str]:
        groups.append(list(group))
        return [work.upper() for work in group]

    committer = GroupCommit(commit, str.upper, len, 100, lambda _: False, max_delay_s=60)

    async def work() -> list[str]:
        with committer.coming() as none, committer.coming() as one, committer.coming() as two:
            assert (none, one, two) == (0, 1, 2)
            first = asyncio.create_task(committer.commit("first"))
            await asyncio.sleep(0)
            second = asyncio.create_task(committer.commit("second"))
            await asyncio.sleep(0)
            third = asyncio.create_task(committer.commit("third"))
            return list(await asyncio.gather(first, second, third))

    assert asyncio.run(work()) == ["FIRST", "SECOND", "THIRD"]
    committer.close()
    # The third is as many as are still coming.
    assert groups == [["first", "second", "third"]]


def test_what_is_waiting_is_committed_when_nothing_else_comes_and_when_there_is_enough() -> None:
    groups: list[int] = []

    def commit(group: Sequence[str]) -> Sequence[str]:
        groups.append(len(group))
        return group

    committer = GroupCommit(commit, str, len, 10, lambda _: False, max_delay_s=60)

    async def work() -> None:
        with committer.coming(), committer.coming(), committer.coming():
            await committer.commit("more than ten letters")
        with committer.coming():
            pass
        await committer.commit("alone")

    asyncio.run(work())
    committer.close()
    assert groups == [1, 1]


def test_nobody_waits_for_ever_for_what_somebody_else_sends() -> None:
    committer = GroupCommit(lambda group: group, str, len, 10, lambda _: False)

    async def work() -> str:
        with committer.coming(), committer.coming():
            return str(await committer.commit("alone"))

    assert asyncio.run(work()) == "alone"
    committer.close()
