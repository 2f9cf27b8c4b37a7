"""The frame around every page: navigation, visitor and current location."""

from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from farebox_collector.model.credentials import Scope
from farebox_collector.surfaces.console import render
from farebox_collector.surfaces.console.visit import HOME, PageError, Visit

ACCOUNT = "/console/account"
APPROVALS = "/console/approvals"
PEOPLE = "/console/people"


class Section(NamedTuple):
    """A page of the console with its navigation text."""

    path: str
    title: str
    text: str
    scope: Scope | None
    """The scope that a visitor needs; None for all visitors."""


SECTIONS = (
    Section(APPROVALS, "Approvals", "Changes that wait for a second person.", Scope.READ),
    Section(PEOPLE, "People", "Accounts, roles, and their sessions.", Scope.ADMIN),
    Section(ACCOUNT, "Account", "Your role, your sessions, your password.", None),
)


def sections_of(visit: Visit) -> list[Section]:
    """Return the sections that a visitor may see."""
    return [section for section in SECTIONS if section.scope is None or visit.caller.may(section.scope)]


def framed(
    request: Request, visit: Visit | None, template: str, here: str, facts: dict[str, Any], status: int = 200
) -> Response:
    """Return a page in its frame; `here` is the page's path."""
    sections = [(HOME, "Home"), *((one.path, one.title) for one in sections_of(visit))] if visit else []
    frame = {"visit": visit, "sections": sections, "here": here, "notice": "", "problem": ""}
    return render.page(request, template, {**frame, **facts}, status)


def error_page(request: Request, visit: Visit | None, error: PageError) -> Response:
    """Return a page with an error and a link back."""
    back = (HOME, "To the console") if visit else ("/login", "To the login")
    facts = {"title": error.title, "detail": error.detail, "back": back[0], "back_title": back[1]}
    return framed(request, visit, "error.html", HOME, facts, error.status)
