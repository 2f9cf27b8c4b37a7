"""Wallets may be called anything printable; each can be asked for, and moved by command."""

import json
from pathlib import Path
from urllib.parse import quote

from blank import blank_sqlite
from farebox_collector.cli import app
from farebox_collector.commands.terminal import Stop
from harness import Collector
from spans import llm_span, protobuf_body
from typer.testing import CliRunner


def test_a_wallet_is_found_whatever_its_name_ends_in(shared_collector: Collector) -> None:
    api = shared_collector.api
    names = ["team", "team/lots", "team/overview", "team/links/", "/", "a b%2Fc?", "ünï/deposits"]
    assert shared_collector.export_http(protobuf_body([llm_span(wallet=name) for name in names])).status_code == 200
    for number, name in enumerate(names):
        path = f"/v1/wallets/{quote(name, safe='')}"
        assert api.get(path).json()["wallet"] == name
        body = {"amount_credits": str(number + 1)}
        made = api.post(f"{path}/deposits", json=body, headers={"Idempotency-Key": f"names-{number}"})
        assert (made.status_code, made.json()["wallet"]) == (201, name)
        (lot,) = api.get(f"{path}/lots").json()["items"]
        assert lot["amount_credits"] == f"{number + 1}.000000000"
        assert api.get(f"{path}/overview").json()["wallet"] == name
        link = api.post(f"{path}/links", json={}).json()
        assert api.get(link["path"]).json()["wallet"] == name
    # What is not encoded divides, and belongs to the name as far as no route ends in it.
    assert api.get("/v1/wallets/team/lots").json()["items"][0]["amount_credits"] == "1.000000000"
    assert api.get("/v1/wallets/ünï/deposits").json()["wallet"] == "ünï/deposits"


def test_credits_are_moved_and_holds_looked_after_by_command(tmp_path: Path) -> None:
    url = blank_sqlite(tmp_path)

    def run(*words: str, refused: bool = False) -> str:
        done = CliRunner().invoke(app, words, env={"FAREBOX_DATABASE_URL": url, "COLUMNS": "160"})
        assert isinstance(done.exception, Stop) if refused else done.exit_code == 0, done.output
        return str(done.exception) if refused else done.output

    deposit = ("wallets", "move", "ada", "deposit", "--credits", "10", "--price-usd", "8", "--key", "d")
    assert run(*deposit) == "10.000000000 credits moved; ada has 10.000000000.\n"
    assert "moved before" in run(*deposit)
    refund = ("wallets", "move", "ada", "refund", "--credits", "4", "--key", "r")
    assert "--lot is required for refunds" in run(*refund, refused=True)
    assert "ada has 6.000000000" in run(*refund, "--lot", "1")
    assert "less than that" in run("wallets", "move", "ada", "withdrawal", "--credits", "7", "--key", "w", refused=True)
    (lot,) = json.loads(run("wallets", "lots", "ada", "--json"))
    assert (lot["remaining_credits"], lot["returned_usd"]) == ("6.000000000", "3.200000000")
    assert "deposit" in run("wallets", "lots", "ada")
    collector = Collector(tmp_path / "farebox.db")
    try:
        body = {"wallet": "ada", "amount_credits": "5"}
        taken = collector.api.post("/v1/holds", json=body, headers={"Idempotency-Key": "h"})
        assert taken.status_code == 201
        assert collector.stop() == 0
    finally:
        collector.close()
    assert json.loads(run("holds", "list", "--state", "open", "--json"))[0]["open_credits"] == "5.000000000"
    hold_id = taken.json()["hold_id"]
    assert "ada has the credits again" in run("holds", "void", hold_id)
    assert "there is no hold 99" in run("holds", "void", "99", refused=True)
    assert "voided" in run("holds", "list", "--wallet", "ada")
