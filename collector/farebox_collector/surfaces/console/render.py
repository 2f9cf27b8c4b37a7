"""Render pages from templates: escaped, with a strict content security policy, in the visitor's theme."""

import functools
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

THEMES = ("auto", "light", "dark")
THEME_COOKIE = "farebox-theme"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HERE = Path(__file__).parent
_YEAR_S = 31_536_000


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_HERE / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["stylesheet"] = f"/console/static/{_stylesheet()[0]}"
    return environment


def compile_templates() -> None:
    """Compile every template, so that a broken one fails at startup."""
    for name in _environment().list_templates():
        _environment().get_template(name)


@functools.cache
def _stylesheet() -> tuple[str, bytes]:
    """Return the stylesheet's content-dependent name and its content."""
    content = (_HERE / "static" / "console.css").read_bytes()
    return f"console.{hashlib.sha256(content).hexdigest()[:16]}.css", content


def static_file(name: str) -> Response | None:
    """Return a static file used by pages; None for other names."""
    known, content = _stylesheet()
    if name != known:
        return None
    headers = {"Cache-Control": f"public, max-age={_YEAR_S}, immutable"}
    return Response(content, media_type="text/css", headers=headers)


def page(request: Request, template: str, facts: dict[str, Any], status: int = 200) -> HTMLResponse:
    """A page."""
    theme = request.cookies.get(THEME_COOKIE, "auto")
    text = _environment().get_template(template).render(theme=theme if theme in THEMES else "auto", **facts)
    headers = {
        "Content-Security-Policy": CSP,
        "Cache-Control": "no-store",
        # Forms must send their origin.
        "Referrer-Policy": "same-origin",
    }
    return HTMLResponse(text, status, headers)
