"""A process that calls for months: memory stays flat with every client and every outcome of a call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CALLING = """
import gc, itertools, json, os, sys
from collections.abc import Sequence
import farebox, httpx
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

class Counting(SpanExporter):
    spans = 0
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += len(spans)
        return SpanExportResult.SUCCESS

ANSWER = json.dumps({"id": "chatcmpl-NUMBER", "model": "gpt-4o-mini", "choices": [{"finish_reason": "stop"}],
    "usage": {"prompt_tokens": 70, "completion_tokens": 30}}).encode()
USAGE = b'"usage":{"prompt_tokens":7,"completion_tokens":3}'
EVENTS = b'data: {"id":"NUMBER","model":"gpt-4o","choices":[],' + USAGE + b"}\\n\\n"
PLAIN, STREAM = {"content-type": "application/json"}, {"content-type": "text/event-stream"}

numbers = itertools.count()

def answer(request):
    if b"fails" in request.content:
        raise httpx.ConnectError("gone")
    streams = b"stream" in request.content
    content = (EVENTS if streams else ANSWER).replace(b"NUMBER", str(next(numbers)).encode())
    return httpx.Response(200, headers=STREAM if streams else PLAIN, content=content)

counting = Counting()
farebox.instrument(tracer_provider=TracerProvider(shutdown_on_exit=False), exporter=counting)
client = httpx.Client(transport=httpx.MockTransport(answer))
url = "https://api.openai.com/v1/chat/completions"
plain, stream, fails = (
    client.build_request("POST", url, json={"model": "gpt-4o-mini", "messages": [], **more})
    for more in ({}, {"stream": True}, {"user": "fails"})
)

def calls(first, last):
    for number in range(first, last):
        with farebox.action("chat.reply", wallet=f"wallet-{number}"):
            if number % 10 == 0:
                client.send(stream)
            elif number % 10 == 1:
                client.send(stream, stream=True).close()
            elif number % 10 == 2:
                try:
                    client.send(fails)
                except httpx.ConnectError:
                    pass
            else:
                client.send(plain)
        if number % 2_000 == 1_999 or number == last - 1:
            assert farebox.flush(60)

def measure():
    gc.collect()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {"resident_bytes": resident, "objects": len(gc.get_objects())}

number = int(sys.argv[1])
calls(0, number // 3)
before = measure()
calls(number // 3, number)
print(json.dumps({"spans": counting.spans, "before": before, "after": measure()}))
farebox.uninstrument()
"""


def test_calls_leave_nothing_behind(tmp_path: Path) -> None:
    """What is remembered is bounded, so it may grow at first; one object in ten calls would be 400 of them.

    ``make leaks-sdk`` makes 100,000 calls.
    """
    calls = int(os.environ.get("FAREBOX_LEAK_CALLS", "6000"))
    process = subprocess.run(
        [sys.executable, "-c", CALLING, str(calls)],
        cwd=tmp_path,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout)
    print(told)
    assert told["spans"] == calls
    grown = {key: told["after"][key] - told["before"][key] for key in told["before"]}
    assert grown["objects"] < calls / 15, told
    assert grown["resident_bytes"] < 8_000_000, told
