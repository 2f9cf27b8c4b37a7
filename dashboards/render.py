"""Write the dashboards' JSON beside their code: `make dashboards`. A test checks that both are equal."""

from __future__ import annotations

import json
from pathlib import Path

import finance
import operations
from grafana_foundation_sdk.cog.encoder import JSONEncoder

BOARDS = {"operations.json": operations.board, "finance.json": finance.board}


def rendered(name: str) -> str:
    """Render the JSON of a dashboard for import into Grafana."""
    return json.dumps(BOARDS[name]().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    for name in BOARDS:
        (Path(__file__).parent / name).write_text(rendered(name), encoding="utf-8")
