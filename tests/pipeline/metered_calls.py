"""A small application, run by test_real_clients: one call with each real client, usage fixed by the caller.

Arguments: the model server's URL. Spans go where the OTEL_… environment says.
"""

import contextlib
import sys
from typing import Any

import anthropic
import farebox
import httpx
import openai

model_url = sys.argv[1]
farebox.instrument(model_urls=[f"{model_url}/v1"])
openai_client = openai.OpenAI(base_url=f"{model_url}/v1", api_key="test", max_retries=0)
anthropic_client = anthropic.Anthropic(base_url=model_url, api_key="test", max_retries=0)
http_client = httpx.Client()
hello: Any = [{"role": "user", "content": "hello"}]


def usage(text: str) -> dict[str, str]:
    return {"x-usage": text}


with farebox.action("chat.reply", wallet="openai-plain"):
    openai_client.chat.completions.create(
        model="gpt-4o-mini", messages=hello, extra_headers=usage("input=1000,output=200,cache_read=400")
    )

with farebox.action("chat.reply", wallet="openai-stream"):
    for _ in openai_client.chat.completions.create(
        model="gpt-4o-mini",
        messages=hello,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=usage("input=10,output=20"),
    ):
        pass

with farebox.action("chat.reply", wallet="openai-stream-blind"):
    for _ in openai_client.chat.completions.create(model="gpt-4o-mini", messages=hello, stream=True):
        pass

with farebox.action("chat.reply", wallet="openai-embeddings"):
    openai_client.embeddings.create(model="text-embedding-3-small", input="hello", extra_headers=usage("input=100"))

with farebox.action("image.caption", wallet="anthropic-plain"):
    anthropic_client.messages.create(
        model="claude-sonnet-4-5",
        max_tokens=99,
        messages=hello,
        extra_headers=usage("input=1000,output=200,cache_read=400,cache_write=100,cache_write_1h=30"),
    )

with (
    farebox.action("image.caption", wallet="anthropic-stream"),
    anthropic_client.messages.stream(
        model="claude-haiku-4-5", max_tokens=99, messages=hello, extra_headers=usage("input=50,output=60")
    ) as stream,
):
    stream.get_final_text()

with farebox.action("agent.run", wallet="httpx-plain"):
    http_client.post(
        f"{model_url}/v1/chat/completions",
        json={"model": "gpt-4o", "messages": hello},
        headers=usage("input=300,output=40"),
    ).raise_for_status()

with farebox.action("agent.run", wallet="failing"), contextlib.suppress(anthropic.RateLimitError):
    anthropic_client.messages.create(
        model="claude-haiku-4-5", max_tokens=9, messages=hello, extra_headers={"x-fail": "429"}
    )

openai_client.chat.completions.create(model="gpt-4o-mini", messages=hello, extra_headers=usage("input=1,output=1"))
openai_client.chat.completions.create(model="gpt-of-tomorrow", messages=hello)

if not farebox.flush(timeout_s=30):
    sys.exit("the collector did not take all spans")
