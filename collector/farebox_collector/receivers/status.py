"""Failures of the way, and the one place that maps them to gRPC and HTTP answers.

Retryable failures tell the client to send the same request again; permanent ones tell it not to. Clients differ in
where they look for the delay: some read the standard `grpc-status-details-bin`, the Python SDK reads only
`google.rpc.retryinfo-bin`, HTTP clients read `Retry-After`. All get it.
"""

import math
from typing import NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from farebox_collector.admission.in_flight import Overloaded, ShuttingDown
from farebox_collector.admission.rates import TooMuch
from farebox_collector.cache.keyring import Forbidden, TooManyStrangers, Unauthenticated
from farebox_collector.intake.decoding.errors import MalformedRequest, RequestTooLarge

RETRY_DELAY_MS = 1_700
"""Between 1.5 and 1.9 s the Python SDK makes the most attempts (six) before it gives a batch up."""


class UnsupportedEncoding(Exception):
    """The content type or content encoding is none that OTLP/HTTP defines."""


class TooSlow(Exception):
    """The request took too long to arrive; nothing of it was taken, and it may come again."""


class Failure(NamedTuple):
    """How one kind of failure is answered."""

    grpc_code: grpc.StatusCode
    http_status: int
    retryable: bool
    message: str
    outcome: str
    """How the metric of answered requests calls it."""
    delay_ms: int = RETRY_DELAY_MS
    """When to try again, where that can help."""


def failure_of(error: BaseException) -> Failure:
    """The answer for an exception. Texts of unforeseen errors stay inside: they may hold data."""
    match error:
        case Unauthenticated():
            return Failure(grpc.StatusCode.UNAUTHENTICATED, 401, False, str(error), "unauthenticated")
        case Forbidden():
            return Failure(grpc.StatusCode.PERMISSION_DENIED, 403, False, str(error), "unauthenticated")
        case MalformedRequest():
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, 400, False, str(error), "invalid")
        case UnsupportedEncoding():
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, 415, False, str(error), "invalid")
        case RequestTooLarge():
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, 413, False, str(error), "invalid")
        case TooMuch():
            delay_ms = math.ceil(error.delay_s * 1000)
            return Failure(grpc.StatusCode.UNAVAILABLE, 429, True, str(error), "limited", delay_ms)
        case Overloaded() | ShuttingDown() | TooSlow() | TooManyStrangers():
            return Failure(grpc.StatusCode.UNAVAILABLE, 503, True, str(error), "overloaded")
        case _:
            # Storage trouble, or a bug of ours: either way the client still holds the only copy. Let it try again.
            return Failure(grpc.StatusCode.UNAVAILABLE, 503, True, "the ledger cannot take this now", "failed")


def status_message(failure: Failure) -> Status:
    """The google.rpc.Status that OTLP/HTTP wants as a body and gRPC as a trailer."""
    status = Status(code=getattr(Code, failure.grpc_code.name), message=failure.message)
    if failure.retryable:
        status.details.add().Pack(retry_info(failure.delay_ms))
    return status


def retry_info(delay_ms: int) -> RetryInfo:
    """The delay that is asked of a client that is told to try again."""
    return RetryInfo(retry_delay=Duration(seconds=delay_ms // 1000, nanos=delay_ms % 1000 * 1_000_000))
