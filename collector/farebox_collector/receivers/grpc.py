"""OTLP/gRPC: Export of the services for traces, logs and metrics over grpc.aio, bodies as bytes.

gRPC decompresses gzip and bounds the message.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from farebox_collector.admission.in_flight import Hold
from farebox_collector.intake.decoding.errors import MalformedRequest
from farebox_collector.model.credentials import Caller, token_in
from farebox_collector.receivers.call_admission import CallAdmission
from farebox_collector.receivers.intake import Intake, Refused
from farebox_collector.receivers.signals import PROTOBUF, SIGNALS, Signal
from farebox_collector.receivers.status import (
    Failure,
    TooSlow,
    retry_info,
    status_message,
)
from farebox_collector.settings import Settings

MAX_STREAMS = 100
"""Most concurrent calls on one connection; further calls wait at the client."""
_METADATA_BYTES = 8 * 2**10
_LEAST_AT_ONCE = 4


class OtlpServices(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Serve Export by the contract of a receiver (see the package).

    gRPC receives the message of a unary call before it asks for a handler. So Export is served as a stream of one
    message, with the same wire format: the message is received after the caller is authenticated and has room.
    """

    def __init__(self, intake: Intake, call_admission: CallAdmission, settings: Settings) -> None:
        self._intake = intake
        self._call_admission = call_admission
        self._request_seconds = settings.request_seconds
        self._at_once = max(_LEAST_AT_ONCE, settings.queue_max_bytes // settings.max_request_bytes)
        self._receiving: dict[int, asyncio.Semaphore] = {}
        # Without (de)serializers a handler gets and gives the bytes of the message.
        self._handlers = {
            signal.method: grpc.stream_unary_rpc_method_handler(partial(self._export, signal)) for signal in SIGNALS
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of Export; None for any other method."""
        return self._handlers.get(handler_call_details.method)

    async def _export(
        self, signal: Signal, _messages: object, context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> bytes:
        async def arriving(caller: Caller, hold: Hold) -> bytes:
            self._call_admission.note_key(context.peer())
            # Raise Overloaded before the message is received.
            hold.grow(1)
            body = await self._message(caller.tenant_id, context)
            hold.grow(max(0, len(body) - 1))
            return body

        try:
            response = await self._intake.take(
                "grpc", signal, _token(context), arriving, signal.encodings[PROTOBUF], _address(context.peer())
            )
            return response.SerializeToString()
        except Refused as refused:
            failure = refused.failure
        await context.abort(failure.grpc_code, failure.message, trailing_metadata=_trailers(failure))
        raise AssertionError("unreachable")

    async def _message(self, tenant_id: int, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        """Receive the message of a call. Raises TooSlow, MalformedRequest.

        Each tenant receives a limited number at once: a message is in memory before its size is known.
        """
        turn = self._receiving.setdefault(tenant_id, asyncio.Semaphore(self._at_once))
        try:
            async with asyncio.timeout(self._request_seconds), turn:
                message = await context.read()
        except TimeoutError:
            raise TooSlow(f"the request did not arrive within {self._request_seconds:g} s") from None
        if not isinstance(message, bytes):
            raise MalformedRequest("the call has no message")
        return message


def _address(peer: str) -> str:
    """The IP address of a peer in gRPC's notation: `ipv4:192.0.2.1:50000`, `ipv6:%5B2001:db8::1%5D:50000`."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0]
    return host.strip("[]")


def server_credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """TLS credentials from PEM files. With `client_ca`, client certificates are required."""
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=None if client_ca is None else client_ca.read_bytes(),
        require_client_auth=client_ca is not None,
    )


def server(service: OtlpServices, max_request_bytes: int, max_connections: int) -> grpc.aio.Server:
    """A gRPC server with Export, not listening yet."""
    options = [
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        # Metadata holds a key and a few names.
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * _METADATA_BYTES),
        # Cut off clients that do not complete the HTTP/2 handshake.
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Fixed flow-control windows: unread data stays with the client.
        ("grpc.http2.bdp_probe", 0),
        # Exporters send every few seconds: a connection idle for ten minutes is dead.
        ("grpc.max_connection_idle_ms", 600_000),
        # Clients reconnect hourly, and so find new replicas and certificates.
        ("grpc.max_connection_age_ms", 3_600_000),
        ("grpc.max_connection_age_grace_ms", 60_000),
        # Without this, a second process could bind the port too and get half of the spans unnoticed.
        ("grpc.so_reuseport", 0),
    ]
    made = grpc.aio.server(options=options)
    made.add_generic_rpc_handlers((service,))
    return made


def _token(context: "grpc.aio.ServicerContext[bytes, bytes]") -> str | None:
    """The key of a call. Of several the last one counts, as with repeated HTTP headers."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return token_in(metadata.get("authorization"), metadata.get("x-api-key"))


def _trailers(failure: Failure) -> tuple[tuple[str, bytes], ...]:
    details = (("grpc-status-details-bin", status_message(failure).SerializeToString()),)
    if not failure.retryable:
        return details
    return (*details, ("google.rpc.retryinfo-bin", retry_info(failure.delay_ms).SerializeToString()))
