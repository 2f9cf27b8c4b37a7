"""A model server on loopback that answers as fast as it can, and takes OTLP spans on the same port.

Every answer is made before the first request, so that what is measured is the client. Prints ``{"port": N}`` and runs
until it is terminated.
"""

import argparse
import asyncio
import json
import re

USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens_details": {"reasoning_tokens": 50},
}
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def plain_answer() -> bytes:
    """A chat completion."""
    message = {"role": "assistant", "content": "word " * 200, "refusal": None}
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": USAGE,
            "service_tier": "default",
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def streamed_answer(chunks: int) -> bytes:
    """The same as so many server-sent events, each an HTTP chunk of its own."""

    def event(choices: list[object], usage: object = None) -> bytes:
        payload = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-4o-mini",
            "service_tier": "default",
            "choices": choices,
            "usage": usage,
        }
        return b"data: %s\n\n" % json.dumps(payload).encode()

    word = event([{"index": 0, "delta": {"content": "word "}, "logprobs": None, "finish_reason": None}])
    end = event([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    events = [word] * (chunks - 2) + [end, event([], USAGE), b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in events) + b"0\r\n\r\n"


class Server(asyncio.Protocol):
    """One connection: requests one after the other."""

    plain = plain_answer()
    streamed = b""
    taken = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._received = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer once a request is whole."""
        self._received += data
        head, ended, rest = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not ended or len(rest) < (int(length.group(1)) if length else 0):
            return
        self._received = b""
        if b" /v1/traces " in head:
            self._transport.write(self.taken)
        else:
            self._transport.write(self.streamed if b'"stream":true' in rest.replace(b" ", b"") else self.plain)


async def serve(chunks: int) -> None:
    """Listen until the process ends."""
    Server.streamed = streamed_answer(chunks)
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--chunks", type=int, default=1000)
    asyncio.run(serve(parser.parse_args().chunks))
