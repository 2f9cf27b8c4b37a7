"""Read Ollama's native API: ``chat``, ``generate`` and ``embed``. The last line of a stream has the counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from farebox import span_attributes
from farebox.answers.answer import Answer
from farebox.answers.counts import count_in, text_in


class OllamaAnswer(Answer):
    """A response or its lines."""

    fact_pattern = re.compile(rb'"(?:done"\s*:\s*true|error")')

    def _read(self, part: Mapping[str, Any]) -> None:
        self.model = text_in(part.get("model")) or self.model
        self._merge_usage({key: part[key] for key in ("prompt_eval_count", "eval_count") if key in part})
        self._finished(part.get("done_reason"))

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        return {
            span_attributes.USAGE_INPUT: count_in(usage, "prompt_eval_count"),
            span_attributes.USAGE_OUTPUT: count_in(usage, "eval_count"),
        }
