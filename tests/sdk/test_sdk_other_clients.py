"""Other clients and other goods: google-genai, mistralai, images, sound, pages, Cohere and Bedrock, end to end."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sdk.environments import making
from sdk.sdk_support import DEMO, Metered, scope

ENVIRONMENTS = Path(__file__).parent / "environments"

TOKENS, UNITS = "gen_ai.usage.", "farebox.units."


@pytest.mark.parametrize("own", [(), ("own",)], ids=["alone", "with spans of its own"])
def test_the_clients_of_google_and_mistral(model_url: str, tmp_path: Path, own: tuple[str, ...]) -> None:
    command = [str(making.python_of("clients")), str(ENVIRONMENTS / "other_calls.py"), model_url, *own]
    process = subprocess.run(
        command, env=making.variables(), cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout)
    assert {version[:2] for version in told["clients"].values()} == {"3."}
    assert len(told["calls"]) == 10
    for name, call in told["calls"].items():
        (span,) = call["sent"]
        assert span["farebox.wallet"] == "ada"
        if own and name.startswith("mistral"):  # or this would prove nothing
            assert set(call["all_scopes"]) == {"mistralai_sdk_tracer", "opentelemetry.instrumentation.httpx"}
        if name == "mistral embeddings":
            used = {TOKENS + "input_tokens": 77}
        elif name == "mistral pages":
            used = {UNITS + "input_document_pages": 3}
        else:
            # Google's candidates leave out the thoughts.
            output = 250 if name.startswith("google") else 200
            used = {TOKENS + "input_tokens": 1000, TOKENS + "output_tokens": output}
            used[TOKENS + "cache_read.input_tokens"] = 400
        assert {key: span.get(key) for key in used} == used, name
        assert span["gen_ai.provider.name"] == ("gcp.gemini" if name.startswith("google") else "mistral_ai")
        assert span["farebox.cost_actual"] > 0, name


def test_calls_over_http_2(tmp_path: Path) -> None:
    command = [str(making.python_of("clients")), str(ENVIRONMENTS / "http2_calls.py"), str(DEMO)]
    process = subprocess.run(
        command, env=making.variables(), cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout)
    assert told["versions"] == ["HTTP/2"]
    assert min(told["lines"]) > 10, "the streams were read"
    assert len(told["sent"]) == 4
    for span in told["sent"]:
        assert (span[TOKENS + "input_tokens"], span[TOKENS + "output_tokens"]) == (1000, 200)
        assert span[TOKENS + "cache_read.input_tokens"] == 400


def headers(usage: str) -> Any:
    return {"extra_headers": {"x-usage": usage}}


def sound() -> Any:
    return ("a.mp3", io.BytesIO(b"ID3"))


IMAGE: Any = {"model": "gpt-image-1", "prompt": "A pixel"}
OPENAI: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "image by the piece": (
        lambda client: client.images.generate(model="dall-e-3", prompt="A pixel", n=2),
        {UNITS + "images": 2},
    ),
    "image by tokens": (
        lambda client: client.images.generate(**IMAGE, **headers("input=50,output=200")),
        {UNITS + "images": None, TOKENS + "input_tokens": 50, TOKENS + "output_tokens": 200},
    ),
    "image that is changed": (
        lambda client: client.images.edit(**IMAGE, image=sound(), **headers("input=50,output=200,input_image=40")),
        {TOKENS + "input_tokens": 50, "farebox.usage.input_image_tokens": 40},
    ),
    "transcript by the second": (
        lambda client: client.audio.transcriptions.create(model="whisper-1", file=sound(), **headers("seconds=60")),
        {UNITS + "audio_seconds": 60, "farebox.cost_actual": 0.006},
    ),
    "transcript by tokens": (
        lambda client: client.audio.transcriptions.create(
            model="gpt-4o-mini-transcribe", file=sound(), **headers("input=90,output=10,input_audio=80")
        ),
        {TOKENS + "input_tokens": 90, TOKENS + "output_tokens": 10, TOKENS + "audio.input_tokens": 80},
    ),
    "speech": (
        lambda client: client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there!").read(),
        {UNITS + "input_characters": 12, "farebox.cost_actual": 0.00018},
    ),
}


@pytest.mark.parametrize("name", OPENAI)
def test_images_and_sound_of_the_openai_client(metered: Metered, name: str) -> None:
    call, used = OPENAI[name]
    assert call(metered.openai())
    span = metered.span()
    attributes = dict(span.attributes or {})
    assert scope(span) == "farebox"
    assert attributes["gen_ai.operation.name"] == "generate_content"
    assert attributes["gen_ai.request.model"]
    assert {key: attributes.get(key) for key in used} == pytest.approx(used)
    assert "farebox.usage.missing" not in attributes


def test_a_large_picture_is_counted(metered: Metered) -> None:
    picture = base64.b64encode(bytes(300_000)).decode()
    body = json.dumps({"created": 1, "data": [{"b64_json": picture}, {"b64_json": picture}]})
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=body))
    with httpx.Client(transport=transport) as client:
        client.post("https://api.openai.com/v1/images/generations", json={"model": "dall-e-3", "prompt": "A pixel"})
    assert metered.attributes()[UNITS + "images"] == 2


USAGE = {TOKENS + "input_tokens": 1000, TOKENS + "output_tokens": 200, TOKENS + "cache_read.input_tokens": 400}
OUTSIDE = {**USAGE, TOKENS + "input_tokens": 1400}  # the cache beside the input
BILLED = {key: count for key, count in USAGE.items() if "cache" not in key}
"""Cohere's cache is part of the raw prompt, which it does not bill."""
CLAUDE = "anthropic.claude-haiku-4-5"
OTHERS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "cohere chat": ("/v2/chat", {"model": "command-a-03-2025", "messages": []}, "cohere", BILLED),
    "cohere stream": ("/v2/chat", {"model": "command-a-03-2025", "messages": [], "stream": True}, "cohere", BILLED),
    "cohere embed": ("/v2/embed", {"model": "embed-v4.0", "texts": ["a"]}, "cohere", {TOKENS + "input_tokens": 1000}),
    "cohere rerank": ("/v2/rerank", {"model": "rerank-v3.5"}, "cohere", {UNITS + "rerank_searches": 1}),
    "bedrock converse": (f"/model/{CLAUDE}/converse", {"messages": []}, "aws.bedrock", OUTSIDE),
    "bedrock converse stream": (f"/model/{CLAUDE}/converse-stream", {"messages": []}, "aws.bedrock", OUTSIDE),
    "bedrock invoke": (f"/model/{CLAUDE}/invoke", {"messages": []}, "aws.bedrock", OUTSIDE),
    "bedrock invoke stream": (
        f"/model/{CLAUDE}/invoke-with-response-stream",
        {"messages": []},
        "aws.bedrock",
        OUTSIDE,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_cohere_and_bedrock_over_http(metered_server: Metered, name: str) -> None:
    path, body, provider, used = OTHERS[name]
    usage = {"x-usage": "input=1000,output=200,cache_read=400,searches=1"}
    with httpx.stream("POST", metered_server.model_url + path, json=body, headers=usage) as response:
        assert response.is_success
        wire = b"".join(response.iter_raw())
    assert wire
    attributes = metered_server.attributes()
    assert {key: attributes.get(key) for key in used} == used
    assert attributes["gen_ai.provider.name"] == provider
    assert attributes["gen_ai.request.model"] == body.get("model", CLAUDE)
    if "embed" not in name and "rerank" not in name:
        assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes.get("gen_ai.request.stream", False) == ("stream" in name)
