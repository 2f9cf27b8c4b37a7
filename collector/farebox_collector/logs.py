"""Log one JSON object a line to stderr, with the trace id if there is one."""

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
    # Uvicorn's access log would write a line for each request; metrics count requests instead.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    # Uvicorn announces each of its servers; the ready line names all ports once.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
