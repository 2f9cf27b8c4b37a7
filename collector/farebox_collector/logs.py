"""Logs: one JSON object a line on stderr, with the trace id where there is one."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter


def configure(level: str) -> None:
    """Send all logging to stderr as JSON; newlines in a message are escaped by the encoding."""
    formatter = JsonFormatter(
        "%(levelname)s %(name)s %(message)s", timestamp="ts", rename_fields={"levelname": "level"}
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Uvicorn's access log would be a line a request; what happened is in the metrics.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    # Uvicorn announces each of its servers; we say once what listens where.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
