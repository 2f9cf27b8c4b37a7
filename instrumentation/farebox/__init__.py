"""Meter an application's LLM calls: wallet, product event, tokens and cost, on OpenTelemetry GenAI spans.

import farebox
farebox.instrument()
with farebox.action("chat.reply", wallet="ada"):
    client.chat.completions.create(...)
"""

from farebox.attribution import Attribution
from farebox.holds import HoldUnavailable, InsufficientCredits
from farebox.lifecycle import flush, instrument, uninstrument
from farebox.quality import report_quality
from farebox.scopes import Scope, action, incoming, tags
from farebox.tag_sources import outgoing_headers
from farebox.version import __version__

__all__ = [
    "Attribution",
    "HoldUnavailable",
    "InsufficientCredits",
    "Scope",
    "__version__",
    "action",
    "flush",
    "incoming",
    "instrument",
    "outgoing_headers",
    "report_quality",
    "tags",
    "uninstrument",
]
