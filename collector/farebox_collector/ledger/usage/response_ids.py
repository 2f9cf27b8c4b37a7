"""How far a response id identifies one call, and the key under which the call is claimed.

Providers' own ids are permanently unique: `resp_…`, `msg_…`, `gen-…`, `chatcmpl-…`, and the `req_…` of a request, which
coding agents report in place of the response's. Spans with the same one show one call, even if it is fetched
repeatedly, hours later, or reported by an emitter that writes its spans afterwards. But small servers number their
answers from 0 to 999 in the same format, and test servers repeat one id permanently. So a short id identifies a call
only together with equal counts, and any other id only for spans that overlap in time.
"""

import re
from enum import IntEnum
from hashlib import blake2b

_PREFIXES = {"resp": "resp_", "msg_": "msg_", "req_": "req_", "gen-": "gen-", "chat": "chatcmpl-"}
_LONG = 16
"""Characters after the prefix from which on an id is considered random enough."""
_UUIDS = (32, 36)
_EPOCHS = range(1_600_000_000, 2_200_000_000)
"""Plausible seconds for the time in an id."""
_HEX = re.compile(r"[0-9a-f]{8}")
OVERLAP_BYTES, WINDOW_BYTES, FOREVER_BYTES = 16, 17, 22
"""Key lengths of ids that identify one call while spans overlap, for some hours, and permanently."""


class Uniqueness(IntEnum):
    """When equal ids mean one call."""

    OVERLAPPING = 0
    """If the spans overlap in time."""
    WITH_EQUAL_COUNTS = 1
    """If the counts are equal too, at any time."""
    FOREVER = 2


def uniqueness(response_id: str) -> Uniqueness:
    """Return when spans with this id show one call."""
    prefix = _PREFIXES.get(response_id[:4])
    if prefix is None or not response_id.startswith(prefix):
        return Uniqueness.OVERLAPPING
    if len(response_id) - len(prefix) >= _LONG:
        return Uniqueness.FOREVER
    # Ollama numbers its chat completions at random from 0 to 998.
    return Uniqueness.OVERLAPPING if prefix == "chatcmpl-" else Uniqueness.WITH_EQUAL_COUNTS


def call_key(response_id: str) -> bytes | None:
    """Return the key that spans of one call share; None for a call without a response id.

    The provider's name is excluded on purpose: two instrumentations of one Azure call name it differently, and response
    ids are unique without it. Equal keys do not yet mean the same call (`deduplication`). Permanent keys begin with
    what orders the ids in time, if they contain it, so that current keys are adjacent in the index.
    """
    if not response_id:
        return None
    digest = blake2b(response_id.encode(), digest_size=16).digest()
    prefix = _PREFIXES.get(response_id[:4])
    if prefix is None or not response_id.startswith(prefix):
        return digest
    rest = response_id[len(prefix) :]
    if prefix in ("msg_", "req_"):
        return prefix[:1].encode() + digest
    if prefix == "chatcmpl-":
        # OpenAI's own ids are ordered; random ids would each go to another page.
        return digest if len(rest) < _LONG or len(rest) in _UUIDS else rest.encode()[:6] + digest
    seconds = _seconds_in(rest, prefix)
    return (digest[:6] if seconds is None else seconds.to_bytes(6, "big")) + digest


def _seconds_in(rest: str, prefix: str) -> int | None:
    """Return the Unix time in an id of OpenAI's responses or OpenRouter's generations."""
    if prefix == "gen-":
        found = rest[:10]
        return int(found) if len(found) == 10 and found.isascii() and found.isdigit() else None
    for digits in (rest[:8], rest[18:26]):
        if _HEX.fullmatch(digits) and (seconds := int(digits, 16)) in _EPOCHS:
            return seconds
    return None
