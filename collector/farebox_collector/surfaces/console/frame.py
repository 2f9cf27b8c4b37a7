"""The frame around every page: which rooms there are, who visits, and where one is."""

from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from farebox_collector.model.credentials import Scope
from farebox_collector.surfaces.console import render
from farebox_collector.surfaces.console.visit import HOME, PageError, Visit

ACCOUNT = "/console/account"
APPROVALS = "/console/approvals"
PEOPLE = "/console/people"


class Room(NamedTuple):
    """A page of the console, and what its navigation says."""

    path: str
    title: str
    text: str
    scope: Scope | None
    """What a visitor needs to see it; None for everyone."""


ROOMS = (
    Room(APPROVALS, "Approvals", "Changes that wait for a second person.", Scope.READ),
    Room(PEOPLE, "People", "Accounts, roles, and their sessions.", Scope.ADMIN),
    Room(ACCOUNT, "Account", "Your role, your sessions, your password.", None),
)


def rooms_of(visit: Visit) -> list[Room]:
    """The rooms that are open to a visitor."""
    return [room for room in ROOMS if room.scope is None or visit.caller.may(room.scope)]


def framed(
    request: Request, visit: Visit | None, template: str, here: str, facts: dict[str, Any], status: int = 200
) -> Response:
    """A page in its frame; `here` is its path."""
    open_rooms = [(HOME, "Home"), *((room.path, room.title) for room in rooms_of(visit))] if visit else []
    frame = {"visit": visit, "rooms": open_rooms, "here": here, "notice": "", "problem": ""}
    return render.page(request, template, {**frame, **facts}, status)


def error_page(request: Request, visit: Visit | None, error: PageError) -> Response:
    """What is wrong, and the way back."""
    back = (HOME, "To the console") if visit else ("/login", "To the login")
    facts = {"title": error.title, "detail": error.detail, "back": back[0], "back_title": back[1]}
    return framed(request, visit, "error.html", HOME, facts, error.status)
