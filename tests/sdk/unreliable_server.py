"""A model server that misbehaves as it is told: it stalls, closes, resets, or answers, request by request."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = 40
"""How many chunks of text a whole stream has; each is one token of four letters."""
INPUT_TOKENS = 19
OUTPUT_TOKENS = 40


def openai_events(*, usage: bool = False) -> list[bytes]:
    chunks: list[dict[str, Any]] = [
        {"id": "c-1", "model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": "word"}}], "usage": None}
        for _ in range(WORDS)
    ]
    chunks.append(
        {"id": "c-1", "model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    )
    if usage:
        used = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": 59}
        chunks.append({"id": "c-1", "model": "gpt-4o-mini", "choices": [], "usage": used})
    return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]


def anthropic_events() -> list[bytes]:
    start: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [],
    }
    start |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word"}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, block, *[delta] * WORDS]
    events += [{"type": "content_block_stop", "index": 0}, end | {"usage": {"output_tokens": OUTPUT_TOKENS}}]
    events.append({"type": "message_stop"})
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def body_for(path: str) -> bytes:
    if path.endswith("/messages"):
        answer: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5"}
        answer |= {"content": [{"type": "text", "text": "word"}], "stop_reason": "end_turn", "stop_sequence": None}
        answer["usage"] = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    else:
        message = {"role": "assistant", "content": "word"}
        answer = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}
        answer["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
        answer["usage"] = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": 59}
    return json.dumps(answer).encode()


class UnreliableServer:
    """Each request takes the next word of ``plan``, and all later requests the last one.

    ``answer``; ``stall`` sends nothing; ``reset`` breaks the connection after the request; ``error`` is a 500;
    ``half`` sends half of a body or of a stream, then stalls; ``cut`` breaks the connection there; ``late`` breaks it
    when all is sent but the end of the stream.
    """

    def __init__(self) -> None:
        self.plan: list[str] = ["answer"]
        self.served: list[str] = []
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        asked = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        what = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        self.served.append(what)
        handler.close_connection = True
        if what == "stall":
            self.over.wait(30)
            return None
        if what == "reset":
            return reset(handler)
        if what == "error":
            handler.send_response(500)
            handler.send_header("content-length", "0")
            handler.send_header("connection", "close")
            return handler.end_headers()
        stream = asked.get("stream") is True
        if stream:
            wants_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
            parts = anthropic_events() if "messages" in handler.path else openai_events(usage=wants_usage)
        else:
            body = body_for(handler.path)
            parts = [body[:20], body[20:]]
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream" if stream else "application/json")
        handler.send_header("transfer-encoding", "chunked")
        handler.send_header("connection", "close")
        handler.end_headers()
        if what in ("half", "cut"):
            parts = parts[: len(parts) // 2]
        for part in parts:
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        handler.wfile.flush()
        if what == "half":
            self.over.wait(30)
        elif what == "answer":
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.connection.shutdown(socket.SHUT_WR) if what == "late" else None
        return None


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Break the connection with a reset, not with an orderly end."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


@contextmanager
def unreliable_server() -> Iterator[UnreliableServer]:
    server = UnreliableServer()
    with server.http as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            http.shutdown()
            thread.join()
