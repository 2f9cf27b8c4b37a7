"""Read chat completions, responses, embeddings, images and audio of OpenAI and compatible APIs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from farebox import span_attributes
from farebox.answers.answer import Answer, AttributeValue
from farebox.answers.counts import (
    count_in,
    first_count,
    is_stated,
    mapping_in,
    mappings_in,
    merged,
    seconds_in,
    text_in,
)
from farebox.answers.lines import Line
from farebox.answers.openai_usage import counts_of, image_tokens
from farebox.answers.sessions import SESSIONS
from farebox.answers.stated_costs import STATING
from farebox.answers.tool_fees import (
    MISTRAL_COUNTS,
    SEARCH_PREVIEW,
    XAI_COUNTS,
    ExecutedTools,
    counted_tools,
    gigabytes_of,
)

# Tools that are billed per call, by the type of the item in a response.
_BILLED_CALLS: Final = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
}
_SEARCHES: Final = (
    ("num_search_queries",),  # Perplexity
    ("server_tool_use", "web_search_requests"),  # OpenRouter
    ("server_tool_use_details", "web_search_requests"),
)
"""Where OpenAI-compatible providers count billed searches."""
_COUNTS_SEARCHES: Final = frozenset(path[0] for path in _SEARCHES)
_IMAGE_CALL: Final = "image_generation_call"
_STATUS_REASONS: Final = {"completed": "stop", "incomplete": "length", "failed": "error"}
_AT_WORK: Final = frozenset({"queued", "in_progress", "requires_action", "cancelling"})
_PROMISED: Final = frozenset({"created", "in_progress"})
_GIVEN_UP: Final = frozenset({"failed", "cancelled", "expired"})
_RESPONSES: Final = frozenset({"response", "response.compaction", "thread.run"})
_PARTS_OF_A_RUN: Final = ("thread.message", "thread.run.step")
_IMAGE_MODEL: Final = "gpt-image-1"
"""The image tool's default model."""
_CONTAINERS_MAX: Final = 1_000
_IN_CONTAINERS: Final = frozenset({"code_interpreter", "shell"})
_RUN_TOOLS: Final = frozenset({"groq", "mistral", "mistral_ai", "openrouter", "x-ai", "x_ai", "xai"})
"""Providers with their own counts of executed tools."""
_OF_A_RESPONSE: Final = (b'"image_gen"', b'"queued"', b'"in_progress"')
_RUN_BY_THE_PROVIDER: Final = (b'"server_tool_use', b'"server_side_tool_usage', b'"executed_tools"', b'"connectors"')


class OpenAIAnswer(Answer):
    """A response of any OpenAI endpoint."""

    # Text deltas have no usage, but chat's have both keys, mostly null. One search for all keys is faster than one
    # per key. The alternatives differ in their first letter: the search skips all other keys in one step.
    fact_pattern = re.compile(
        rb'"(?:usage"\s*:\s*[^n0\s]|finish_reason"\s*:\s*[^n0\s]|e(?:rror|xecuted_tools)"|response")'
    )

    def __init__(self, provider: str = "") -> None:
        """Start without facts."""
        super().__init__(provider)
        self._image_model: str | None = None
        self._images_drawn = 0
        self._image_usage: Mapping[str, Any] = {}
        self._models: list[Mapping[str, Any]] = []
        self._search_unit = "web_searches"
        self._gigabytes = 1
        self._executed: ExecutedTools | None = None
        self._requested_model = ""

    @classmethod
    def worth_adding(cls, body: bytes, provider: str = "") -> bool:
        """Return whether the body has tool calls, non-text tokens, other models or a later response."""
        if b'_call"' in body or (b'"response' in body and any(key in body for key in _OF_A_RESPONSE)):
            return True
        if provider in STATING and STATING[provider] in body:
            return True
        if provider in _RUN_TOOLS and any(key in body for key in _RUN_BY_THE_PROVIDER):
            return True
        return (
            is_stated(body, b'"audio_tokens"')
            or is_stated(body, b'"image_tokens"')
            or is_stated(body, b'"num_search_queries"')
        )

    def read_request(self, request: Mapping[str, Any]) -> None:
        """Read spoken characters, by which speech is billed, and the image tool's model."""
        if isinstance(text := request.get("input"), str) and "voice" in request:
            self._bill("input_characters", len(text))
        if self.provider == "groq":
            self._requested_model = text_in(request.get("model")) or ""
        self._read_tools(request)

    def attributes(self) -> dict[str, AttributeValue]:
        """Return the facts so far. Images with counted tokens are billed by these, not by the piece."""
        known = super().attributes()
        if span_attributes.USAGE_INPUT in known:
            known.pop(span_attributes.UNITS + "images", None)
        return known

    def _read(self, part: Mapping[str, Any]) -> None:
        if isinstance(part.get("response"), dict):  # an event of the Responses API
            part = part["response"]
            self._read_error(part)
        kind = part.get("object")
        if isinstance(kind, str) and kind.startswith(_PARTS_OF_A_RUN):
            return  # its usage is included in the run's
        self.model = text_in(part.get("model")) or self.model
        self.response_id = text_in(part.get("id")) or self.response_id
        if tier := text_in(part.get("service_tier")):
            self._tiers[span_attributes.OPENAI_SERVICE_TIER] = tier
        self._merge_usage(part.get(self.usage_key))
        if "x_groq" in part:
            groq = mapping_in(part["x_groq"])
            self._merge_usage(groq.get("usage"))
            self._read_error(groq)
        for choice in mappings_in(part.get("choices")):
            self._finished(choice.get("finish_reason"))
            if self.provider == "groq":
                self._read_executed(choice)
            if "usage" in choice:
                self._merge_usage(choice["usage"])  # Moonshot's streams
        if kind in _RESPONSES:
            self._read_response(part)
        elif "choices" not in part:
            self._read_promise(part)
        self._read_other_goods(part)

    def _read_response(self, response: Mapping[str, Any]) -> None:
        status = response.get("status")
        self._read_tools(response)
        goes_on = response.get("background") is True or response.get("object") == "thread.run"
        self.unfinished = goes_on and status in _AT_WORK and not self._usage
        self.gave_up = str(status) if status in _GIVEN_UP else None
        if kind := _STATUS_REASONS.get(str(status)):
            self._finished(kind)
            self._read_tool_calls(response)
        elif response.get("object") == "response.compaction":
            self._read_tool_calls(response)
        usage = mapping_in(response.get("tool_usage"))
        self._image_usage = merged(self._image_usage, mapping_in(usage.get("image_gen")))
        searches = count_in(usage, "web_search", "num_requests")
        if searches is not None:  # billed searches only: without repeats and opened pages
            self._units.pop(self._search_unit, None)
            self._bill(self._search_unit, searches)

    def _read_promise(self, part: Mapping[str, Any]) -> None:
        """Read the reference to a later completion: xAI's deferred or Perplexity's asynchronous one."""
        if self.provider == "x_ai" and "request_id" in part and not self._usage:
            self.response_id = text_in(part["request_id"]) or self.response_id
            self.unfinished = True
        elif self.provider == "perplexity" and "response" in part:
            status = str(part.get("status")).lower()
            self.unfinished = status in _PROMISED and not self._usage
            self.gave_up = status if status in _GIVEN_UP else None

    def _read_tools(self, part: Mapping[str, Any]) -> None:
        """Read the price-relevant options of tools in a request or response."""
        for tool in mappings_in(part.get("tools")):
            kind = str(tool.get("type"))
            if kind == "image_generation":
                self._image_model = text_in(tool.get("model")) or self._image_model
            elif kind.startswith(SEARCH_PREVIEW) and self._bills_as_openai():
                self._search_unit = "preview_web_searches"
            elif kind in _IN_CONTAINERS:
                self._gigabytes = max(self._gigabytes, gigabytes_of(tool))

    def _read_executed(self, choice: Mapping[str, Any]) -> None:
        self._executed = self._executed or ExecutedTools()
        self._executed.read(choice)
        for unit, count in self._executed.units(self._requested_model or self.model or "").items():
            self._bill(unit, count)

    def _read_tool_calls(self, response: Mapping[str, Any]) -> None:
        calls: dict[str, int] = {}
        containers: set[str] = set()
        drawn = 0
        for item in mappings_in(response.get("output")):
            kind = str(item.get("type"))
            action = item.get("action")
            # Opening a found page is not billed as a search.
            opened = isinstance(action, dict) and action.get("type") in ("open_page", "find", "find_in_page")
            if (unit := _BILLED_CALLS.get(kind)) and not opened:
                unit = self._search_unit if unit == "web_searches" else unit
                calls[unit] = calls.get(unit, 0) + 1
            if kind == "code_interpreter_call" and len(containers) < _CONTAINERS_MAX:
                containers.add(text_in(item.get("container_id")) or "")
            elif kind == "shell_call" and len(containers) < _CONTAINERS_MAX:
                # The provider's shell runs in a container; the user's does not.
                place = mapping_in(item.get("environment"))
                containers |= {name for name in (text_in(place.get("container_id")),) if name}
            if kind == _IMAGE_CALL and item.get("status") in (None, "completed"):
                drawn += 1
                self._image_model = text_in(item.get("model")) or self._image_model
        self._images_drawn = drawn
        if containers and self._bills_as_openai():
            calls.pop("code_executions", None)
            calls["container_sessions"] = SESSIONS.begun(containers, self.response_id or "") * self._gigabytes
        for unit, count in calls.items():
            self._bill(unit, count)

    def _bills_as_openai(self) -> bool:
        return self.provider in ("", "openai") or self.provider.startswith("azure")

    def _read_other_goods(self, part: Mapping[str, Any]) -> None:
        if "data" in part:
            images = [item for item in mappings_in(part["data"]) if "b64_json" in item or "url" in item]
            self._bill("images", len(images))
        kind = part.get("type")
        if isinstance(kind, str) and kind.startswith("image_") and kind.endswith(".completed"):
            self._bill("images", self._units.get("images", 0) + 1)
        usage = self._usage
        spoken = usage.get("seconds") if usage.get("type") == "duration" else part.get("duration")
        if "prompt_audio_seconds" in usage:  # Mistral
            spoken = usage["prompt_audio_seconds"]
        if spoken is not None:
            self._bill("audio_seconds", seconds_in(spoken))
        if "usage_info" in part:
            self._bill("input_document_pages", count_in(part, "usage_info", "pages_processed"))  # Mistral's OCR
        if not _COUNTS_SEARCHES.isdisjoint(usage):
            for path in _SEARCHES:
                self._searched(*path)
        if XAI_COUNTS in usage or MISTRAL_COUNTS in usage:
            for unit, count in counted_tools(usage).items():
                self._units.pop(unit, None)
                self._bill(unit, count)
        if "usage_breakdown" in part:
            models = mappings_in(mapping_in(part["usage_breakdown"]).get("models"))
            self._models = [model for model in models if isinstance(model.get("usage"), dict)] or self._models

    def _counts(self, usage: Mapping[str, Any]) -> dict[str, int | None]:
        if self._models and self.alone:  # Groq's systems are billed by the models that they used
            usage = self._models[0]["usage"]
            self.model = text_in(self._models[0].get("model")) or self.model
        known = counts_of(usage, separate_thoughts=self.provider.startswith("gcp."))
        known[span_attributes.USAGE_OUTPUT_IMAGE] = self._image_output(usage, known)
        return known

    def _image_output(self, usage: Mapping[str, Any], known: Mapping[str, int | None]) -> int | None:
        stated = known[span_attributes.USAGE_OUTPUT_IMAGE]
        # The images endpoint does not always split its output; then all of it is images.
        split = any(key in usage for key in ("output_tokens_details", "output_token_details"))
        output = known[span_attributes.USAGE_OUTPUT]
        return stated or (output if "images" in self._units and not split else None) or None

    def _lines(self) -> Sequence[Line]:
        """Return the image tool's work and that of further models of a Groq system."""
        return tuple(self._other_models()) if self._images_drawn or self._image_usage or self._models else ()

    def _other_models(self) -> Iterator[Line]:
        if self._images_drawn or first_count(self._image_usage, "total_tokens", "output_tokens"):
            tokens, units = image_tokens(self._image_usage)
            if not any(tokens.values()):
                units = {"images": self._images_drawn}
            yield Line("image_generation", self._image_model or _IMAGE_MODEL, tokens=tokens, units=units)
        if self.alone:
            for part in self._models[1:]:
                counts = counts_of(part["usage"])
                cached = counts[span_attributes.USAGE_CACHE_READ] or 0
                tokens = {
                    "input": max((counts[span_attributes.USAGE_INPUT] or 0) - cached, 0),
                    "cache_read": cached,
                    "output": counts[span_attributes.USAGE_OUTPUT] or 0,
                }
                yield Line("model", text_in(part.get("model")) or "", tokens=tokens)
