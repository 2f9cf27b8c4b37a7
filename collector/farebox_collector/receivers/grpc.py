"""OTLP/gRPC: TraceService/Export over grpc.aio, bodies as bytes; gRPC itself undoes gzip and bounds the message."""

from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from farebox_collector.admission import Hold
from farebox_collector.credentials import token_in
from farebox_collector.reading import Encoding
from farebox_collector.receivers.intake import Intake, Refused
from farebox_collector.receivers.status import Failure, retry_info, status_message

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class TraceService(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Serves Export; see the package for the contract of a receiver."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        # Without (de)serializers a handler gets and gives the bytes of the message.
        self._handler = grpc.unary_unary_rpc_method_handler(self._export)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of Export; None for any other method."""
        return self._handler if handler_call_details.method == _EXPORT else None

    async def _export(self, body: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        async def arrived(hold: Hold) -> bytes:
            hold.grow(len(body))
            return body

        try:
            response = await self._intake.take("grpc", _token(context), arrived, Encoding.PROTOBUF)
            return response.SerializeToString()
        except Refused as refused:
            failure = refused.failure
        # gRPC keeps what `abort` raises for a while, and with it all that can be reached from here.
        body = b""
        await context.abort(failure.grpc_code, failure.message, trailing_metadata=_trailers(failure))
        raise AssertionError("unreachable")


def server_credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """TLS from PEM files; with authorities for client certificates these are required."""
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=None if client_ca is None else client_ca.read_bytes(),
        require_client_auth=client_ca is not None,
    )


def server(service: TraceService, max_request_bytes: int, max_connections: int) -> grpc.aio.Server:
    """A gRPC server with Export, not listening yet."""
    options = [
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_concurrent_streams", max_connections),
        # Exporters send every few seconds; what is silent for ten minutes is gone.
        ("grpc.max_connection_idle_ms", 600_000),
        # Two processes on one port would each get half of the spans, and nobody would know.
        ("grpc.so_reuseport", 0),
    ]
    made = grpc.aio.server(options=options)
    made.add_generic_rpc_handlers((service,))
    return made


def _token(context: "grpc.aio.ServicerContext[bytes, bytes]") -> str | None:
    """The key that came with a call. Of several the last counts, as with HTTP's own headers of one name."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return token_in(metadata.get("authorization"), metadata.get("x-api-key"))


def _trailers(failure: Failure) -> tuple[tuple[str, bytes], ...]:
    details = (("grpc-status-details-bin", status_message(failure).SerializeToString()),)
    if not failure.retryable:
        return details
    return (*details, ("google.rpc.retryinfo-bin", retry_info().SerializeToString()))
