"""`farebox check-recordings`: conversations come out as the server counted them; broken files say what is broken."""

from __future__ import annotations

import base64
import gzip
import json
import resource
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from farebox_collector.recordings.exchanges import ENTRY_BYTES_MAX, BrokenRecording, Exchange
from farebox_collector.recordings.files import exchanges_in

sys.path.append(str(Path(__file__).parent))

from recorder import cassette, har, write_all
from replayed import PAGE, is_right, matching, model_server, record, replay, table

ANSWER = {
    "id": "c-1",
    "model": "gpt-4o-mini",
    "choices": [{"finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}
URL = "https://api.openai.com/v1/chat/completions"


def exchange(body: bytes, **more: Any) -> dict[str, Any]:
    plain = {
        "method": "POST",
        "url": URL,
        "request_headers": [("authorization", "Bearer sk-secret"), ("content-type", "application/json")],
        "request": b'{"model": "gpt-4o-mini", "messages": []}',
        "status": 200,
        "headers": [("content-type", "application/json"), ("set-cookie", "s3cret")],
        "body": body,
    }
    return {**plain, **more}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "farebox_collector", "check-recordings", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    with model_server() as url:
        return record(url)


def test_conversations_of_real_clients_in_every_format(recorded: list[dict[str, Any]], tmp_path: Path) -> None:
    paths = write_all(recorded, tmp_path)
    said = replay(paths)
    by_file: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in said["items"]:
        by_file[item["file"]].append(item)
    assert sorted(by_file) == sorted(map(str, paths))
    for items in by_file.values():
        for item, made in zip(items, matching(recorded, items), strict=True):
            assert is_right(made["conversation"], item), (made["conversation"].kind, item)
    assert "\n".join(table(recorded, by_file)) in PAGE.read_text(encoding="utf-8"), "`make replayed` writes the table"
    everything = json.dumps(said)
    for secret in ("a secret question", "s3cret", "sk-secret", "the model server read"):
        assert secret.lower() not in everything.lower()


def test_what_a_person_is_told(tmp_path: Path) -> None:
    priced = exchange(json.dumps(ANSWER).encode())
    unpriced = exchange(json.dumps({**ANSWER, "model": "nonesuch-1"}).encode(), request=b'{"model": "nonesuch-1"}')
    other = exchange(b"{}", url="https://example.com/v1/things?token=s3cret", request=b"{}")
    (tmp_path / "t.har").write_text(har([priced, unpriced, other]))
    told = command(str(tmp_path / "t.har"))
    assert told.returncode == 1, "there is a call without a price"
    assert "read     openai gpt-4o-mini  input 9, output 3" in told.stdout
    assert "priced   $0.00000315" in told.stdout
    assert "unpriced: no price for this model" in told.stdout
    assert "example.com" not in told.stdout
    assert "example.com/v1/things" in command("--all", str(tmp_path / "t.har")).stdout
    assert "s3cret" not in told.stdout + told.stderr


def test_a_gateway_that_is_named(tmp_path: Path) -> None:
    gateway = exchange(json.dumps(ANSWER).encode(), url="https://llm.example.com/v1/chat/completions")
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(cassette([gateway])))
    told = command("--json", "--model-url", "https://llm.example.com/v1=openai", str(tmp_path / "t.yaml"))
    assert told.returncode == 0
    (known,) = json.loads(told.stdout)["items"]
    assert (known["outcome"], known["calls"][0]["provider"]) == ("right", "openai")


def test_compressed_bodies(tmp_path: Path) -> None:
    """Recorders write bodies down as they came, or decoded with the headers left as they were."""
    body = json.dumps(ANSWER).encode()
    made = []
    for encoding, sent in (("gzip", gzip.compress(body)), ("gzip", body), ("br", body), ("gzip", b"\x1f\x8b broken")):
        headers = [("content-type", "application/json"), ("content-encoding", encoding)]
        made.append(exchange(sent, headers=headers))
    (tmp_path / "t.har").write_text(har(made, in_base64=True))
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(cassette(made)))
    outcomes = [item["outcome"] for item in replay([tmp_path / "t.har", tmp_path / "t.yaml"])["items"]]
    # Of an answer that cannot be decoded nothing is known but that the provider made it.
    assert outcomes == ["right", "right", "right", "exposed"] * 2


# --- Files.


def read(path: Path, content: str | bytes) -> list[Exchange]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(exchanges_in(path))


GOOD = har([exchange(b"{}")] * 3)
YAML = yaml.safe_dump(cassette([exchange(b"{}")] * 3))


@pytest.mark.parametrize(
    ("name", "content", "entry", "says"),
    [
        ("cut.har", GOOD[: len(GOOD) * 9 // 10], 3, "the JSON is invalid or truncated"),
        ("no.har", b"\xff\xfe\x00", None, "not a recording"),
        ("empty.har", b"", None, "not a recording"),
        ("other.har", '{"log": {"entries": []}}', None, "the file has no exchanges"),
        ("list.har", "[1, 2]", None, "not a recording"),
        ("tab.yaml", YAML.replace("- request:", "- request: {\n", 1), 1, "the YAML is invalid"),
        ("object.yaml", "interactions:\n- !!python/object/apply:os.system ['true']\n", 1, "python/object"),
        ("alias.yaml", "interactions:\n- request: *nowhere\n", 1, "an undefined alias"),
    ],
)
def test_a_broken_file_names_itself_and_the_entry(
    tmp_path: Path, name: str, content: str | bytes, entry: int | None, says: str
) -> None:
    with pytest.raises(BrokenRecording) as raised:
        read(tmp_path / name, content)
    assert str(tmp_path / name) in str(raised.value)
    assert says in str(raised.value)
    if entry is not None:
        assert f", entry {entry}: " in str(raised.value)


def test_a_broken_entry_does_not_stop_the_others(tmp_path: Path) -> None:
    entries = json.loads(GOOD)
    entries["log"]["entries"][1] = {"request": {}}
    entries["log"]["entries"].append("nonsense")
    found = read(tmp_path / "t.har", json.dumps(entries))
    assert [bool(exchange.unusable) for exchange in found] == [False, True, False, True]
    base64_that_is_none = json.loads(GOOD)
    base64_that_is_none["log"]["entries"][0]["response"]["content"] = {"text": "a", "encoding": "base64"}
    first, *_ = read(tmp_path / "t.har", json.dumps(base64_that_is_none))
    assert "base64" in first.unusable


def test_a_missing_file_and_a_missing_sdk(tmp_path: Path) -> None:
    missing = command(str(tmp_path / "nothing.har"))
    assert "nothing.har: No such file" in missing.stderr
    assert missing.returncode == 1
    (tmp_path / "t.har").write_text(GOOD)
    # -I -S: an interpreter that sees no installed package.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    python.chmod(0o755)
    bare = command("--sdk-python", str(python), str(tmp_path / "t.har"))
    assert bare.returncode == 2
    assert "pip install farebox" in " ".join(bare.stderr.split())
    assert "--sdk-python" in bare.stderr
    none = command("--sdk-python", str(tmp_path / "no-python"), str(tmp_path / "t.har"))
    assert none.returncode == 2
    assert "cannot be run" in " ".join(none.stderr.split())


def test_recorders_write_the_same_thing_in_their_own_ways(tmp_path: Path) -> None:
    body = b'{"a": 1}'
    encoded = base64.b64encode(body).decode()
    request: Any = {"uri": URL, "method": "POST"}
    betamax = {"http_interactions": [{"recorded_at": "2026-11-02T10:00:00", "request": request}]}
    response: Any = {"url": URL, "status": {"code": 200, "message": "OK"}, "headers": {"Content-Type": ["text/json"]}}
    request["body"] = {"encoding": "utf-8", "base64_string": encoded}
    betamax["http_interactions"][0]["response"] = {**response, "body": {"base64_string": encoded}}
    (found,) = read(tmp_path / "betamax.json", json.dumps(betamax))
    assert (found.request, found.body, found.began_ns) == (body, body, 1_793_613_600 * 10**9)
    (found,) = read(tmp_path / "ruby.yml", "---\n" + yaml.safe_dump(betamax))
    assert (found.request, found.body) == (body, body)
    indented = "interactions:\n" + "".join(f"  {line}\n" for line in YAML.splitlines()[1:-1]) + "version: 1\n"
    assert len(read(tmp_path / "indented.yaml", indented)) == 3
    parsed = {
        "request": {"uri": URL, "method": "POST", "parsed_body": {"day": "2026-11-02"}},
        "response": {"status": {"code": 200}, "headers": {}, "parsed_body": {"a": [1, None, True]}},
    }
    text = yaml.safe_dump({"interactions": [parsed]}).replace("'", "")  # so that YAML takes the text for a date
    (found,) = read(tmp_path / "parsed.yaml", text)
    assert (json.loads(found.request), json.loads(found.body)) == ({"day": "2026-11-02"}, {"a": [1, None, True]})
    shared = YAML.replace("    method: POST", "    method: &m POST", 1).replace("    method: POST", "    method: *m")
    assert [exchange.method for exchange in read(tmp_path / "shared.yaml", shared)] == ["POST"] * 3
    assert len(read(tmp_path / "bom.har", b"\xef\xbb\xbf" + GOOD.encode())) == 3


def test_texts_that_look_like_items_stay_texts(tmp_path: Path) -> None:
    text = "- request: no\n- no item\ninteractions:\n# no comment\n"
    made = [exchange(text.encode()), exchange(b"second")]
    found = read(tmp_path / "t.yaml", yaml.safe_dump(cassette(made), default_style="|"))
    assert [exchange.body for exchange in found] == [text.encode(), b"second"]


def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    one = har([exchange(b'{"pad": "' + b"x" * 4_000_000 + b'"}')])
    head, tail = one[: one.index("[{") + 1], one[one.rindex("}]") + 1 :]
    entry = one[len(head) : -len(tail)]
    path = tmp_path / "large.har"
    with path.open("w") as file:
        file.write(head)
        file.writelines(f"{',' if number else ''}{entry}" for number in range(60))
        file.write(tail)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in exchanges_in(path)) == 60
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 120, "240 MiB were read"


def test_an_entry_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENTRY_BYTES_MAX == 64 << 20
    for module in ("files", "vcr"):
        monkeypatch.setattr(f"farebox_collector.recordings.{module}.ENTRY_BYTES_MAX", 100_000)
    big = [exchange(b"{}"), exchange(b"x" * 400_000)]
    for name, content in (("t.har", har(big)), ("t.yaml", yaml.safe_dump(cassette(big)))):
        with pytest.raises(BrokenRecording, match=r"entry [12]: the entry is longer than"):
            read(tmp_path / name, content)
