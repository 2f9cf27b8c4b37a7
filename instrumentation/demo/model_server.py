"""Simulate model providers' HTTP APIs on loopback; the caller sets the usage.

    python instrumentation/demo/model_server.py --port 0

prints ``{"port": N}`` on one line once it listens. SIGTERM or SIGINT ends it with status 0.

Paths, as at the providers: ``/v1/chat/completions``, ``/v1/responses``, ``/v1/embeddings`` (OpenAI, Mistral),
``/v1/images/generations`` and ``/edits``, ``/v1/audio/transcriptions``, ``/translations`` and ``/speech`` (OpenAI),
``/v1/ocr`` (Mistral), ``/v1/messages`` (Anthropic), ``/v1/models/MODEL:generateContent``, also under ``/v1beta``
(Google), ``/v2/chat``, ``/embed`` and ``/rerank``, also under ``/v1`` (Cohere), ``/model/MODEL/converse`` and
``/invoke`` (Amazon Bedrock). Chats also stream: as server-sent events for ``"stream": true`` or, at Google,
``:streamGenerateContent``, and in Amazon's own way behind ``/converse-stream`` and
``/invoke-with-response-stream``. The model of the response is the model of the request. A request with tools gets a
call of the first, without arguments, until it includes the result (chat completions and messages, not streamed).

Request headers control the answer:

``x-usage: input=1000,output=200,cache_read=400,cache_write=0,cache_write_1h=0,reasoning=50``
    The numbers go unchanged into the provider's own fields. So with OpenAI ``input`` *includes*
    ``cache_read`` and ``cache_write``, and with Anthropic ``input`` *excludes* both, as at the real APIs.
    ``cache_write_1h`` is the part of ``cache_write`` kept for an hour (Anthropic only). ``reasoning``
    is a part of ``output``, except at Google, whose candidates do not count the thoughts. ``input_audio`` and
    ``output_audio`` are parts of ``input`` and ``output`` (OpenAI's chat), ``input_image`` of ``input`` (images).
    ``web_searches=2`` (Anthropic only), ``seconds`` (whisper), ``pages`` (OCR), ``searches`` (rerank). Keys left out
    are 0. Without the header: one token per four characters.
``x-fail: 429``
    Answers with that status and the provider's own error body.
``x-latency-ms: 250``
    Waits that long before the first byte.
``x-response-id: msg_1``
    The id of the response; by default every response has a unique id.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import FrameType

import uvicorn
from google_answers import google_content, google_embeddings, google_error, google_events
from model_answers import (
    Call,
    Json,
    Usage,
    anthropic_error,
    anthropic_events,
    anthropic_message,
    openai_chat,
    openai_chat_events,
    openai_embeddings,
    openai_error,
    openai_response,
    openai_response_events,
)
from other_answers import (
    SOUND,
    bedrock_converse,
    bedrock_converse_events,
    bedrock_error,
    bedrock_invocation,
    bedrock_invocation_events,
    cohere_chat,
    cohere_embeddings,
    cohere_error,
    cohere_events,
    cohere_ranks,
    mistral_pages,
    openai_images,
    openai_transcript,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

CHARACTERS_PER_TOKEN = 4
FORM_FIELD = re.compile(rb'name="(\w+)"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)\r\n--')


class BadRequest(Exception):
    """The provider would refuse the request."""


async def read_call(request: Request, id_prefix: str) -> Call:
    """Read the path, the body (or form) and the control headers. Raises BadRequest."""
    content = await request.body()
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        body = {name.decode(): value.decode() for name, value in FORM_FIELD.findall(content)}
    else:
        try:
            body = json.loads(content)
        except ValueError as error:
            raise BadRequest("We could not parse the JSON body of your request.") from error
    if not isinstance(body, dict):
        raise BadRequest("the body is not an object")
    model = request.path_params.get("model", body.get("model"))
    if not isinstance(model, str):
        raise BadRequest("you must provide a model parameter")
    prompt = body.get("messages", body.get("input", body.get("contents", "")))
    prompt_characters = len(prompt if isinstance(prompt, str) else json.dumps(prompt))
    reply = f"The model server read {prompt_characters} characters and has nothing to add."
    usage = Usage(input=max(1, prompt_characters // CHARACTERS_PER_TOKEN), output=len(reply) // CHARACTERS_PER_TOKEN)
    if "x-usage" in request.headers:
        try:
            usage = Usage.parse(request.headers["x-usage"])
        except ValueError as error:
            raise BadRequest(str(error)) from error
    return Call(
        body=body,
        model=model,
        reply=reply,
        usage=usage,
        response_id=request.headers.get("x-response-id", id_prefix + uuid.uuid4().hex[:24]),
        stream=body.get("stream") in (True, "true"),
    )


def event_stream(events: Iterator[str]) -> Response:
    """Send each event as a separate chunk, as a real stream does."""

    async def send() -> AsyncIterator[str]:
        for event in events:
            yield event
            await asyncio.sleep(0)  # let the transport flush

    return StreamingResponse(send(), media_type="text/event-stream", headers={"cache-control": "no-cache"})


def aws_event_stream(events: Iterator[bytes]) -> Response:
    """Send events in Amazon's event stream format."""

    async def send() -> AsyncIterator[bytes]:
        for event in events:
            yield event
            await asyncio.sleep(0)

    return StreamingResponse(send(), media_type="application/vnd.amazon.eventstream")


def answering(
    id_prefix: str, plain: Callable[[Call], Json], events: Callable[[Call], Iterator[str]] | None = None
) -> Endpoint:
    """Return an endpoint that answers at once, or in a stream if supported and requested."""

    async def answer(request: Request) -> Response:
        call = await read_call(request, id_prefix)
        return event_stream(events(call)) if events is not None and call.stream else JSONResponse(plain(call))

    return answer


def streaming(id_prefix: str, events: Callable[[Call], Iterator[str]]) -> Endpoint:
    """Return an endpoint that always streams."""

    async def answer(request: Request) -> Response:
        return event_stream(events(await read_call(request, id_prefix)))

    return answer


def bedrock(answer_in: Callable[[Call], Json]) -> Endpoint:
    """Return an endpoint of Amazon Bedrock, with the answer's id in the headers."""

    async def answer(request: Request) -> Response:
        call = await read_call(request, "")
        return JSONResponse(answer_in(call), headers={"x-amzn-requestid": call.response_id})

    return answer


def bedrock_streaming(events: Callable[[Call], Iterator[bytes]]) -> Endpoint:
    """Return a streaming endpoint of Amazon Bedrock."""

    async def answer(request: Request) -> Response:
        return aws_event_stream(events(await read_call(request, "")))

    return answer


async def speech(request: Request) -> Response:
    """Answer POST /v1/audio/speech with audio only."""
    await read_call(request, "")
    return Response(SOUND, media_type="audio/mpeg")


Endpoint = Callable[[Request], Awaitable[Response]]


def steered(endpoint: Endpoint, error_body: Callable[[int, str], Json]) -> Endpoint:
    """Apply ``x-latency-ms`` and ``x-fail``, and answer a bad request in the provider's format."""

    async def answer(request: Request) -> Response:
        latency_ms = int(request.headers.get("x-latency-ms", "0"))
        if latency_ms:
            await asyncio.sleep(latency_ms / 1000)
        status = int(request.headers.get("x-fail", "0"))
        if status:
            return JSONResponse(error_body(status, f"the caller asked for a {status}"), status_code=status)
        try:
            return await endpoint(request)
        except BadRequest as error:
            return JSONResponse(error_body(400, str(error)), status_code=400)

    return answer


ENDPOINTS: list[tuple[str, Endpoint, Callable[[int, str], Json]]] = [
    ("/v1/chat/completions", answering("chatcmpl-", openai_chat, openai_chat_events), openai_error),
    ("/v1/responses", answering("resp_", openai_response, openai_response_events), openai_error),
    ("/v1/embeddings", answering("embd-", openai_embeddings), openai_error),
    ("/v1/images/generations", answering("", openai_images), openai_error),
    ("/v1/images/edits", answering("", openai_images), openai_error),
    ("/v1/audio/transcriptions", answering("", openai_transcript), openai_error),
    ("/v1/audio/translations", answering("", openai_transcript), openai_error),
    ("/v1/audio/speech", speech, openai_error),
    ("/v1/ocr", answering("", mistral_pages), openai_error),
    ("/v1/messages", answering("msg_", anthropic_message, anthropic_events), anthropic_error),
    *(
        (f"/{version}/models/{{model}}:{method}", endpoint, google_error)
        for version in ("v1", "v1beta")
        for method, endpoint in (
            ("generateContent", answering("", google_content)),
            ("streamGenerateContent", streaming("", google_events)),
            ("batchEmbedContents", answering("", google_embeddings)),
        )
    ),
    *(
        (f"/{version}/{method}", endpoint, cohere_error)
        for version in ("v1", "v2")
        for method, endpoint in (
            ("chat", answering("", cohere_chat, cohere_events)),
            ("embed", answering("", cohere_embeddings)),
            ("rerank", answering("", cohere_ranks)),
        )
    ),
    ("/model/{model}/converse", bedrock(bedrock_converse), bedrock_error),
    ("/model/{model}/converse-stream", bedrock_streaming(bedrock_converse_events), bedrock_error),
    ("/model/{model}/invoke", bedrock(bedrock_invocation), bedrock_error),
    ("/model/{model}/invoke-with-response-stream", bedrock_streaming(bedrock_invocation_events), bedrock_error),
]
application = Starlette(
    routes=[Route(path, steered(endpoint, error), methods=["POST"]) for path, endpoint, error in ENDPOINTS]
)


class AnnouncingServer(uvicorn.Server):
    """Prints its port on stdout once it accepts connections, for the parent process."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then print the port."""
        await super().startup(sockets=sockets)
        for listener in sockets or []:
            print(json.dumps({"port": listener.getsockname()[1]}), flush=True)


def leave(_signal: int, _frame: FrameType | None) -> None:
    """Exit normally: uvicorn raises its stop signal again when it has finished."""
    sys.exit(0)


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(description="A model server on loopback, OpenAI- and Anthropic-like.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; every client that reaches it may use it"
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 picks a free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((arguments.host, arguments.port))
    config = uvicorn.Config(
        application, access_log=False, log_level="warning", lifespan="off", timeout_graceful_shutdown=2
    )
    AnnouncingServer(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
