"""Map failures to gRPC and HTTP answers; no other module does.

A retryable failure asks the client to send the same request again, a permanent one asks it not to. Clients read the
delay from different places: some from the standard `grpc-status-details-bin`, the Python SDK only from
`google.rpc.retryinfo-bin`, HTTP clients from `Retry-After`. The answer sets all of them.
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
from farebox_collector.cache.keyring import Forbidden, TooManyUnknownKeys, Unauthenticated
from farebox_collector.intake.decoding.errors import MalformedRequest, RequestTooLarge

RETRY_DELAY_MS = 1_700
"""With a delay of 1.5 to 1.9 s the Python SDK makes the most attempts (six) before it drops a batch."""


class UnsupportedEncoding(Exception):
    """OTLP/HTTP does not define the content type or content encoding."""


class TooSlow(Exception):
    """The request took too long to arrive. Nothing of it was booked; the client may retry."""


class Failure(NamedTuple):
    """The answer to one kind of failure."""

    grpc_code: grpc.StatusCode
    http_status: int
    retryable: bool
    message: str
    outcome: str
    """Label value in the metric of answered requests."""
    delay_ms: int = RETRY_DELAY_MS
    """Delay before a retry, if the failure is retryable."""


def failure_of(error: BaseException) -> Failure:
    """The answer to an exception. Messages of unexpected errors are not sent: they may hold data."""
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
        case Overloaded() | ShuttingDown() | TooSlow() | TooManyUnknownKeys():
            return Failure(grpc.StatusCode.UNAVAILABLE, 503, True, str(error), "overloaded")
        case _:
            # A storage error or a bug: the client holds the only copy, so let it retry.
            return Failure(grpc.StatusCode.UNAVAILABLE, 503, True, "the ledger is unavailable; try again", "failed")


def status_message(failure: Failure) -> Status:
    """The google.rpc.Status for the body of OTLP/HTTP and the trailer of gRPC."""
    status = Status(code=getattr(Code, failure.grpc_code.name), message=failure.message)
    if failure.retryable:
        status.details.add().Pack(retry_info(failure.delay_ms))
    return status


def retry_info(delay_ms: int) -> RetryInfo:
    """The delay before a retry, as gRPC encodes it."""
    return RetryInfo(retry_delay=Duration(seconds=delay_ms // 1000, nanos=delay_ms % 1000 * 1_000_000))
