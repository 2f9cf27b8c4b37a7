"""Plans of coding agents: which accounts a subscription pays, since when, and what a seat costs a month. Pure.

Of the plans that may apply to an account, the one that names it most closely does. At any moment the newest version
that has begun is in force. One without a plan ends it: the account pays by the call, whatever `*` says.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

EACH = "*"
"""Each tool, or each account, without a plan of its own."""


class AgentPlan(NamedTuple):
    """One version of a plan."""

    id: int
    tool: str
    """The name of the tool's dialect, or `*`."""
    account: str
    """The developer as the books name them, or `*`."""
    plan: str
    """The plan's name, such as `max-5x`; empty if this version ends the plan."""
    seat_nanousd_per_month: int
    valid_from_ns: int


class PlanBook:
    """The plans of one tenant."""

    def __init__(self, versions: Iterable[AgentPlan]) -> None:
        """`versions` are in the order of recording."""
        self._versions: defaultdict[tuple[str, str], list[AgentPlan]] = defaultdict(list)
        for version in versions:
            self._versions[version.tool, version.account].append(version)

    def closest(self, tool: str, account: str, at_ns: int) -> AgentPlan | None:
        """Return the version that decides on an account at a moment; None if there is none.

        Without a plan in it, no plan pays the account.
        """
        for names in _candidates(tool, account):
            for version in reversed(self._versions.get(names, ())):
                if version.valid_from_ns <= at_ns:
                    return version
        return None

    def seat(self, tool: str, account: str, from_ns: int, to_ns: int) -> AgentPlan | None:
        """Return the plan that an account had last in a half-open period; None if it had none."""
        begins = {
            version.valid_from_ns
            for names in _candidates(tool, account)
            for version in self._versions.get(names, ())
            if from_ns < version.valid_from_ns < to_ns
        }
        # Between two starts nothing changes, so the moments before them are all that can differ.
        for end_ns in (to_ns, *sorted(begins, reverse=True)):
            found = self.closest(tool, account, end_ns - 1)
            if found is not None and found.plan:
                return found
        return None

    def named_seats(self) -> list[tuple[str, str]]:
        """Return the tools and accounts that plans name without `*`."""
        return sorted(pair for pair in self._versions if EACH not in pair)


def _candidates(tool: str, account: str) -> tuple[tuple[str, str], ...]:
    return (tool, account), (EACH, account), (tool, EACH), (EACH, EACH)
