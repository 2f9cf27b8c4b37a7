"""Servers that fork, and ``opentelemetry-instrument``, as the real processes that they are."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from farebox.attribution import new_action_id
from sdk.environments import making
from sdk.sdk_support import OtlpReceiver

ENVIRONMENTS = Path(__file__).parent / "environments"


@contextmanager
def forking(model_url: str, receiver: OtlpReceiver, folder: Path, *command: str, ready: str) -> Iterator[None]:
    """A command of the environment, once it has logged ``ready``; ended by SIGTERM."""
    variables = making.variables() | {
        "MODEL_URL": model_url,
        "FORKING_FOLDER": str(folder),
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
    }
    for name in ("queue", "results", "control"):
        (folder / name).mkdir()
    process = subprocess.Popen(
        [str(making.python_of("clients")), "-m", *command],
        cwd=ENVIRONMENTS,
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if ready in line:
            break
    else:
        raise AssertionError("".join(said))
    try:
        yield
    finally:
        process.terminate()
        said.append(process.communicate(timeout=120)[1])
    assert "a fault while" not in "".join(said)


def wallets(receiver: OtlpReceiver) -> Counter[str]:
    for span in receiver.spans():
        assert span["gen_ai.usage.input_tokens"] == 70
    return Counter(span["farebox.wallet"] for span in receiver.spans())


def test_the_workers_of_gunicorn_deliver_their_own_calls(
    model_url: str, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--bind", address, "--workers", "2", "--preload", "--no-control-socket")
    with forking(model_url, receiver, tmp_path, "gunicorn", *options, "forking:web", ready="Booting worker"):
        transport = httpx.HTTPTransport(retries=20)
        with httpx.Client(base_url=f"http://{address}", transport=transport, timeout=120) as client:
            answers = [client.get(f"/user-{number}").json() for number in range(6)]
    assert all(answer["pid"] != answer["parent"] for answer in answers)
    assert wallets(receiver) == Counter(["parent", *(f"user-{number}" for number in range(6))])


def test_the_children_of_celery_deliver_their_own_calls(model_url: str, receiver: OtlpReceiver, tmp_path: Path) -> None:
    options = ("-A", "forking", "worker", "--concurrency", "2", "--pool", "prefork", "--loglevel", "INFO")
    with forking(model_url, receiver, tmp_path, "celery", *options, ready="ready."):
        asking = (
            "import forking; print([r.get(timeout=120) for r in [forking.reply.delay(f'user-{n}') for n in range(6)]])"
        )
        variables = making.variables() | {"MODEL_URL": model_url, "FORKING_FOLDER": str(tmp_path)}
        asked = subprocess.run(
            [str(making.python_of("clients")), "-c", asking],
            cwd=ENVIRONMENTS,
            env=variables | {"OTEL_TRACES_EXPORTER": "none"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr
        assert len(set(json.loads(asked.stdout))) >= 1
    assert wallets(receiver) == Counter(["parent", *(f"user-{number}" for number in range(6))])


def test_opentelemetry_instrument_turns_it_on_without_code(
    model_url: str, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    application = tmp_path / "application.py"
    application.write_text(
        "import httpx, openai, sys\n"
        "ask = {'model': 'gpt-4o-mini', 'messages': [{'role': 'user', 'content': 'Hello'}]}\n"
        "usage = {'x-usage': 'input=70,output=30'}\n"
        "client = openai.OpenAI(base_url=sys.argv[1] + '/v1', api_key='none')\n"
        "client.chat.completions.create(**ask, extra_headers=usage)\n"
        "httpx.post(sys.argv[1] + '/v1/chat/completions', json=ask, headers=usage).raise_for_status()\n"
    )
    settings: Any = {
        "FAREBOX_MODEL_URLS": f"{model_url}/v1",
        "FAREBOX_TAGS": "wallet=ada,event=chat.reply",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    command = Path(sys.executable).parent / "opentelemetry-instrument"
    process = subprocess.run(
        [str(command), sys.executable, str(application), model_url],
        env={**making.variables(), "PYTHONPATH": "", **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    spans = receiver.spans()
    assert sorted(span["scope"] for span in spans) == ["farebox", "opentelemetry.instrumentation.genai.openai"]
    assert wallets(receiver) == Counter({"ada": 2})
    assert {span["service"] for span in spans} == {"shop"}


def test_a_forked_process_makes_action_ids_of_its_own() -> None:
    """Ids come from a generator that a fork would otherwise copy."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, new_action_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    theirs = os.read(read_end, 100).decode()
    os.close(read_end)
    ours = new_action_id()
    assert len(theirs) == len(ours) == 32
    assert theirs != ours
