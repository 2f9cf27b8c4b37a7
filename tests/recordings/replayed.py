"""Records the conversations, replays them, and writes the table of docs/how-to/recordings.md.

    python tests/recordings/replayed.py

needs nothing but this repository: the model server answers on loopback.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from conversations import CONVERSATIONS, Conversation
from recorder import Recorder, write_all

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "how-to" / "recordings.md"
_SECTION = re.compile(r"(<!-- replayed -->\n).*?(<!-- /replayed -->)", re.DOTALL)


@contextmanager
def model_server() -> Iterator[str]:
    """The address of the bundled model server."""
    command = [sys.executable, str(REPOSITORY / "instrumentation" / "demo" / "model_server.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(server.stdout.readline())['port']}"
        finally:
            server.terminate()
            server.wait(10)


def record(url: str) -> list[dict[str, Any]]:
    """Every conversation once, as if the provider had answered."""
    exchanges: list[dict[str, Any]] = []
    for conversation in CONVERSATIONS:
        recorder = Recorder(conversation.host)
        with recorder.client() as http:
            conversation.call(http, url)
        (exchange,) = recorder.exchanges
        exchanges.append({**exchange, "conversation": conversation})
    return exchanges


def replay(paths: Sequence[Path], *arguments: str) -> dict[str, Any]:
    """What `farebox check-recordings --json` says of these files."""
    command = [sys.executable, "-m", "farebox_collector", "check-recordings", "--json", *arguments, *map(str, paths)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode in (0, 1), process.stderr
    said: dict[str, Any] = json.loads(process.stdout)
    return said


def is_right(conversation: Conversation, item: dict[str, Any]) -> bool:
    """Whether a call came to what the server said of it."""
    if item["outcome"] not in conversation.outcomes:
        return False
    if not conversation.tokens and not conversation.units:
        return True
    (call,) = item["calls"]
    return call["tokens"] == conversation.tokens and call["units"] == conversation.units and bool(call["cost_usd"])


def table(exchanges: Sequence[dict[str, Any]], items_by_file: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The rows of the page: by client and kind, over all formats."""
    counted: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for items in items_by_file.values():
        for item, exchange in zip(items, matching(exchanges, items), strict=True):
            conversation: Conversation = exchange["conversation"]
            count = counted[conversation.client, conversation.kind]
            count[0] += 1
            if not is_right(conversation, item):
                count[2] += 1
            elif conversation.tokens or conversation.units:
                count[1] += 1
            else:
                count[3] += 1
    rows = [
        "| client | conversation | replayed | right | wrong | not metered, as it should be |",
        "| - | - | - | - | - | - |",
    ]
    for (client, kind), count in counted.items():
        rows.append(f"| {client} | {kind} | {' | '.join(map(str, count))} |")
    sums = [sum(count[place] for count in counted.values()) for place in range(4)]
    rows.append(f"| all | | {' | '.join(map(str, sums))} |")
    return rows


def matching(exchanges: Sequence[dict[str, Any]], items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The exchanges that a file holds; a cassette in JSON has no binary ones."""
    if len(items) == len(exchanges):
        return list(exchanges)
    return [exchange for exchange in exchanges if "binary" not in exchange["conversation"].kind]


def measured() -> list[str]:
    """The table, from conversations recorded now."""
    with model_server() as url:
        exchanges = record(url)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_all(exchanges, Path(folder))
        said = replay(paths)
    by_file: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in said["items"]:
        by_file[item["file"]].append(item)
    return table(exchanges, by_file)


def main() -> None:
    """Write the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_SECTION.sub(lambda found: found[1] + "\n".join(measured()) + "\n" + found[2], text), "utf-8")


if __name__ == "__main__":
    main()
