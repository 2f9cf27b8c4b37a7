"""What web pages may make a browser do here, what our headers tell it, and what spreadsheets make of our files."""

import csv
import io
import socket
from collections.abc import Iterator

import httpx2
import pytest
from blank import blank_sqlite
from farebox_collector.model.credentials import new_token
from farebox_collector.surfaces.api.application import documentation
from farebox_collector.surfaces.api.table_files import CellType, harmless, write_csv
from harness import Collector
from hypothesis import given
from hypothesis import strategies as st
from spans import llm_span, protobuf_body

ADMIN = new_token()


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector without keys, as on a laptop: every request that reaches its ports is accepted."""
    collector = Collector(blank_sqlite(tmp_path_factory.mktemp("pages")), allowed_hosts="farebox.example")
    yield collector
    assert collector.stop() == 0
    collector.close()


def port_of(collector: Collector) -> str:
    return collector.api_url.rpartition(":")[2]


# ---- pages of other origins


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Origin": "file://"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
    ids=str,
)
def test_a_page_of_another_origin_changes_nothing_even_without_a_body(
    keyless: Collector, headers: dict[str, str]
) -> None:
    for method, path in (
        ("POST", "/v1/wallets/ada/links"),
        ("DELETE", "/v1/links"),
        ("POST", "/v1/replays"),
        ("POST", "/v1/keys"),
    ):
        response = keyless.api.request(method, path, headers=headers)
        assert response.status_code == 403, (method, path, response.text)
    answer = keyless.export_http(protobuf_body([llm_span(wallet="forged")]), **headers)
    assert answer.status_code == 403
    assert keyless.usage(wallet="forged") == []
    assert keyless.api.get("/v1/links").json()["items"] == []


def test_our_own_pages_and_programs_are_served(keyless: Collector) -> None:
    own = keyless.api_url
    for headers in (
        {},
        {"Origin": own},
        {"Origin": own.replace("http:", "https:")},
        {"Origin": own.upper()},
        {"Origin": own, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    ):
        response = keyless.api.post("/v1/wallets/ada/links", headers=headers)
        assert response.status_code == 201, (headers, response.text)
    keyless.api.delete("/v1/links").raise_for_status()
    followed = keyless.api.get("/docs", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert followed.status_code == 200, "a link on another page may lead here"
    read = keyless.api.get("/v1/wallets", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"})
    assert read.status_code == 403


def test_a_host_is_one_name_and_nothing_else(keyless: Collector) -> None:
    port = port_of(keyless)
    good = (f"localhost:{port}", "LOCALHOST", "127.0.0.1", f"[::1]:{port}", "farebox.example", "Farebox.Example:443")
    for host in good:
        assert httpx2.get(f"{keyless.api_url}/v1/wallets", headers={"host": host}).status_code == 200, host
    bad: tuple[str, ...] = (
        "",
        "localhost:",
        "localhost:x",
        "localhost:99999",
        "localhost.",
        "localhost@evil.example",
        "[::1]evil",
    )
    bad += ("localhost/evil", "localhost:80:80", "evil.example", "[localhost]", "127.0.0.1 evil", "2130706433", "::1")
    for host in bad:
        assert httpx2.get(f"{keyless.api_url}/v1/wallets", headers={"host": host}).status_code == 400, host
    for lines in (b"", b"Host: localhost\r\nHost: evil.example\r\n", b"Host: localhost\r\nHost: localhost\r\n"):
        with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as connection:
            connection.sendall(b"GET /v1/wallets HTTP/1.1\r\nConnection: close\r\n" + lines + b"\r\n")
            assert connection.makefile("rb").readline().split()[1] == b"400", lines
    for url in (f"{keyless.otlp_url}/v1/traces", keyless.metrics_url):
        assert httpx2.post(url, headers={"host": "localhost:x"}).status_code == 400


# ---- headers


def test_every_answer_tells_browsers_to_keep_it_to_itself(keyless: Collector) -> None:
    paths = ["/readyz", "/docs", "/openapi.json", "/v1/wallets", "/v1/no-such", "/v1/wallets/missing"]
    answers = [keyless.api.get(path) for path in paths]
    answers += [keyless.api.post("/v1/wallets/ada/links"), keyless.api.post("/v1/keys", json={"name": ""})]
    answers.append(httpx2.get(keyless.metrics_url))
    for answer in answers:
        told = f"{answer.request.url} {answer.headers}"
        assert answer.headers["x-content-type-options"] == "nosniff", told
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], told
        assert answer.headers["referrer-policy"] == "no-referrer", told
        if answer.request.url.path.startswith("/v1/"):
            assert answer.headers["cache-control"] == "no-store", told
    assert "script" not in answers[3].headers["content-security-policy"]


# ---- bodies


def test_an_oversized_body_is_refused_on_every_route_that_takes_one(keyless: Collector) -> None:
    body = b'{"x": "' + b"x" * (3 * 2**20) + b'"}'

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 2**16):
            yield body[start : start + 2**16]

    tried = 0
    for path, operations in documentation()["paths"].items():
        for method, operation in operations.items():
            if "requestBody" not in operation:
                continue
            url = f"{keyless.api_url}{path.replace('{', '').replace('}', '')}"
            headers = {"Content-Type": "application/json", "Idempotency-Key": "large"}
            for content in (body, pieces()):
                answer = httpx2.request(method.upper(), url, headers=headers, content=content, timeout=30)
                assert answer.status_code == 413, (method, path, answer.text[:200])
                tried += 1
    assert tried > 30


# ---- files


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        (" =1", "' =1"),
        ("\u00a0=1", "'\u00a0=1"),
        ("\u3000=1", "'\u3000=1"),
        ("\ufeff=1", "'\ufeff=1"),
        ('"=1', "'\"=1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\uff0b1", "'\uff0b1"),
        ("\uff0d1", "'\uff0d1"),
        ("\uff20SUM", "'\uff20SUM"),
        ("\u22121", "'\u22121"),
        ("x;=1+1", "x;'=1+1"),
        ("x; =1+1", "x;' =1+1"),
        (";;@x", ";;'@x"),
        ("gpt-4o", "gpt-4o"),
        ("a=b", "a=b"),
        ("user@example.com", "user@example.com"),
        ("a; b", "a; b"),
        ("", ""),
    ],
)
def test_no_text_begins_a_formula(text: str, cell: str) -> None:
    assert harmless(text) == cell


@given(st.text(alphabet="=+-@;\t\r\n |\"' ax\uff1d\uff0b\uff20\u2212\u3000", max_size=12))
def test_no_cell_begins_a_formula_whatever_divides_the_line(text: str) -> None:
    """An oracle of its own: take the line apart at each divider, skip what spreadsheets skip, look at what is first."""
    made = harmless(text)
    for divider in ("\0", ";", "\t", "|"):
        for cell in made.replace("\r", "\n").replace("\n", divider).split(divider):
            shown = cell.strip().lstrip("\"'" if not cell.strip().startswith("'") else "")
            assert not shown.startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\u2212")), made


def test_amounts_stay_numbers() -> None:
    file = io.BytesIO()
    columns = [("event", CellType.TEXT), ("charge_credits", CellType.AMOUNT)]
    write_csv(columns, [("=x", "-1.500000000")], file)
    assert list(csv.reader(io.StringIO(file.getvalue().decode())))[1] == ["'=x", "-1.500000000"]
