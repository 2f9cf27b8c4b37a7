"""Read the AI SDK's `ai.response.providerMetadata`, beyond counts: conditions, iterations, a stated cost."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from farebox_collector.dialects.text import InvalidCount
from farebox_collector.dialects.unusual import as_processed, conditions_in, stated_nanousd
from farebox_collector.dialects.usage_json import (
    count_in,
    object_in,
    of_model,
    other_lines,
)
from farebox_collector.model.records import Rejected, UsageRecord

_MAX_PROVIDERS = 8
_INSIDE = ("usage", "usageMetadata")


def with_metadata(record: UsageRecord | Rejected, metadata: Mapping[str, Any]) -> UsageRecord | Rejected:
    """Add the facts in the metadata of an answer to a record."""
    for entry in _objects(metadata):
        record = as_processed(record, conditions_in(entry))
    if isinstance(record, Rejected) or record.buckets is None:
        return record
    stated = stated_nanousd(object_in(object_in(metadata, "openrouter"), "usage").get("cost"))
    if stated is not None and record.stated_cost_nanousd is None:
        record = record._replace(stated_cost_nanousd=stated)
    usage = object_in(object_in(metadata, "anthropic"), "usage")
    return _with_iterations(record, usage) if "iterations" in usage else record


def _objects(metadata: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for own in islice(metadata.values(), _MAX_PROVIDERS):
        if isinstance(own, dict):
            yield own
            yield from (object_in(own, key) for key in _INSIDE)


def _with_iterations(record: UsageRecord, usage: Mapping[str, Any]) -> UsageRecord | Rejected:
    """Add what Anthropic's counts omit: a compaction and an advisor; from version 6 on the SDK adds the compaction."""
    model = record.response_model or record.request_model
    try:
        lines = other_lines(usage, model)
        made = count_in(usage, "output_tokens") or 0
    except InvalidCount as error:
        return Rejected(str(error))
    own = of_model(lines, model)
    if own and record.buckets is not None and record.buckets.output != made:
        lines = tuple(line for line in lines if line not in own)
    return record._replace(other_lines=record.other_lines + lines) if lines else record
