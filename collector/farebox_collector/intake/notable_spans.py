"""Log spans that need attention: one warning per request and verdict, with a trace id."""

import logging
from collections.abc import Sequence

from farebox_collector.model.records import DeadLetter, PricedUsage
from farebox_collector.model.verdicts import Verdict

_NOTABLE = (Verdict.CONFLICT, Verdict.UNPRICED, Verdict.UNMETERED, Verdict.EXPOSED)

_logger = logging.getLogger(__name__)


def log_notable_spans(calls: Sequence[PricedUsage], verdicts: Sequence[Verdict], dead: Sequence[DeadLetter]) -> None:
    """Log one warning per verdict, with its first span and the number of its spans."""
    for verdict in (verdict for verdict in _NOTABLE if verdict in verdicts):
        found = [call for call, given in zip(calls, verdicts, strict=True) if given is verdict]
        first = found[0]
        _log(verdict, len(found), first.usage.trace_id, first.reason, first.usage.span_id, first.model)
    if dead:
        _log(Verdict.REJECTED, len(dead), dead[0].span.trace_id, dead[0].reason)


def _log(verdict: Verdict, spans: int, trace_id: bytes, reason: str, span_id: bytes = b"", model: str = "") -> None:
    extra = {"verdict": verdict.value, "spans": spans, "trace_id": trace_id.hex(), "reason": reason}
    if span_id:
        extra |= {"span_id": span_id.hex(), "model": model}
    _logger.warning("spans need attention", extra=extra)
