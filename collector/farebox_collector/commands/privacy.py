"""`farebox privacy`: export a person's data, and erase a person."""

import json
import os
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from farebox_collector.commands.tenants import TenantName, tenant_id_of
from farebox_collector.commands.terminal import (
    DatabaseUrl,
    Stop,
    out,
    reading_books,
    settings_from,
    writable_books,
)
from farebox_collector.ledger.privacy import erasure
from farebox_collector.ledger.privacy.erasure import Erasure, NoSuchPerson
from farebox_collector.ledger.privacy.personal_export import sections
from farebox_collector.ledger.storage.database import Database
from farebox_collector.model.moments import format_ns
from farebox_collector.model.pseudonyms import name_in_books

app = typer.Typer(help="Personal data: export a person's data, and erase a person.", no_args_is_help=True)

Wallet = Annotated[str, typer.Argument(help="The person's wallet.")]
_ROUNDS = 5


@app.command("export")
def export_command(
    wallet: Wallet,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file; it must not exist yet.")] = None,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Write all data of a wallet to a JSON file with mode 0600."""
    path = output or Path(f"privacy-export-{time.time_ns() // 10**9}.json")
    with reading_books(database_url) as connection:
        tenant_id = tenant_id_of(connection, tenant)
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            raise Stop(f"{path} already exists; name another file with --output") from None
        listed: list[dict[str, Any]] = []
        with open(file, "w", encoding="utf-8") as written:
            head = {"wallet": wallet, "tenant": tenant, "exported_at": format_ns(time.time_ns())}
            written.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "data": {')
            for number, (name, rows) in enumerate(sections(connection, tenant_id, name_in_books(wallet))):
                written.write(f"{',' if number else ''}\n{json.dumps(name)}: [")
                count = 0
                for count, row in enumerate(rows, start=1):
                    written.write(("," if count > 1 else "") + "\n" + json.dumps(row, ensure_ascii=False))
                written.write("]")
                listed.append({"section": name, "rows": count})
            written.write('},\n"sections": ' + json.dumps(listed) + "}\n")
    if not any(section["rows"] for section in listed):
        path.unlink()
        raise Stop(f"the books have no data of a wallet {wallet!r}")
    for section in listed:
        if section["rows"]:
            out.print(f"{section['rows']:>8} {section['section']}")
    out.print(f"Written to {path}.", style="green", soft_wrap=True)


@app.command("pseudonym")
def pseudonym_command(name: Annotated[str, typer.Argument(help="The name of a wallet or a user.")]) -> None:
    """Print the pseudonym of a name under FAREBOX_PSEUDONYM_KEY, to find it in reports and messages."""
    pseudonyms = settings_from().pseudonyms()
    if pseudonyms is None:
        raise Stop("pseudonyms are off; set FAREBOX_PSEUDONYM_KEY or FAREBOX_PSEUDONYM_KEY_FILE")
    out.print(pseudonyms.of(name))


@app.command("erase")
def erase_command(
    wallet: Wallet,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. An erased name cannot be restored.")] = False,
    tenant: TenantName = "default",
    database_url: DatabaseUrl = None,
) -> None:
    """Replace the names of a wallet and its users by pseudonyms everywhere; the books stay balanced."""
    if not yes:
        typer.confirm("The name cannot be restored. Erase it?", abort=True)
    with closing(writable_books(database_url)) as database:
        with database.reading() as connection:
            tenant_id = tenant_id_of(connection, tenant)
        try:
            pseudonym = _erase(database, tenant_id, name_in_books(wallet))
        except NoSuchPerson as error:
            raise Stop(str(error)) from None
    out.print(f"The wallet is {pseudonym} from now on.", style="green", soft_wrap=True)


def _erase(database: Database, tenant_id: int, wallet: str) -> str:
    """Run all steps of an erasure and return the pseudonym. Raises NoSuchPerson and Stop."""
    first = database.transact(lambda connection: erasure.begin(connection, tenant_id, wallet, time.time_ns()))
    _sweep(database, first)
    erased = first
    for _ in range(_ROUNDS):
        database.transact(lambda connection: erasure.rename(connection, erased, time.time_ns()))  # noqa: B023
        if database.shared:
            # Repeat until every collector replaces the name in incoming spans.
            time.sleep(erasure.KNOWN_AFTER_S)
        with database.reading() as connection:
            again = erasure.is_written_again(connection, erased)
        if not again:
            break
        erased = database.transact(lambda connection: erasure.begin(connection, tenant_id, wallet, time.time_ns()))
    else:
        raise Stop(f"{wallet!r} keeps arriving: stop its sender and erase it again")
    every_user = {**erased.users, **first.users}
    erased = erased._replace(users=every_user)
    _sweep(database, erased)
    database.transact(lambda connection: erasure.forget_entries(connection, erased, time.time_ns()))
    database.transact(lambda connection: erasure.end(connection, erased, time.time_ns()))
    return first.pseudonym


def _sweep(database: Database, erased: Erasure) -> None:
    for place in erasure.places():
        after: erasure.Place | None = None
        while True:
            from_here = after
            after = database.transact(lambda connection: erasure.sweep(connection, erased, place, from_here))  # noqa: B023
            if after is None:
                break
