"""A model server for coding agents: it answers the next request with the next step of a script.

It speaks the streams of Anthropic's messages, OpenAI's responses and Google's Gemini API, with tool calls, which agents
need. A step is `{"usage": {…}, "tool": true}` or `{"fail": 529}`; a tool's name calls that tool. The numbers go
unchanged into the provider's own fields, as in `instrumentation/demo/model_answers.py`. After the last step it answers
with one token in and out.
"""

import json
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[4] / "instrumentation" / "demo"))

from google_answers import google_error, google_usage
from model_answers import (
    Call,
    Usage,
    anthropic_error,
    anthropic_usage,
    data_event,
    named_event,
    openai_chat,
    openai_chat_events,
    openai_error,
)

Json = dict[str, Any]
REPLY = "It stands on loopback."
THOUGHT = "A short thought."
DEFAULT_STEP: Json = {"usage": {"input": 1, "output": 1}}
TOOLS = {
    # Tools that read a file, in the order of preference, and one that calls a subagent, with their arguments.
    "Read": {"file_path": "{workspace}/note.txt"},
    "read_file": {"file_path": "{workspace}/note.txt"},
    "exec_command": {"cmd": "cat note.txt"},
    "shell_command": {"command": "cat note.txt"},
    "shell": {"command": ["cat", "note.txt"]},
    "Agent": {"description": "Look", "prompt": "Look at note.txt", "subagent_type": "Explore"},
}


class Script:
    """The steps that are left, and what was answered."""

    def __init__(self, steps: list[Json], workspace: str) -> None:
        self._steps = list(steps)
        self._workspace = workspace
        self._lock = threading.Lock()
        self.answered: list[Json] = []
        self.unexpected: list[str] = []

    def next(self, path: str, body: Json) -> Json:
        """The next step, with ids for its answer."""
        with self._lock:
            step = dict(self._steps.pop(0) if self._steps else DEFAULT_STEP | {"unscripted": True})
            step |= {"request_id": f"req_{uuid.uuid4().hex[:24]}", "response_id": uuid.uuid4().hex[:24], "path": path}
            step["model"] = body.get("model") or path.partition("/models/")[2].partition(":")[0]
            self.answered.append(step)
        return step

    def tool(self, wanted: str | bool, offered: list[Json]) -> tuple[str, Json]:
        """A tool among those offered, with its arguments: the wanted one, or the first."""
        names = {wanted} if isinstance(wanted, str) else {str(tool.get("name")) for tool in offered}
        name = next(name for name in TOOLS if name in names)
        text = json.dumps(TOOLS[name]).replace("{workspace}", self._workspace)
        return name, json.loads(text)


def anthropic_events(step: Json, tool: tuple[str, Json] | None) -> Iterator[str]:
    """The stream of `/v1/messages`."""
    usage = Usage(**step["usage"])
    counts = anthropic_usage(usage, 1) | {
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write - usage.cache_write_1h,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "service_tier": "standard",
        **({"speed": step["speed"]} if "speed" in step else {}),
    }
    message = {
        "id": f"msg_{step['response_id']}",
        "type": "message",
        "role": "assistant",
        "model": step["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counts,
    }
    yield named_event({"type": "message_start", "message": message})
    if tool is None:
        blocks = [({"type": "text", "text": ""}, {"type": "text_delta", "text": REPLY})]
    else:
        opening = {"type": "tool_use", "id": f"toolu_{step['response_id']}", "name": tool[0], "input": {}}
        blocks = [(opening, {"type": "input_json_delta", "partial_json": json.dumps(tool[1])})]
    for index, (block, delta) in enumerate(blocks):
        yield named_event({"type": "content_block_start", "index": index, "content_block": block})
        yield named_event({"type": "content_block_delta", "index": index, "delta": delta})
        yield named_event({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
    yield named_event({"type": "message_delta", "delta": ended, "usage": anthropic_usage(usage, usage.output)})
    yield named_event({"type": "message_stop"})


def openai_events(step: Json, tool: tuple[str, Json] | None) -> Iterator[str]:
    """The stream of `/v1/responses`."""
    usage = Usage(**step["usage"])
    response = {
        "id": f"resp_{step['response_id']}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "in_progress",
        "model": step["model"],
        "output": [],
        "service_tier": "default",
        "usage": None,
    }
    yield named_event({"type": "response.created", "response": response})
    if tool is None:
        content = [{"type": "output_text", "text": REPLY, "annotations": []}]
        item = {"type": "message", "id": f"msg_{step['response_id']}", "role": "assistant", "status": "completed"}
        item["content"] = content
    else:
        item = {"type": "function_call", "id": f"fc_{step['response_id']}", "call_id": f"call_{step['response_id']}"}
        item |= {"name": tool[0], "arguments": json.dumps(tool[1]), "status": "completed"}
    yield named_event({"type": "response.output_item.added", "output_index": 0, "item": item})
    if tool is None:
        delta = {"item_id": item["id"], "output_index": 0, "content_index": 0, "delta": REPLY}
        yield named_event({"type": "response.output_text.delta", **delta})
    yield named_event({"type": "response.output_item.done", "output_index": 0, "item": item})
    done = response | {"status": "completed", "output": [item]}
    done["usage"] = {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
    yield named_event({"type": "response.completed", "response": done})


def google_pieces(step: Json, tool: tuple[str, Json] | None) -> Iterator[Json]:
    """The pieces of the stream of `:streamGenerateContent`."""
    parts: list[Json] = [{"text": REPLY}]
    if tool is not None:
        parts = [{"functionCall": {"name": tool[0], "args": tool[1]}}]
    if step["usage"].get("reasoning"):
        parts.insert(0, {"text": THOUGHT, "thought": True})
    for index, part in enumerate(parts):
        candidate: Json = {"index": 0, "content": {"role": "model", "parts": [part]}}
        if index == len(parts) - 1:
            candidate["finishReason"] = "STOP"
        yield {
            "candidates": [candidate],
            "usageMetadata": google_usage(Usage(**step["usage"])),
            "modelVersion": step["model"],
            "responseId": step["response_id"],
        }


class Handler(BaseHTTPRequestHandler):
    """Answers one request from the script."""

    protocol_version = "HTTP/1.1"
    script: Script

    def do_GET(self) -> None:
        """Say that there is nothing: agents ask for lists of models, settings and news."""
        self.script.unexpected.append(f"GET {self.path}")
        self._send(404, b"{}", {})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Answer with the next step, or with nothing where no model is asked."""
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.partition("?")[0]
        if path.endswith(("/messages/count_tokens", ":countTokens")):
            self._send(200, json.dumps({"input_tokens": 7, "totalTokens": 7}).encode(), {})
        elif not path.endswith(("/messages", "/responses", "/completions", "enerateContent")):
            self.script.unexpected.append(f"POST {self.path}")
            self._send(404, b"{}", {})
        else:
            body = json.loads(content)
            self._answer(path, body, self.script.next(path, body))

    def _answer(self, path: str, body: Json, step: Json) -> None:
        ids = {"request-id": step["request_id"], "x-request-id": step["request_id"]}
        anthropic, google = path.endswith("/messages"), path.endswith("enerateContent")
        if "fail" in step:
            error = anthropic_error if anthropic else google_error if google else openai_error
            self._send(step["fail"], json.dumps(error(step["fail"], "the script asked for it")).encode(), ids)
            return
        offered = body.get("tools") or []
        if google:
            offered = [each for tool in offered for each in tool.get("functionDeclarations", [])]
        tool = self.script.tool(step["tool"], offered) if step.get("tool") else None
        if google and not path.endswith(":streamGenerateContent"):
            (last,) = list(google_pieces(step, tool))[-1:]
            self._send(200, json.dumps(last).encode(), ids)
            return
        if path.endswith("/completions"):
            self._complete(body, step, ids)
            return
        if google:
            text = "".join(data_event(piece) for piece in google_pieces(step, tool))
        else:
            text = "".join((anthropic_events if anthropic else openai_events)(step, tool))
        self._send(200, text.encode(), ids | {"content-type": "text/event-stream"})

    def _complete(self, body: Json, step: Json, ids: dict[str, str]) -> None:
        """Answer OpenAI's older interface, without tools."""
        reply_id, stream = f"chatcmpl-{step['response_id']}", bool(body.get("stream"))
        call = Call(body | {"tools": None}, step["model"], REPLY, Usage(**step["usage"]), reply_id, stream)
        if stream:
            self._send(200, "".join(openai_chat_events(call)).encode(), ids | {"content-type": "text/event-stream"})
        else:
            self._send(200, json.dumps(openai_chat(call)).encode(), ids)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Write nothing."""


@contextmanager
def scripted_server(steps: list[Json], workspace: str) -> Iterator[tuple[str, Script]]:
    """Serve a script; gives the server's address, and the script with what was answered."""
    script = Script(steps, workspace)
    handler = type("ScriptedHandler", (Handler,), {"script": script})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", script
        finally:
            server.shutdown()
            thread.join()
