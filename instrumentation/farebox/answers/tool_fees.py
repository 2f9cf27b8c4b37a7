"""Count tools that OpenAI-compatible providers run and bill in addition to tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from farebox.answers.counts import count_in, mapping_in, mappings_in, text_in

Units = dict[str, int]
"""Counts by unit of ``span_attributes.UNITS_WRITTEN``."""

_XAI_CALLS: Final = {
    "web_search_calls": "web_searches",
    "x_search_calls": "social_searches",
    "code_interpreter_calls": "code_executions",
    "file_search_calls": "storage_searches",
    "document_search_calls": "document_searches",
}
_MISTRAL_CALLS: Final = {
    "web_search": "web_searches",
    "web_search_premium": "advanced_web_searches",
    "code_interpreter": "code_executions",
    "image_generation": "images",
}
XAI_COUNTS: Final = "server_side_tool_usage_details"
MISTRAL_COUNTS: Final = "connectors"
SEARCH_PREVIEW: Final = "web_search_preview"
"""Prefix of the types of OpenAI's preview search tool, which has its own fee."""
_TOOLS_MAX: Final = 1_000
_GIGABYTES: Final = {"1g": 1, "4g": 4, "16g": 16, "64g": 64}


def counted_tools(usage: Mapping[str, Any]) -> Units:
    """Return the executed tools that xAI and Mistral count in the usage; zero for those that did not run."""
    found: Units = {}
    for key, units in ((XAI_COUNTS, _XAI_CALLS), (MISTRAL_COUNTS, _MISTRAL_CALLS)):
        if key in usage:
            counts = mapping_in(usage[key])
            found.update({unit: count for name, unit in units.items() if (count := count_in(counts, name)) is not None})
    return found


class ExecutedTools:
    """The tools that Groq ran, from a message or its parts, each counted once by its position."""

    def __init__(self) -> None:
        """Start empty."""
        self._units: dict[object, str] = {}

    def read(self, choice: Mapping[str, Any]) -> None:
        """Read a choice or a part of one."""
        for part in (mapping_in(choice.get("message")), mapping_in(choice.get("delta"))):
            for place, tool in enumerate(mappings_in(part.get("executed_tools"))):
                unit = _groq_unit(tool)
                if unit and len(self._units) < _TOOLS_MAX:
                    index = tool.get("index")
                    self._units[index if isinstance(index, int) else place] = unit

    def units(self, asked: str) -> Units:
        """Return the counts. ``asked`` is the request's model: Groq's systems use advanced search."""
        counts: Units = {}
        for unit in self._units.values():
            if unit == "web_searches" and "compound" in asked:
                unit = "advanced_web_searches"
            counts[unit] = counts.get(unit, 0) + 1
        return counts


def _groq_unit(tool: Mapping[str, Any]) -> str:
    name = f"{text_in(tool.get('type')) or ''} {text_in(tool.get('name')) or ''}".lower()
    if name.endswith((".open", "visit", "visit_website")) or "visit" in name:
        return "web_visits"
    if name.endswith(".find"):
        return ""  # a search within an opened page
    if "search" in name:
        return "web_searches"
    if "automation" in name:
        return "browser_automations"
    return "code_executions" if "python" in name or "code" in name else ""


def gigabytes_of(tool: Mapping[str, Any]) -> int:
    """Return the memory of a tool's container, which decides its price; 1 by default."""
    place = mapping_in(tool.get("container")) or mapping_in(tool.get("environment"))
    return _GIGABYTES.get(str(place.get("memory_limit")).lower(), 1)
