"""An example product, metered: a chat, a caption service, a search and an agent, used by four customers.

    python instrumentation/demo/model_server.py --port 8090 &
    python instrumentation/demo/application.py --model-url http://127.0.0.1:8090 --calls 100

Its spans go to localhost:4317 unless OTEL_… environment variables name another target. At the end it prints one line
of JSON: the numbers of model calls and failures, and whether the collector has all their spans.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import threading
import time

import anthropic
import farebox
import httpx
import openai
from newcomer import first_visit
from opentelemetry import trace

WALLETS = ["ada", "grace", "linus", "acme-team"]
REVIEWED, APPROVED = 0.1, 0.9
"""The share of answers that a person reviews, and of those that the person approves."""
SYSTEM = "You are brief and friendly."


class Product:
    """The product's actions, each decorated with its event; the caller sets the wallet."""

    def __init__(self, model_url: str, seed: int) -> None:
        """Create ordinary clients."""
        self.openai = openai.OpenAI(base_url=f"{model_url}/v1", api_key="demo", max_retries=0)
        self.anthropic = anthropic.Anthropic(base_url=model_url, api_key="demo", max_retries=0)
        self.http = httpx.Client(base_url=f"{model_url}/v1")
        self.random = random.Random(seed)
        self.calls = 0

    @farebox.action("chat.reply", dept="support", project="help-centre", route="cheap")
    def chat_reply(self, question: str) -> str:
        """Stream from OpenAI. Without include_usage it would not report its usage."""
        stream = self.openai.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}],
            stream=True,
            stream_options={"include_usage": True},
            extra_headers=self.steering(cached=0.5),
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

    @farebox.action("image.caption", dept="catalogue", project="shop", route="vision")
    def image_caption(self, image_url: str) -> str:
        """Call Anthropic, with most of the prompt from the cache."""
        message = self.anthropic.messages.create(
            model="claude-haiku-4-5",
            max_tokens=200,
            system=[{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}],
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "source": {"type": "url", "url": image_url}},
                        {"type": "text", "text": "Write a caption."},
                    ],
                }
            ],
            extra_headers=self.steering(cached=2.0),
        )
        return "".join(block.text for block in message.content if block.type == "text")

    @farebox.action("search.answer", dept="support", project="search", route="grounded")
    def search_answer(self, question: str) -> str:
        """Make two calls in one action: an embedding to find passages, and a stream to answer from them."""
        with farebox.tags(task="retrieve"):
            self.openai.embeddings.create(
                model="text-embedding-3-small", input=question, extra_headers=self.steering(output=False)
            )
        with (
            farebox.tags(task="answer"),
            self.anthropic.messages.stream(
                model="claude-sonnet-5",
                max_tokens=500,
                messages=[{"role": "user", "content": question}],
                extra_headers=self.steering(),
            ) as stream,
        ):
            answer = stream.get_final_text()
        # A real product would check the answer against its passages.
        farebox.report_quality(citation_rate=round(self.random.uniform(0.5, 1.0), 2))
        return answer

    @farebox.action("agent.run", dept="research", project="agents", route="smart")
    def agent_run(self, goal: str) -> str:
        """Make some steps over plain HTTP, then a chat reply as a nested action."""
        for task in ("plan", "work", "check")[: self.random.randint(1, 3)]:
            with farebox.tags(task=task):
                body = {"model": "gpt-4o", "messages": [{"role": "user", "content": f"{task}: {goal}"}]}
                response = self.http.post("/chat/completions", json=body, headers=self.steering(cached=0.3))
                response.raise_for_status()
        return self.chat_reply(f"Sum up: {goal}")

    def research(self) -> None:
        """Make one call for a new customer."""
        self.calls += 1
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "What do our competitors charge?"}]}
        steering = {"x-usage": "input=1200,output=400"}
        self.http.post("/chat/completions", json=body, headers=steering).raise_for_status()

    def steering(self, cached: float = 0.0, output: bool = True) -> dict[str, str]:
        """Return headers for the bundled model server: the call's usage, and occasionally an error."""
        self.calls += 1
        tokens = self.random.randint(200, 2000)
        usage = {"input": tokens, "cache_read": int(tokens * cached * self.random.random())}
        if output:
            usage["output"] = self.random.randint(20, 600)
        headers = {"x-usage": ",".join(f"{key}={count}" for key, count in usage.items())}
        if self.random.random() < 0.03:
            headers["x-fail"] = self.random.choice(["429", "500"])
        return headers


def main() -> None:
    """Serve the four customers until the limit is reached."""
    parser = argparse.ArgumentParser(description="An example product whose LLM calls are metered.")
    parser.add_argument("--model-url", required=True, help="the URL of the model server")
    parser.add_argument("--calls", type=int, help="end after the action with this call (default: 40)")
    parser.add_argument("--seconds", type=float, help="end after this many seconds")
    parser.add_argument("--rate", type=float, help="maximum calls per second (default: unlimited)")
    parser.add_argument("--newcomer", help="start with a wallet without credits, and top it up")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same calls")
    arguments = parser.parse_args()
    model_url = arguments.model_url.rstrip("/")

    farebox.instrument(model_urls=[f"{model_url}/v1"])

    requests = trace.get_tracer("demo")  # a web framework's instrumentation would create these spans
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    calls_max = arguments.calls or (None if arguments.seconds else 40)
    product, errors, started = Product(model_url, arguments.seed), 0, time.monotonic()

    if arguments.newcomer:
        api_url = os.environ.get("FAREBOX_API_URL", "http://127.0.0.1:8080")
        first_visit(arguments.newcomer, api_url, product.research, lambda step: print(json.dumps(step), flush=True))

    while not stopping.is_set():
        if calls_max is not None and product.calls >= calls_max:
            break
        if arguments.seconds and time.monotonic() - started >= arguments.seconds:
            break
        act, subject = product.random.choice(
            [
                (product.chat_reply, "How do I reset my password?"),
                (product.image_caption, "https://example.com/teapot.png"),
                (product.search_answer, "What does the warranty cover?"),
                (product.agent_run, "compare three suppliers"),
            ]
        )
        # In a web application this line is in the middleware that knows the user.
        wallet = product.random.choice(WALLETS)
        with farebox.tags(wallet=wallet), requests.start_as_current_span("request"):
            try:
                act(subject)
                if product.random.random() < REVIEWED:
                    # In a product a person reviews later, and the report names the trace.
                    farebox.report_quality(human_reviewed=True, approved=product.random.random() < APPROVED)
            except (openai.APIStatusError, anthropic.APIStatusError, httpx.HTTPStatusError):
                errors += 1  # a real product would show an error
        if arguments.rate:
            stopping.wait(max(0.0, started + product.calls / arguments.rate - time.monotonic()))

    delivered = farebox.flush(timeout_s=10)
    print(json.dumps({"calls": product.calls, "errors": errors, "delivered": delivered}), flush=True)


if __name__ == "__main__":
    main()
