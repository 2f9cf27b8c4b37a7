"""Steps that all transports share: authenticate, limit, pass the body to the pipeline, count, build the response."""

import logging
import time
import traceback
from collections.abc import Awaitable, Callable

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect

from farebox_collector.admission.in_flight import Hold
from farebox_collector.admission.rates import Rates
from farebox_collector.cache.keyring import Forbidden, KeyRing, Unauthenticated
from farebox_collector.intake.reader import Encoding
from farebox_collector.ledger.access.actors import actor_of
from farebox_collector.ledger.access.refusals import Attempt, Refusals
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.credentials import Caller, Scope
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pipeline import ExportRequest, Outcome, Pipeline
from farebox_collector.receivers.first_warnings import FirstWarnings
from farebox_collector.receivers.signals import METRICS, Signal
from farebox_collector.receivers.status import Failure, failure_of

_MAX_REASONS = 5

_logger = logging.getLogger(__name__)


class Refused(Exception):
    """The request was refused; `failure` holds the answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Intake:
    """Pass exports from receivers to the pipeline."""

    def __init__(self, pipeline: Pipeline, keyring: KeyRing, meters: Meters, rates: Rates, refusals: Refusals) -> None:
        self._pipeline = pipeline
        self._keyring = keyring
        self._meters = meters
        self._rates = rates
        self._refusals = refusals
        self._warnings = FirstWarnings()

    async def take(
        self,
        transport: str,
        signal: Signal,
        token: str | None,
        read: Callable[[Caller, Hold], Awaitable[bytes]],
        encoding: Encoding,
        address: str = "",
    ) -> Message:
        """Accept one export and return when it is durable. Its tenant is the token's, never one named in spans.

        `read` reads the body and grows its hold meanwhile; it is called only for a caller with a valid key. `address`
        is the peer's, for the audit log.

        Raises Refused for every error except ClientDisconnect, which it passes on.
        """
        started = time.perf_counter()
        try:
            caller = await self._keyring.caller(token, Scope.INGEST)
            limited = self._rates.are_set
            if limited:
                await self._rates.admit(caller, brings_usage=True)
            with self._pipeline.admission.hold() as hold:
                body = await read(caller, hold)
                if limited:
                    await self._rates.count(caller, size_bytes=len(body))
                started = time.perf_counter()
                accept = self._pipeline.accept_metrics if signal is METRICS else self._pipeline.accept
                outcome = await accept(ExportRequest(caller.tenant_id, encoding, body))
        except ClientDisconnect:
            raise
        except Exception as error:
            raise self._refusal(transport, error, time.perf_counter() - started, address) from error
        if limited:
            await self._rates.count(caller, spans=outcome.verdicts.total())
        self._meters.answered(transport, "accepted", time.perf_counter() - started)
        return self._answer(signal, caller, address, outcome)

    def _answer(self, signal: Signal, caller: Caller, address: str, outcome: Outcome) -> Message:
        """Return the answer to an accepted request, with a warning the first time that a sender tells no call."""
        rejected = outcome.verdicts[Verdict.REJECTED]
        reasons = outcome.rejections[:_MAX_REASONS]
        if signal.without_call and outcome.verdicts[Verdict.NOT_BILLABLE]:
            sender = (caller.tenant_id, caller.key_id, address, signal.name)
            if self._warnings.is_first(sender):
                reasons = (*reasons, signal.without_call)
        return signal.answer(rejected, "; ".join(reasons))

    def _refusal(self, transport: str, error: Exception, seconds: float, address: str) -> Refused:
        """Count a refused request, and log an unexpected error."""
        failure = failure_of(error)
        if isinstance(error, Unauthenticated | Forbidden):
            self._meters.turned_away(transport, error.reason)
            self._refusals.count(_attempt(transport, error), address)
        if failure.outcome == "failed":
            _logger.error("an export failed", exc_info=error)
        self._meters.answered(transport, failure.outcome, seconds)
        _release_frames(error)
        return Refused(failure)


def _attempt(transport: str, error: Unauthenticated | Forbidden) -> Attempt:
    """The entry of a refused export for the audit log of the key's tenant, or of the default tenant."""
    what = f"report usage over {transport}"
    who = error.caller if isinstance(error, Forbidden) else None
    if who is None:
        return Attempt(DEFAULT_TENANT_ID, "unknown", what, "no valid key")
    return Attempt(who.tenant_id, actor_of(who, "").name, what, "not allowed")


def _release_frames(error: BaseException | None) -> None:
    """Clear the frames in an error's traceback: they hold a body and its spans.

    The caller may leave the error in a reference cycle, and the garbage collector runs rarely.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
