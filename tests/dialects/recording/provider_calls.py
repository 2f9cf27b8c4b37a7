"""The scripted calls, made with the providers' own clients. Runs in an emitter's environment: imports late.

Every call has a span of our own around it, named like the call, in a trace of its own: by that the tests know which
spans tell of which call.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import get_tracer, get_tracer_provider

CALLS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("calls.json").read_text(encoding="utf-8"))
PROMPT = "What does the model server say?"
HELLO = [{"role": "user", "content": PROMPT}]
OPENAI_TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
ANTHROPIC_TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {}}}


def headers(name: str) -> dict[str, str]:
    """What tells the model server how to answer this call."""
    call = CALLS[name]
    return {"x-usage": call["usage"]} | ({"x-fail": call["fail"]} if "fail" in call else {})


@contextmanager
def call_span(name: str) -> Iterator[None]:
    """The span around one call; an error is expected where the call asks for one."""
    with get_tracer("farebox.recording").start_as_current_span(
        name, context=Context(), record_exception=False, set_status_on_exception=False
    ):
        try:
            yield
        except Exception as error:
            if "fail" not in CALLS[name]:
                raise
            print(f"  {name}: {type(error).__name__}, as asked for", file=sys.stderr)


def openai_calls(url: str, client_class: Callable[..., Any] | None = None, *, responses: bool = True) -> None:
    """Everything with the openai client, or a class that stands in for it."""
    if client_class is None:
        from openai import OpenAI as client_class
    client = client_class(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def chat(name: str, **more: Any) -> Any:
        return client.chat.completions.create(
            model=CALLS[name]["model"], messages=HELLO, extra_headers=headers(name), **more
        )

    for name in ("openai.chat", "openai.cache", "openai.reasoning", "openai.audio", "openai.error"):
        with call_span(name):
            chat(name)
    with call_span("openai.stream"):
        for _ in chat("openai.stream", stream=True, stream_options={"include_usage": True}):
            pass
    with call_span("openai.stream_without_usage"):
        for _ in chat("openai.stream_without_usage", stream=True):
            pass
    with call_span("openai.tool"):
        chat("openai.tool", tools=[OPENAI_TOOL])
    with call_span("openai.embeddings"):
        client.embeddings.create(
            model=CALLS["openai.embeddings"]["model"], input=PROMPT, extra_headers=headers("openai.embeddings")
        )
    if responses:
        with call_span("openai.responses"):
            client.responses.create(
                model=CALLS["openai.responses"]["model"], input=PROMPT, extra_headers=headers("openai.responses")
            )


def anthropic_calls(url: str) -> None:
    """Everything with the anthropic client."""
    from anthropic import Anthropic

    client = Anthropic(base_url=url, api_key="none", max_retries=0)

    def message(name: str, **more: Any) -> Any:
        return client.messages.create(
            model=CALLS[name]["model"], messages=HELLO, max_tokens=2000, extra_headers=headers(name), **more
        )

    for kind in ("chat", "cache", "reasoning", "search", "error"):
        with call_span(f"anthropic.{kind}"):
            message(f"anthropic.{kind}")
    for kind in ("stream", "cache_stream"):
        with call_span(f"anthropic.{kind}"):
            for _ in message(f"anthropic.{kind}", stream=True):
                pass
    with call_span("anthropic.tool"):
        message("anthropic.tool", tools=[ANTHROPIC_TOOL])


def google_calls(url: str) -> None:
    """Everything with the google-genai client."""
    from google import genai

    for kind in ("chat", "stream", "cache", "reasoning", "error"):
        name = f"google.{kind}"
        client = genai.Client(api_key="none", http_options={"base_url": url, "headers": headers(name)})
        with call_span(name):
            if kind == "stream":
                for _ in client.models.generate_content_stream(model=CALLS[name]["model"], contents=PROMPT):
                    pass
            else:
                client.models.generate_content(model=CALLS[name]["model"], contents=PROMPT)


def mistral_calls(url: str) -> None:
    """Everything with the mistralai client."""
    from mistralai.client import Mistral
    from mistralai.extra.observability import configure_telemetry

    client = Mistral(api_key="none", server_url=url)
    configure_telemetry(client, provider=get_tracer_provider())

    def chat(name: str, method: Callable[..., Any]) -> Any:
        return method(model=CALLS[name]["model"], messages=HELLO, http_headers=headers(name))

    for name in ("mistral.chat", "mistral.cache", "mistral.error"):
        with call_span(name):
            chat(name, client.chat.complete)
    with call_span("mistral.stream"), chat("mistral.stream", client.chat.stream) as events:
        for _ in events:
            pass
    with call_span("mistral.embeddings"):
        client.embeddings.create(
            model=CALLS["mistral.embeddings"]["model"], inputs=[PROMPT], http_headers=headers("mistral.embeddings")
        )
