"""Read a request's body: the model, the stream flag and the parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from farebox import span_attributes

PARSED_BYTES_MAX: Final = 64 * 1024
"""Request bodies above this are searched for the model, and not parsed."""
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]{1,256})"')
_FORM_MODEL: Final = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,256})\r\n')
_STREAM: Final = re.compile(rb'"stream"\s*:\s*true')
_FORM_END_BYTES: Final = 4096
_PARAMETERS: Final = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}


class ModelRequest:
    """A request as far as its body is known; a streamed body can only be read by the transport."""

    def __init__(self, body: bytes = b"", form: Mapping[str, object] | None = None) -> None:
        """Read the body or a form's fields; an empty body is unknown."""
        self.fields: Mapping[str, Any] = {}
        self.model: str | None = None
        self.streams = False
        if form is not None:
            self._take(form)
            self.streams = form.get("stream") == "true"
        elif body[:2] == b"--":  # a form, as for audio files: fields may come before or after the file
            found = _FORM_MODEL.search(body[:_FORM_END_BYTES]) or _FORM_MODEL.search(body[-_FORM_END_BYTES:])
            self.model = found.group(1).decode(errors="replace") if found else None
        elif len(body) > PARSED_BYTES_MAX:
            # Images make bodies of megabytes. Inside a JSON string a quote is escaped, so these matches are keys.
            found = _MODEL.search(body)
            self.model = found.group(1).decode() if found else None
            self.streams = _STREAM.search(body) is not None
        elif body:
            self._read(body)

    def _read(self, body: bytes) -> None:
        try:
            fields: object = json.loads(body)
        except (ValueError, RecursionError):
            return
        if isinstance(fields, dict):
            self._take(fields)
            self.streams = fields.get("stream") is True

    def _take(self, fields: Mapping[str, object]) -> None:
        self.fields = fields
        model = fields.get("model")
        self.model = model if isinstance(model, str) and model else None

    @classmethod
    def of(cls, request: Any) -> ModelRequest:
        """Read a request of httpx or httpx2: the fields of a form with a file, nothing of other streams."""
        if hasattr(request, "_content"):
            return cls(request.content)
        fields = getattr(getattr(request, "stream", None), "fields", None)
        if not isinstance(fields, list):
            return cls()
        return cls(form={field.name: field.value for field in fields if isinstance(getattr(field, "value", None), str)})

    def attributes(self) -> dict[str, Any]:
        """Return the request's parameters as span attributes, without content."""
        known: dict[str, Any] = {}
        if not _PARAMETERS.keys().isdisjoint(self.fields):
            for name, attribute in _PARAMETERS.items():
                value = self.fields.get(name)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    known[attribute] = value
        if self.streams:
            known[span_attributes.REQUEST_STREAM] = True
        return known
