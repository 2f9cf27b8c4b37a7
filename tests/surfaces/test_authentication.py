"""The door of the API in this process: who comes in, by which credential, with how large a body, to which wallet."""

import asyncio
from types import SimpleNamespace
from typing import Annotated, Any

import httpx2
import pytest
from farebox_collector.admission.rates import TooMuch
from farebox_collector.cache.keyring import Forbidden, TooManyUnknownKeys, Unauthenticated
from farebox_collector.ledger.access.actors import acting, actor_of
from farebox_collector.ledger.access.sessions import Found, SessionOver, csrf_token
from farebox_collector.model.credentials import (
    ALL_SCOPES,
    Caller,
    Role,
    Scope,
)
from farebox_collector.surfaces.api.callers import (
    CSRF_HEADER,
    MAX_BODY_BYTES,
    ONE_WALLET,
    OWN_WALLET,
    SESSION_COOKIE,
    Authentication,
    OwnWallet,
    caller,
    needs,
    session_csrf_token,
    wallet_parameter,
)
from farebox_collector.surfaces.api.problems import install
from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError

TOKEN = f"fbs_1_{'0' * 16}_{'s' * 43}"
READ = frozenset({Scope.READ})
KEYS = {
    "reader": Caller(1, READ, key_id="reader"),
    "payer": Caller(1, READ | {Scope.WALLETS}, key_id="payer"),
    "pricer": Caller(1, READ | {Scope.WALLETS, Scope.PRICING}, key_id="pricer"),
    "admin": Caller(1, frozenset({Scope.ADMIN}), key_id="admin"),
    "other": Caller(2, ALL_SCOPES, key_id="other"),
    "ada": Caller(1, READ, "ada", "ada"),
}
ERRORS = {
    "revoked": Unauthenticated("revoked"),
    "forbidden": Forbidden("no"),
    "flood": TooManyUnknownKeys("later"),
    "broken": OperationalError("", {}, Exception()),
    "fast": TooMuch("10 requests", 1.2),
}


class Ring:
    """Stands for the books of keys."""

    async def caller(self, token: str | None, scope: Scope | None = None) -> Caller:
        if token in ERRORS:
            raise ERRORS[token]
        if token is None or token not in KEYS:
            raise Unauthenticated("missing" if token is None else "unknown")
        return KEYS[token]


class Logins:
    """Stands for the books of sessions: one lasts."""

    lasts = True

    async def session(self, token: str) -> Found:
        if token != TOKEN or not self.lasts:
            raise SessionOver
        who = Caller(1, ALL_SCOPES, "", "", 7, "ada@example.com", "0" * 16)
        return Found(who, "Ada", Role.ADMIN, 0, 0)


class House:
    """A small API behind the door."""

    def __init__(self, **more: Any) -> None:
        self.turned_away: list[str] = []
        self.refused: list[tuple[Any, str]] = []
        self.logins = Logins()
        app = FastAPI()
        install(app)
        both = needs(Scope.READ, frozenset({Scope.WALLETS, Scope.PRICING}), or_write=Scope.ADMIN)

        @app.get("/v1/who", dependencies=[Depends(needs(Scope.READ, Scope.WALLETS).check)])
        async def who() -> dict[str, Any]:
            return {"key": caller().key_id, "actor": acting().name, "csrf": session_csrf_token()}

        @app.post("/v1/who", dependencies=[Depends(both.check)])
        async def change(request: Request) -> int:
            return len(await request.body())

        @app.get("/v1/wallets/{wallet}", dependencies=[Depends(needs(Scope.READ, Scope.WALLETS).check)])
        async def wallet(wallet: OwnWallet) -> str:
            return wallet

        @app.get("/v1/calls", dependencies=[Depends(needs(Scope.READ, Scope.WALLETS).check)])
        async def calls(wallet: Annotated[str, OWN_WALLET] = "") -> str:
            return wallet

        @app.post("/v1/open")
        @app.get("/elsewhere")
        async def elsewhere() -> bool:
            return True

        for route in app.routes:
            own = wallet_parameter(route) if isinstance(route, APIRoute) else None
            if own is not None and isinstance(route, APIRoute):
                route.openapi_extra = {ONE_WALLET: {"in": own.place, "name": own.name}}
        meters = SimpleNamespace(turned_away=lambda port, reason: self.turned_away.append(reason))
        refusals = SimpleNamespace(count=lambda attempt, address: self.refused.append((attempt, address)))
        parts: dict[str, Any] = {"refusals": refusals, "logins": self.logins, "open_paths": frozenset({"/v1/open"})}
        self.door: Any = Authentication(app, Ring(), meters, "api", **(parts | more))  # type: ignore[arg-type]

    def ask(self, method: str, path: str, key: str = "", **options: Any) -> httpx2.Response:
        headers = {**({"x-api-key": key} if key else {}), **options.pop("headers", {})}

        async def asked() -> httpx2.Response:
            transport = httpx2.ASGITransport(self.door)
            async with httpx2.AsyncClient(transport=transport, base_url="http://house") as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(asked())


@pytest.mark.parametrize(
    ("key", "status", "reason", "header"),
    [
        ("", 401, "missing", ("WWW-Authenticate", "Bearer")),
        ("nonsense", 401, "unknown", ("WWW-Authenticate", "Bearer")),
        ("revoked", 401, "revoked", ("WWW-Authenticate", "Bearer")),
        ("forbidden", 403, "scope", None),
        ("flood", 503, None, ("Retry-After", "2")),
        ("broken", 503, None, ("Retry-After", "2")),
        ("fast", 429, None, ("Retry-After", "2")),
    ],
)
def test_who_may_not_come_in_is_told_why_and_counted(
    key: str, status: int, reason: str | None, header: tuple[str, str] | None
) -> None:
    house = House()
    answer = house.ask("GET", "/v1/who", key)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert house.turned_away == ([reason] if reason else [])
    assert header is None or answer.headers[header[0]] == header[1]
    # What was refused is told to the audit log of those who run the installation.
    assert [(attempt.tenant_id, attempt.actor) for attempt, _ in house.refused] == (
        [(1, "unknown")] if status in (401, 403) else []
    )


@pytest.mark.parametrize(
    ("key", "reads", "writes"),
    [
        ("reader", 200, 403),
        ("payer", 200, 403),
        ("pricer", 200, 200),
        ("admin", 200, 200),
        ("other", 200, 200),
        ("ada", 403, 403),
    ],
)
def test_a_key_needs_one_of_the_sets_of_scopes_whole(key: str, reads: int, writes: int) -> None:
    house = House()
    assert house.ask("GET", "/v1/who", key).status_code == reads
    assert house.ask("POST", "/v1/who", key).status_code == writes
    names = [attempt.what for attempt, _ in house.refused]
    assert names == ["GET /v1/who"] * (reads == 403) + ["POST /v1/who"] * (writes == 403)
    assert [attempt.tenant_id for attempt, _ in house.refused] == [1] * len(names)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/wallets/ada", 200),
        ("/v1/wallets/bob", 403),
        ("/v1/wallets/ada?wallet=bob", 200),
        ("/v1/calls?wallet=ada", 200),
        ("/v1/calls", 403),
        ("/v1/calls?wallet=bob", 403),
        ("/v1/calls?wallet=ada&wallet=bob", 403),
        ("/v1/calls?wallet=bob&wallet=ada", 403),
        ("/v1/who", 403),
    ],
)
def test_a_key_of_one_wallet_reads_that_wallet_alone(path: str, status: int) -> None:
    house = House()
    assert house.ask("GET", path, "ada").status_code == status
    assert house.ask("GET", path, "reader").status_code == 200


def test_open_paths_and_other_prefixes_need_no_key() -> None:
    house = House()
    assert [house.ask("POST", "/v1/open").status_code, house.ask("GET", "/elsewhere").status_code] == [200, 200]
    assert house.ask("POST", "/v1/opens").status_code == 401
    assert house.ask("GET", "/elsewhere", "revoked").status_code == 200


@pytest.mark.parametrize(("size", "status"), [(0, 200), (MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_body_is_bounded_however_it_comes(size: int, status: int, pieces: int) -> None:
    async def body() -> Any:
        part = -(-size // pieces)
        for start in range(0, size, part or 1):
            yield b"x" * min(part, size - start)

    answer = House().ask("POST", "/v1/who", "pricer", content=b"x" * size if pieces == 1 else body())
    assert answer.status_code == status
    assert status != 200 or answer.json() == size


@pytest.mark.parametrize(
    ("method", "query", "header", "status"),
    [
        ("GET", "?token=payer", "", 200),
        ("GET", "?other=1&token=payer&token=nonsense", "", 200),
        ("GET", "?token=nonsense", "payer", 200),
        ("GET", "?token=payer", "nonsense", 401),
        ("HEAD", "?token=payer", "", 405),
        ("POST", "?token=pricer", "", 401),
    ],
)
def test_a_link_carries_itself_in_what_only_reads(method: str, query: str, header: str, status: int) -> None:
    assert House().ask(method, f"/v1/who{query}", header).status_code == status


@pytest.mark.parametrize(
    ("method", "csrf", "key", "lasts", "status"),
    [
        ("GET", "", "", True, 200),
        ("GET", "", "", False, 401),
        ("POST", csrf_token(TOKEN), "", True, 200),
        ("POST", "", "", True, 403),
        ("POST", csrf_token(TOKEN)[:-1] + "x", "", True, 403),
        ("POST", "", "pricer", True, 200),
        ("POST", csrf_token(TOKEN), "reader", True, 403),
    ],
)
def test_a_session_comes_in_by_its_cookie_and_changes_with_its_token(
    method: str, csrf: str, key: str, lasts: bool, status: int
) -> None:
    house = House()
    house.logins.lasts = lasts
    headers = {"cookie": f"{SESSION_COOKIE}={TOKEN}", **({CSRF_HEADER: csrf} if csrf else {})}
    answer = house.ask(method, "/v1/who", key, headers=headers)
    assert answer.status_code == status
    if method == "GET" and status == 200:
        assert answer.json() == {"key": "", "actor": "person:7", "csrf": csrf_token(TOKEN)}


def test_a_cookie_of_another_form_is_no_session() -> None:
    house = House()
    assert house.ask("GET", "/v1/who", headers={"cookie": f"{SESSION_COOKIE}=fbs_1"}).status_code == 401
    assert house.ask("GET", "/v1/who", headers={"cookie": f"other={TOKEN}"}).status_code == 401
    assert House(logins=None).ask("GET", "/v1/who", headers={"cookie": f"{SESSION_COOKIE}={TOKEN}"}).status_code == 401
    assert house.ask("GET", "/v1/who", "payer").json()["csrf"] == ""


@pytest.mark.parametrize(("key", "status"), [("reader", 200), ("other", 403), ("ada", 403), ("", 401)])
def test_a_door_of_the_installation_is_for_its_own_tenant_and_no_single_wallet(key: str, status: int) -> None:
    house = House(prefix="/", scope=Scope.READ)
    assert house.ask("GET", "/elsewhere", key).status_code == status


def test_who_acts_is_named_after_the_credential() -> None:
    person = Caller(1, READ, "", "", 7, "ada", "s")
    assert actor_of(person, "a") == ("person:7", "a", 7, "ada")
    assert actor_of(KEYS["ada"]._replace(person=7), "a")[:3] == ("key:ada", "a", 7)
    assert [actor_of(who, "").name for who in (Caller(1, READ, "ada", link_id=3), Caller(1, READ))] == [
        "link:3", "local",
    ]  # fmt: skip
