"""An application under gunicorn, and one under Celery: metered before they fork, calling in what was forked.

``gunicorn forking:web`` serves; ``celery -A forking worker`` works, with files in ``FORKING_FOLDER`` as its queue.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import farebox
import httpx
from celery import Celery

URL = os.environ["MODEL_URL"]
FOLDER = os.environ["FORKING_FOLDER"]

farebox.instrument(model_urls=[f"{URL}/v1"])


def call(wallet: str) -> int:
    """One call of the model for a wallet; returns the process that made it."""
    with farebox.action("chat.reply", wallet=wallet):
        ask = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
        httpx.post(f"{URL}/v1/chat/completions", json=ask, headers={"x-usage": "input=70,output=30"}).raise_for_status()
    return os.getpid()


call("parent")  # so the parent has a thread and a connection, which a child must not use


def web(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application: the path is the wallet."""
    pid = call(environ["PATH_INFO"].strip("/"))
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({"pid": pid, "parent": os.getppid()}).encode()]


work = Celery("forking", broker="filesystem://", backend=f"file://{FOLDER}/results")
work.conf.broker_transport_options = {
    "data_folder_in": f"{FOLDER}/queue",
    "data_folder_out": f"{FOLDER}/queue",
    "control_folder": f"{FOLDER}/control",
}
work.conf.worker_hijack_root_logger = False


@work.task  # type: ignore[untyped-decorator]
def reply(wallet: str) -> int:
    """A task that calls the model."""
    return call(wallet)
