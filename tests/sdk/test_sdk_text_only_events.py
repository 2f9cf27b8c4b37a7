"""Events that differ from one before in their text only are passed over; all that may tell something are looked at."""

from __future__ import annotations

import json
from typing import Any

import pytest
from farebox.answers import answer_in
from farebox.model_paths import Shape
from farebox.text_only_events import LEARNED_MAX, TextOnlyEvents
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(max_size=12) | st.sampled_from(
    ["error", "message_stop", '"', "\\", '","usage":{"a":1},"b":"', "done\n\n"]
)
PIECES = st.sampled_from([{}, {"usage": None}, {"usage": {"prompt_tokens": 5}}, {"obfuscation": "xyz"}, {"error": "e"}])


def chat(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    event = {"id": "chatcmpl-1", "choices": [choice], "usage": None, **more}
    return b"data: %s\n\n" % json.dumps(event, separators=(",", ":")).encode()


def message(text: str) -> bytes:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return b"event: content_block_delta\ndata: %s\n\n" % json.dumps(event).encode()


def learned(event: bytes) -> TextOnlyEvents:
    alike = TextOnlyEvents()
    alike.learn(event)
    return alike


@pytest.mark.parametrize("made", [chat, message], ids=["chat", "message"])
def test_events_that_only_bring_other_text_fit(made: Any) -> None:
    alike = learned(made("Hello"))
    assert all(alike.fits(made(text)) for text in ("", "a", " much longer than the first was", "über", "\n"))


def test_padding_of_any_length_fits() -> None:
    alike = learned(chat("Hello", obfuscation="abc"))
    assert all(alike.fits(chat("word", obfuscation="x" * length)) for length in (0, 1, 40))
    assert not alike.fits(chat("word", obfuscation="x", error="late"))


def test_nothing_fits_before_an_event_was_learned() -> None:
    assert not any(TextOnlyEvents().fits(chunk) for chunk in (b"", b"\0", b"\0\0", chat("Hello")))


@pytest.mark.parametrize(
    "other",
    [
        chat("Hello", usage={"prompt_tokens": 5}),
        chat("Hello", choices=[{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]),
        chat("Hello", error={"code": "late"}),
        chat('with a "quote"'),
        chat("one") + chat("two"),
        chat("one")[:-1],
        chat("one")[:40],
        b"data: [DONE]\n\n",
        b"",
    ],
    ids=["usage", "finish", "error", "quote", "two events", "no end", "a part", "done", "nothing"],
)
def test_whatever_else_differs_does_not_fit(other: bytes) -> None:
    assert not learned(chat("Hello")).fits(other)


@pytest.mark.parametrize("event", [b"data: {}\n\n", chat("a") + chat("b"), chat("a")[:-2], chat('a"')], ids=str)
def test_what_has_no_plain_text_teaches_nothing(event: bytes) -> None:
    alike = learned(event)
    assert not alike.fits(event)


def test_a_frame_that_changes_all_the_time_is_given_up() -> None:
    alike = TextOnlyEvents()
    for number in range(LEARNED_MAX):
        alike.learn(chat("Hello", number=number))
    alike.learn(chat("Hello", number=-1))
    assert not alike.fits(chat("Hello", number=-1))
    assert alike.fits(chat("Hello", number=LEARNED_MAX - 1))


@given(st.lists(st.tuples(st.sampled_from([chat, message]), TEXT, PIECES), min_size=1, max_size=20))
def test_an_event_that_fits_tells_nothing(parts: list[tuple[Any, str, dict[str, Any]]]) -> None:
    """Against a reading of the JSON: what is passed over has no key and no value but text that was not there before."""
    searches = [answer_in(shape).fact_pattern for shape in (Shape.OPENAI, Shape.ANTHROPIC, Shape.COHERE, Shape.OLLAMA)]
    alike, frames = TextOnlyEvents(), []
    for made, text, more in parts:
        event = made(text, **more) if made is chat else made(text)
        if alike.fits(event):
            assert frame(event) in frames
        elif all(search is None or search.search(event) is None for search in searches):
            alike.learn(event)
            frames.append(frame(event))


def frame(event: bytes) -> Any:
    """The event without its texts."""

    def blank(value: Any) -> Any:
        if isinstance(value, dict):
            texts = ("content", "text", "obfuscation")
            return {key: "" if key in texts else blank(part) for key, part in value.items()}
        return [blank(part) for part in value] if isinstance(value, list) else value

    return blank(json.loads(event[event.index(b"data: ") + 6 :]))
