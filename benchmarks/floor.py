"""The least that any receiver must do: what Farebox is measured against.

    .venv/bin/python benchmarks/floor.py --database sqlite:////tmp/floor.db

Takes OTLP over HTTP (uvicorn, httptools, uvloop) and gRPC (grpc.aio), finds the ids of each span and leaves the rest
unread, inserts one row a span under a unique (trace, span) key or ignores it, and acknowledges after the commit.
All requests that wait when a transaction begins go into it together. SQLite is in WAL with synchronous=FULL;
PostgreSQL is as durable as its server. No prices, no money, no checks: this is a floor, not a product.
"""

import argparse
import asyncio
import json
import signal
import socket
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc.aio
import psycopg
import uvicorn
import uvloop
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_KEY = 24
"""Bytes of a trace id and a span id."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS spans (trace_id {bytes} NOT NULL, span_id {bytes} NOT NULL, UNIQUE (trace_id, span_id))"
)


def _keys_of() -> Callable[[bytes], bytes]:
    """A reader of the (trace, span) keys of a request, one after the other. Everything else is left unread."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="floor.proto", package="floor", syntax="proto3")
    for name, number, inner in (("Request", 1, "Resource"), ("Resource", 2, "Scope"), ("Scope", 2, "Span")):
        items = file.message_type.add(name=name).field.add(name="items", number=number, label=field.LABEL_REPEATED)
        items.type, items.type_name = field.TYPE_MESSAGE, f".floor.{inner}"
    span = file.message_type.add(name="Span")
    for name, number in (("trace_id", 1), ("span_id", 2)):
        span.field.add(name=name, number=number, label=field.LABEL_OPTIONAL, type=field.TYPE_BYTES)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    request: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("floor.Request"))

    def keys(body: bytes) -> bytes:
        return b"".join(
            [
                part
                for resource in request.FromString(body).items
                for scope in resource.items
                for span in scope.items
                for part in (span.trace_id, span.span_id)
            ]
        )

    return keys


class Store(Protocol):
    """Somewhere durable. One thread uses it."""

    def insert(self, keys: bytes) -> None:
        """Insert what is new of the keys in one transaction; durable on return."""


class SqliteStore:
    """One file, in which SQLite itself cuts the rows out of one parameter: nothing is faster from Python."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA cache_size=-65536")
        self._connection.execute(f"{_TABLE.format(bytes='BLOB')} STRICT")

    def insert(self, keys: bytes) -> None:
        """As in the protocol; a single statement is a transaction."""
        self._connection.execute(
            "INSERT OR IGNORE INTO spans WITH RECURSIVE key(at) AS"
            f" (SELECT 1 UNION ALL SELECT at + {_KEY} FROM key WHERE at + {_KEY} < length(?1))"
            " SELECT substr(?1, at, 16), substr(?1, at + 16, 8) FROM key",
            (keys,),
        )


class PostgresqlStore:
    """One connection; the server cuts the rows out of one parameter."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
        self._connection.execute("SET synchronous_commit TO on")
        self._connection.execute(_TABLE.format(bytes="bytea").encode())

    def insert(self, keys: bytes) -> None:
        """As in the protocol; a single statement is a transaction."""
        self._connection.execute(
            f"INSERT INTO spans SELECT substr(k, at, 16), substr(k, at + 16, 8) FROM (SELECT %b::bytea AS k) given,"
            f" generate_series(1, length(k), {_KEY}) at ON CONFLICT DO NOTHING".encode(),
            (keys,),
            binary=True,
        )


class Floor:
    """Takes requests; one thread commits all waiting requests."""

    def __init__(self, store: Store) -> None:
        self._keys = _keys_of()
        self._store = store
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._commit, daemon=True).start()

    async def take(self, body: bytes) -> None:
        """Return when the spans of a request are durable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        keys = self._keys(body)
        with self._changed:
            self._waiting.append((keys, future))
            self._changed.notify()
        await future

    def _commit(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                group = list(self._waiting)
                self._waiting.clear()
            self._store.insert(b"".join([keys for keys, _ in group]))
            group[0][1].get_loop().call_soon_threadsafe(_resolve, [future for _, future in group])


def _resolve(futures: Sequence["asyncio.Future[None]"]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def http_application(floor: Floor) -> Any:
    """The ASGI application: any POST is an export."""

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        parts, more = [], True
        while more:
            event = await receive()
            if event["type"] != "http.request":
                return
            parts.append(event["body"])
            more = event["more_body"]
        await floor.take(b"".join(parts))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    return application


class _Export(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Export over gRPC; bytes in and out."""

    def __init__(self, floor: Floor) -> None:
        async def export(body: bytes, _context: Any) -> bytes:
            await floor.take(body)
            return b""

        self._handler = grpc.unary_unary_rpc_method_handler(export)

    def service(self, handler_call_details: Any) -> Any:
        """The handler of Export."""
        return self._handler if handler_call_details.method == EXPORT_METHOD else None


async def serve(store: Store) -> None:
    """Serve on free ports of loopback, which are printed as JSON, until a signal."""
    floor = Floor(store)
    grpc_server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    grpc_server.add_generic_rpc_handlers((_Export(floor),))
    grpc_port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        http_application(floor),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
    )
    server = uvicorn.Server(config)
    print(json.dumps({"grpc": grpc_port, "otlp_http": listening.getsockname()[1]}), flush=True)
    await server.serve(sockets=[listening])
    await grpc_server.stop(0)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True, help="sqlite:///path or postgresql+psycopg://…")
    url = parser.parse_args().database
    path = url.removeprefix("sqlite:///")
    store: Store = PostgresqlStore(url) if path == url else SqliteStore(str(Path(path)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    uvloop.run(serve(store))


if __name__ == "__main__":
    main()
