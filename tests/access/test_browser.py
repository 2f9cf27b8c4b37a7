"""People in a real browser: they log in, see what their role shows them, and leave; forms of others are refused."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from access.conftest import PASSWORD, House, log_in, new_house
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

pytestmark = pytest.mark.timeout(90)

SESSION = "__Host-farebox"


def test_a_password_opens_the_console_and_logging_out_closes_it(house: House, browser: BrowserContext) -> None:
    page = browser.new_page()
    page.goto(house.collector.api_url + "/console/account")
    assert "/login?next=" in page.url
    page.get_by_label("Login").fill("admin")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("Wrong login or password")
    before = {cookie["value"] for cookie in browser.cookies()}
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Account", level=1)).to_be_visible()
    (cookie,) = [cookie for cookie in browser.cookies() if cookie["name"] == SESSION]
    assert cookie["value"] not in before
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (True, True, "Lax", "/")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    assert SESSION not in {kept["name"] for kept in browser.cookies()}
    # A copy of the cookie no longer gives access.
    kept = httpx2.get(house.collector.api_url + "/v1/wallets", headers={"Cookie": f"{SESSION}={cookie['value']}"})
    assert kept.status_code == 401
    assert house.refused("wrong login or password")["address"] == "127.0.0.1"


def test_roles_show_and_allow_what_they_are_for(house: House, chromium: Browser) -> None:
    """In the page and in the API, where a person's session has the scopes of the role."""
    url = house.collector.api_url
    rule = {"event": "roles", "kind": "flat", "flat_credits": "1", "reason": "a test"}
    alert: dict[str, Any] = {"alerts": []}
    may = {
        "viewer": set[str](),
        "finance": {"movement"},
        "pricing": {"rule"},
        "operator": {"alert"},
        "admin": {"movement", "rule", "alert", "people"},
    }
    for role, allowed in may.items():
        context = chromium.new_context()
        page = context.new_page()
        log_in(page, house, role)
        expect(page.get_by_role("heading", name="Console")).to_be_visible()
        assert page.get_by_role("navigation").get_by_role("link", name="People").count() == ("people" in allowed)
        token = page.request.get(url + "/v1/me").json()
        assert token["login"] == role
        headers = {"X-CSRF-Token": token["csrf_token"]}
        assert page.request.get(url + "/v1/wallets").status == 200
        tried = {
            "movement": page.request.post(
                url + "/v1/wallets/ada/movements",
                data={"type": "grant", "amount_credits": "1"},
                headers={**headers, "Idempotency-Key": role},
            ),
            "rule": page.request.post(url + "/v1/rules", data={**rule, "event": f"roles-{role}"}, headers=headers),
            "alert": page.request.post(url + "/v1/alerts/alertmanager", data=alert, headers=headers),
            "people": page.request.post(
                url + "/v1/people", data={"login": f"by-{role}", "role": "viewer"}, headers=headers
            ),
        }
        for what, response in tried.items():
            if what in allowed:
                assert response.status in (200, 201), (role, what, response.text())
            else:
                assert response.status == 403, (role, what, response.text())
        page.goto(url + "/console/people")
        heading = "People" if "people" in allowed else "Not allowed"
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        context.close()
    (made,) = house.ask("GET", "/v1/rules/history", params={"event": "roles-pricing"})["items"]
    assert made["author"] == "pricing"
    (entry,) = house.log(action="rule.set", subject="roles-pricing")
    assert entry["actor"].startswith("person:")
    assert (entry["actor_name"], entry["address"]) == ("pricing", "127.0.0.1")


def test_no_other_site_can_send_a_form_or_a_request(house: House, browser: BrowserContext) -> None:
    url = house.collector.api_url
    page = browser.new_page()
    log_in(page, house, "admin")
    expect(page.get_by_role("heading", name="Console")).to_be_visible()
    form = {"login": "eve", "role": "admin"}
    people = len(house.ask("GET", "/v1/people")["items"])
    for csrf in ({}, {"csrf": ""}, {"csrf": "0" * 64}):
        assert page.request.post(url + "/console/people", form={**form, **csrf}).status == 403
    assert page.request.post(url + "/v1/people", data=form).status == 403
    assert page.request.post(url + "/v1/people", data=form, headers={"X-CSRF-Token": "0" * 64}).status == 403
    assert page.request.post(url + "/login", form={"login": "admin", "password": PASSWORD}).status == 403
    # With the token, but from a page of another origin.
    token = page.request.get(url + "/v1/me").json()["csrf_token"]
    foreign = {"Origin": "https://evil.example", "X-CSRF-Token": token}
    assert page.request.post(url + "/v1/people", data=form, headers=foreign).status == 403
    # The token of another session is no good.
    other = browser.browser.new_context() if browser.browser else browser
    second = other.new_page()
    log_in(second, house, "admin")
    expect(second.get_by_role("heading", name="Console")).to_be_visible()
    assert second.request.post(url + "/console/people", form={**form, "csrf": token}).status == 403
    other.close()
    assert len(house.ask("GET", "/v1/people")["items"]) == people


def test_a_session_that_ends_while_a_form_is_open_takes_no_form(house: House, browser: BrowserContext) -> None:
    page = browser.new_page()
    log_in(page, house, "admin")
    page.get_by_role("navigation").get_by_role("link", name="People").click()
    page.get_by_label("Login").fill("too-late")
    for session in house.ask("GET", "/v1/sessions", params={"login": "admin"})["items"]:
        house.ask("DELETE", f"/v1/sessions/{session['session_id']}")
    page.get_by_role("button", name="Create account").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Logged out")
    assert "too-late" not in {person["login"] for person in house.ask("GET", "/v1/people")["items"]}
    page.get_by_role("link", name="To the login").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_a_person_ends_sessions_and_changes_the_password(house: House, chromium: Browser) -> None:
    house.add("sessions", "viewer")
    first, second = chromium.new_context(), chromium.new_context()
    page, other = first.new_page(), second.new_page()
    for opened in (page, other):
        log_in(opened, house, "sessions")
        expect(opened.get_by_role("heading", name="Console")).to_be_visible()
    page.goto(house.collector.api_url + "/console/account")
    page.get_by_role("button", name=re.compile("^End the session")).filter(has_text=re.compile("^End$")).click()
    expect(page.get_by_role("button", name=re.compile("^End the session"))).to_have_count(1)
    other.reload()
    expect(other.get_by_role("heading", name="Log in")).to_be_visible()
    page.get_by_label("Current password").fill("not the password")
    page.get_by_label("New password").fill("another long password")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("alert")).to_contain_text("the current password is wrong")
    page.get_by_label("Current password").fill(PASSWORD)
    page.get_by_label("New password").fill("another long password")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    log_in(page, house, "sessions", "another long password")
    expect(page.get_by_role("heading", name="Console")).to_be_visible()
    first.close()
    second.close()


def test_an_admin_makes_and_disables_an_account(house: House, browser: BrowserContext) -> None:
    page = browser.new_page()
    log_in(page, house, "admin")
    page.get_by_role("navigation").get_by_role("link", name="People").click()
    page.get_by_label("Login").fill("Grace")
    page.get_by_label("Name", exact=True).fill("<b>Grace</b>")
    page.get_by_role("button", name="Create account").click()
    password = page.get_by_role("status").locator("code").inner_text()
    expect(page.get_by_text("<b>Grace</b>")).to_be_visible()
    other = browser.browser.new_context() if browser.browser else browser
    second = other.new_page()
    log_in(second, house, "grace", password)
    expect(second.get_by_role("heading", name="Console")).to_be_visible()
    page.get_by_role("button", name="Disable grace").click()
    expect(page.get_by_role("button", name="Enable grace")).to_be_visible()
    second.reload()
    expect(second.get_by_role("heading", name="Log in")).to_be_visible()
    log_in(second, house, "grace", password)
    expect(second.get_by_role("alert")).to_contain_text("Wrong login")
    other.close()


@contextmanager
def openid_provider(users: Sequence[dict[str, Any]]) -> Iterator[str]:
    """An OpenID provider in a process of its own that knows these people; yields its issuer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    known = [f"--user-claims={json.dumps(user)}" for user in users]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", *known]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        issuer, until = f"http://127.0.0.1:{port}", time.monotonic() + 30
        while True:
            try:
                httpx2.get(f"{issuer}/.well-known/openid-configuration").raise_for_status()
                break
            except httpx2.HTTPError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
        try:
            yield issuer
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def provider_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, str]]:
    people = [
        {"sub": "s-ada", "email": "ada@example.com", "name": "Ada", "groups": ["staff", "farebox-finance"]},
        {"sub": "s-eve", "email": "eve@example.com", "groups": ["staff"]},
        {"sub": "s-admin", "preferred_username": "admin", "groups": ["farebox-admins"]},
    ]
    with openid_provider(people) as issuer:
        house = new_house(
            tmp_path_factory.mktemp("provider"),
            oidc_issuer=issuer,
            oidc_client_id="farebox",
            oidc_client_secret="a secret of the client",
            oidc_roles="farebox-finance=finance,farebox-admins=admin",
        )
        yield house, issuer
        assert house.collector.stop() == 0
        house.collector.audit()
        house.collector.close()


def at_the_provider(page: Page, house: House, subject: str) -> None:
    page.goto(house.collector.api_url + "/login?next=/console/account")
    page.get_by_role("link", name="Log in with 127.0.0.1").click()
    page.locator("input[name=sub]").fill(subject)
    page.get_by_role("button", name=re.compile("authorize|allow|log ?in", re.I)).first.click()


def test_the_openid_provider_says_who_it_is(
    provider_house: tuple[House, str], browser: BrowserContext, chromium: Browser
) -> None:
    house, issuer = provider_house
    page = browser.new_page()
    at_the_provider(page, house, "s-ada")
    expect(page.get_by_role("heading", name="Account", level=1)).to_be_visible()
    expect(page.locator("dl.facts")).to_contain_text("ada@example.com")
    expect(page.locator("dl.facts")).to_contain_text("finance")
    (person,) = [one for one in house.ask("GET", "/v1/people")["items"] if one["login"] == "ada@example.com"]
    assert (person["role"], person["has_password"], person["name"]) == ("finance", False, "Ada")
    # Again: the same account, another session.
    page.get_by_role("button", name="Log out").click()
    at_the_provider(page, house, "s-ada")
    expect(page.get_by_role("heading", name="Account", level=1)).to_be_visible()
    assert len([one for one in house.ask("GET", "/v1/people")["items"] if "ada" in one["login"]]) == 1
    assert {entry["after"]["issuer"] for entry in house.log(action="person.identity")} == {issuer}


@pytest.mark.parametrize(("subject", "why"), [("s-eve", "None of your groups"), ("s-admin", "account admin already")])
def test_who_has_no_role_or_another_account_is_refused(
    provider_house: tuple[House, str], browser: BrowserContext, subject: str, why: str
) -> None:
    """The second would take over the account `admin` that was made here, by calling itself so at the provider."""
    house, _ = provider_house
    page = browser.new_page()
    at_the_provider(page, house, subject)
    expect(page.get_by_role("alert")).to_contain_text(why)
    assert SESSION not in {cookie["name"] for cookie in browser.cookies()}


def test_a_callback_that_was_not_begun_here_is_refused(
    provider_house: tuple[House, str], browser: BrowserContext
) -> None:
    """Login CSRF: an attacker's code, state or cookie does not log the victim in."""
    house, _ = provider_house
    url = house.collector.api_url
    page = browser.new_page()
    assert page.request.get(f"{url}/login/oidc/callback?code=x&state=y").status == 403
    page.goto(url + "/login")
    begun = page.request.get(url + "/login/oidc", max_redirects=0)
    asked = dict(httpx2.URL(begun.headers["location"]).params)
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == url + "/login/oidc/callback"
    assert len(asked["state"]) >= 43
    assert len(asked["nonce"]) >= 43
    for query in ("code=x&state=other", f"code=x&state={asked['state']}&state={asked['state']}", "error=denied"):
        assert page.request.get(f"{url}/login/oidc/callback?{query}").status == 403
    # The right state with a code that the provider does not know.
    assert page.request.get(f"{url}/login/oidc/callback?code=x&state={asked['state']}").status == 403
    assert SESSION not in {cookie["name"] for cookie in browser.cookies()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_accessible_in_light_and_dark_and_on_a_phone(
    house: House, chromium: Browser, scheme: Literal["light", "dark"], width: int, tmp_path: Path
) -> None:
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    url = house.collector.api_url

    def look(name: str) -> None:
        found = Axe().run(page)
        assert found.violations_count == 0, (name, found.generate_report())
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
        page.screenshot(path=tmp_path / f"{name}-{scheme}-{width}.png", full_page=True)

    page.goto(url + "/login")
    look("login")
    log_in(page, house, "admin")
    for name in ("", "account", "people", "approvals"):
        page.goto(f"{url}/console/{name}")
        look(name or "home")
    assert errors == []
    context.close()
