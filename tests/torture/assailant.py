"""A hostile sender in its own process, so that its CPU time does not count as the bystanders'."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import grpc
import httpx2
from harness import Collector, unary
from torture.hostile import Body, bodies
from torture.world import RETRYABLE, Broken


class Assailant:
    """Sends every hostile body over every transport that takes its kind, over and over, while he is let loose."""

    def __init__(self, collector: Collector, limit_bytes: int, *, short: bool) -> None:
        self.tried = 0
        """How many bodies were sent."""
        spawn = multiprocessing.get_context("spawn")
        self._line, other_end = spawn.Pipe()
        arguments = (other_end, collector.grpc_target, collector.otlp_url, limit_bytes, short)
        self._process = spawn.Process(target=_assail, args=arguments, daemon=True)

    def __enter__(self) -> "Assailant":
        self._process.start()
        self._ask(None)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    @contextmanager
    def loose(self) -> Iterator[None]:
        """Let him loose for the block, and until he has sent each body once. Raises Broken for a wrong answer."""
        self._line.send("go")
        yield
        self._ask("stop")

    def _ask(self, what: str | None) -> None:
        if what:
            self._line.send(what)
        if not self._line.poll(300):
            raise Broken("the hostile bodies were not answered in 300 s")
        answer: Any = self._line.recv()
        if isinstance(answer, str):
            raise Broken(answer)
        self.tried += answer


def _assail(line: Connection, grpc_target: str, otlp_url: str, limit_bytes: int, short: bool) -> None:
    hostile = list(bodies(limit_bytes, short=short))
    channel = grpc.insecure_channel(grpc_target)
    with httpx2.Client(base_url=otlp_url, timeout=60) as client:
        line.send(0)
        while line.recv():
            try:
                answer: int | str = _send_until_told(line, hostile, channel, client)
            except Broken as error:
                answer = str(error)
            line.recv()
            line.send(answer)


def _send_until_told(line: Connection, hostile: list[Body], channel: grpc.Channel, client: httpx2.Client) -> int:
    tried = 0
    while tried < len(hostile) or not line.poll():
        for body in hostile:
            if tried >= len(hostile) and line.poll():
                break
            if not body.encoding and body.content_type == "application/x-protobuf":
                _send_grpc(body, channel)
            _send_http(body, client)
            tried += 1
    return tried


def _send_grpc(body: Body, channel: grpc.Channel) -> None:
    try:
        unary(channel)(body.body, timeout=60)
    except grpc.RpcError as error:
        code = error.code()
        if code in RETRYABLE:
            raise Broken(f"{body.name} over grpc was told to come again: {error}") from error


def _send_http(body: Body, client: httpx2.Client) -> None:
    headers = {"content-type": body.content_type} | ({"content-encoding": body.encoding} if body.encoding else {})
    try:
        answer = client.post("/v1/traces", content=body.body, headers=headers)
    except httpx2.TimeoutException as error:
        raise Broken(f"{body.name} was not answered in 60 s") from error
    except httpx2.HTTPError:
        # The answer may come before the whole body is taken, and the line is closed then.
        return
    if answer.status_code >= 500:
        raise Broken(f"{body.name} was answered with {answer.status_code}: it would come again")
