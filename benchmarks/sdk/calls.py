"""Times calls of a model with an instrumentation on and off, in turns, in one process; prints the times as JSON.

python calls.py --instrument farebox --url http://127.0.0.1:8090

Runs in the environment of the instrumentation that it measures, so it imports nothing of this repository but that.
"""

import argparse
import gc
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

NAMES = ("farebox", "opentelemetry", "openllmetry", "openinference")
MODEL = "gpt-4o-mini"
MESSAGES: list[Any] = [{"role": "user", "content": "Hello, how are you today? " * 20}]


def switches(name: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """What turns an instrumentation on and off, the way its documentation says to."""
    if name == "farebox":
        import farebox

        return farebox.instrument, farebox.uninstrument
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
    instrumentor = OpenAIInstrumentor()
    return instrumentor.instrument, instrumentor.uninstrument


def callers(url: str) -> dict[str, Callable[[], Any]]:
    """The four kinds of call; each reads its answer to the end."""
    import openai

    try:
        import httpx2 as httpx
    except ImportError:
        import httpx

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    http = httpx.Client(base_url=f"{url}/v1")

    def openai_plain() -> None:
        client.chat.completions.create(model=MODEL, messages=MESSAGES)

    def openai_stream() -> None:
        for _ in client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        ):
            pass

    def httpx_plain() -> None:
        http.post("/chat/completions", json={"model": MODEL, "messages": MESSAGES}).json()

    def httpx_stream() -> None:
        body = {"model": MODEL, "messages": MESSAGES, "stream": True}
        with http.stream("POST", "/chat/completions", json=body) as response:
            for _ in response.iter_raw():
                pass

    return {
        "openai": openai_plain,
        "openai stream": openai_stream,
        "httpx": httpx_plain,
        "httpx stream": httpx_stream,
    }


def timed(call: Callable[[], Any], times: int) -> list[tuple[float, float]]:
    """Seconds by the clock, and seconds of this thread on the processor, of each call."""
    taken = []
    for _ in range(times):
        wall, processor = time.perf_counter(), time.thread_time()
        call()
        taken.append((time.perf_counter() - wall, time.thread_time() - processor))
    return taken


def main() -> None:
    """Off and on in turns, so that whatever else the machine does meets both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--instrument", required=True, choices=NAMES)
    parser.add_argument("--url", required=True)
    parser.add_argument("--only", action="append")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--plain", type=int, default=50, help="calls in a turn")
    parser.add_argument("--streams", type=int, default=3, help="streams in a turn")
    arguments = parser.parse_args()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = arguments.url
    os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    os.environ["FAREBOX_MODEL_URLS"] = f"{arguments.url}/v1"
    with suppress(ImportError):
        import openai  # noqa: F401, the instrumentations find it imported, as in an application
    on, off = switches(arguments.instrument)
    calls = {
        name: call for name, call in callers(arguments.url).items() if not arguments.only or name in arguments.only
    }
    times: dict[str, dict[str, list[tuple[float, float]]]] = {name: {"off": [], "on": []} for name in calls}
    for turn in range(arguments.rounds + 1):
        for state in ("off", "on") if turn % 2 else ("on", "off"):
            if state == "on":
                on()
            for name, call in calls.items():
                gc.collect()
                warm = timed(call, 3)
                taken = timed(call, arguments.streams if "stream" in name else arguments.plain)
                if turn:  # the first turn warms up
                    times[name][state] += taken
                del warm
            if state == "on":
                off()
    print(json.dumps(times))


if __name__ == "__main__":
    main()
