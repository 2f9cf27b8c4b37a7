"""A guarded collector with people, and a browser."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from blank import blank_sqlite
from farebox_collector.model.credentials import new_token
from harness import Collector
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

PASSWORD = "correct horse battery"
ADMIN_KEY = new_token()


class House(NamedTuple):
    """A collector with keys, and an account for each role, by its name."""

    collector: Collector

    def ask(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", **options.pop("headers", {})}
        response = self.collector.api.request(method, path, headers=headers, **options).raise_for_status()
        return response.json() if response.content else None

    def add(self, login: str, role: str) -> None:
        self.ask("POST", "/v1/people", json={"login": login, "role": role, "password": PASSWORD})

    def log(self, **query: str) -> list[dict[str, Any]]:
        """The audit log, newest first."""
        return list(self.ask("GET", "/v1/audit-log", params=query)["items"])

    def refused(self, why: str) -> dict[str, Any]:
        """The entry of a refused attempt, which is written within a second."""
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            for entry in self.log(action="access", outcome="refused"):
                if why in str(entry["after"]):
                    return entry
            time.sleep(0.05)
        raise AssertionError(f"no refused attempt is logged that says {why!r}")


def new_house(directory: Path, **settings: Any) -> House:
    house = House(Collector(blank_sqlite(directory), bootstrap_key=ADMIN_KEY, audit_seconds=3600, **settings))
    for role in ("viewer", "finance", "pricing", "operator", "admin"):
        house.add(role, role)
    return house


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = new_house(tmp_path_factory.mktemp("house"))
    yield house
    assert house.collector.stop() == 0
    house.collector.audit()
    house.collector.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Chromium for the tests of one module: while Playwright runs, no other test can call `asyncio.run`."""
    expect.set_options(timeout=15_000)  # A busy machine takes more than the five seconds of the default.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser without cookies; pages that log an error to its console fail the test."""
    context = chromium.new_context()
    context.set_default_timeout(15_000)
    yield context
    context.close()


def log_in(page: Page, house: House, login: str, password: str = PASSWORD) -> None:
    page.goto(house.collector.api_url + "/login")
    page.get_by_label("Login").fill(login)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
