"""Calls a model as it is told to, with one instrumentation on or none, and tells what each call took.

python calls.py --instrument farebox --url http://127.0.0.1:8090

Each line that it reads is ``{"kind": "openai", "times": 50}``; each that it prints has, for that turn, ``wall``, the
seconds of each call by the clock, ``thread``, its seconds of this thread on the processor, and ``process``, the seconds
of the whole process on the processor, with those of the thread that delivers the spans.

Runs in the environment of the instrumentation that it measures, so it imports nothing of this repository but that.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

MODEL = "gpt-4o-mini"
MESSAGES: list[Any] = [{"role": "user", "content": "Hello, how are you today? " * 20}]


def turn_on(name: str) -> None:
    """Turn an instrumentation on, the way its documentation says to."""
    import openai  # noqa: F401, the instrumentations find it imported, as in an application

    if name == "none":
        return
    if name == "farebox":
        import farebox

        farebox.instrument()
        return
    if name == "opentelemetry":
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
    elif name == "openllmetry":
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor
    else:
        from openinference.instrumentation.openai import OpenAIInstrumentor
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    OpenAIInstrumentor().instrument()


def in_action(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as an application of Farebox makes it: for a wallet and an event."""
    import farebox

    def paid() -> None:
        with farebox.action("chat.reply", wallet="ada"):
            call()

    return paid


def callers(url: str) -> dict[str, Callable[[], Any]]:
    """The four kinds of call; each reads its answer to the end."""
    import httpx2
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    http = httpx2.Client(base_url=f"{url}/v1")
    stream: Any = {"stream": True, "stream_options": {"include_usage": True}}

    def openai_plain() -> None:
        client.chat.completions.create(model=MODEL, messages=MESSAGES)

    def openai_stream() -> None:
        for _ in client.chat.completions.create(model=MODEL, messages=MESSAGES, **stream):
            pass

    def httpx_plain() -> None:
        http.post("/chat/completions", json={"model": MODEL, "messages": MESSAGES}).json()

    def httpx_stream() -> None:
        body = {"model": MODEL, "messages": MESSAGES, **stream}
        with http.stream("POST", "/chat/completions", json=body) as response:
            for _ in response.iter_raw():
                pass

    return {
        "openai": openai_plain,
        "openai stream": openai_stream,
        "httpx": httpx_plain,
        "httpx stream": httpx_stream,
    }


def turn(call: Callable[[], Any], times: int) -> dict[str, Any]:
    """Make so many calls, and say what they took."""
    wall, thread = [], []
    process = time.process_time()
    for _ in range(times):
        started, started_thread = time.perf_counter(), time.thread_time()
        call()
        wall.append(time.perf_counter() - started)
        thread.append(time.thread_time() - started_thread)
    return {"wall": wall, "thread": thread, "process": time.process_time() - process}


def main() -> None:
    """Take turns until there is nothing more to read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--instrument", required=True)
    parser.add_argument("--url", required=True)
    arguments = parser.parse_args()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = arguments.url
    os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    # So often that what it takes to deliver the spans falls into the turn whose calls they are of.
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    os.environ["FAREBOX_MODEL_URLS"] = f"{arguments.url}/v1"
    turn_on(arguments.instrument)
    calls = callers(arguments.url)
    if arguments.instrument == "farebox":
        calls = {name: in_action(call) for name, call in calls.items()}
    for line in sys.stdin:
        asked = json.loads(line)
        gc.collect()
        turn(calls[asked["kind"]], asked["warm"])
        print(json.dumps(turn(calls[asked["kind"]], asked["times"])), flush=True)


if __name__ == "__main__":
    main()
