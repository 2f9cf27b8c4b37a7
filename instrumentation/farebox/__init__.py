"""Meters an application's LLM calls: wallet, product event, tokens and cost, on OpenTelemetry GenAI spans.

import farebox
farebox.instrument()
with farebox.action("chat.reply", wallet="ada"):
    client.chat.completions.create(...)
"""

from farebox.attribution import Attribution, Scope, action, tags
from farebox.lifecycle import flush, instrument, uninstrument
from farebox.version import __version__

__all__ = [
    "Attribution",
    "Scope",
    "__version__",
    "action",
    "flush",
    "instrument",
    "tags",
    "uninstrument",
]
