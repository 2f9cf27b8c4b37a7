"""Answers made in the background: one call, whose usage comes when it is asked for, however often that is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import farebox
import httpx
import httpx2
import openai
import pytest
from farebox import later_answers
from farebox.later_answers import KEPT_MAX, KEPT_S, LaterAnswers
from sdk.sdk_support import Metered

INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
BASE = "https://api.openai.com/v1"
USAGE = {"input_tokens": 70, "output_tokens": 30, "total_tokens": 100}


@pytest.fixture(autouse=True)
def _no_ids_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later_answers, "_counted", type(later_answers._counted)())


def response(response_id: str, status: str, usage: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "id": response_id,
        "object": "response",
        "status": status,
        "background": True,
        "model": "gpt-5",
        "output": [],
        "usage": usage,
        **more,
    }


def run(status: str, usage: Any = None) -> dict[str, Any]:
    return {"id": "run_1", "object": "thread.run", "status": status, "model": "gpt-4o", "usage": usage}


def client(*bodies: Any) -> httpx.Client:
    answers: Iterator[Any] = iter(bodies)
    return httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=next(answers))))


def test_a_background_response_is_charged_once_to_the_action_that_asked_for_it(metered: Metered) -> None:
    done = response("resp_1", "completed", USAGE)
    with client(response("resp_1", "queued"), response("resp_1", "in_progress"), done, done) as http:
        with farebox.action("report.write", wallet="ada", project="help") as action:
            http.post(f"{BASE}/responses", json={"model": "gpt-5", "background": True})
        for _ in range(3):
            http.get(f"{BASE}/responses/resp_1")
    attributes = metered.attributes()
    assert attributes["gen_ai.operation.name"] == "chat"
    assert (attributes[INPUT], attributes[OUTPUT]) == (70, 30)
    assert attributes["gen_ai.response.id"] == "resp_1"
    assert attributes["farebox.wallet"] == "ada"
    assert attributes["farebox.project"] == "help"
    assert attributes["farebox.action.id"] == action.action_id
    assert "farebox.usage.missing" not in attributes


def test_one_that_is_never_asked_for_is_sent_without_usage_in_the_end(metered: Metered) -> None:
    with client(response("resp_2", "queued")) as http:
        http.post(f"{BASE}/responses", json={"model": "gpt-5", "background": True})
    assert metered.spans() == []
    farebox.uninstrument()
    (span,) = metered.exporter.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert attributes["farebox.usage.missing"] == "background"
    assert attributes["gen_ai.response.id"] == "resp_2"
    assert INPUT not in attributes


def test_one_that_fails_ends_as_an_error_without_usage(metered: Metered) -> None:
    failed = response("resp_3", "failed", error={"code": "server_error", "message": "busy"})
    with client(
        response("resp_3", "queued"), failed, response("resp_3b", "queued"), response("resp_3b", "cancelled")
    ) as http:
        for response_id in ("resp_3", "resp_3b"):
            http.post(f"{BASE}/responses", json={"model": "gpt-5", "background": True})
            http.get(f"{BASE}/responses/{response_id}")
    assert [(span.attributes or {})["error.type"] for span in metered.spans()] == ["server_error", "cancelled"]


def test_asking_again_for_an_answer_that_was_charged_is_no_call(metered: Metered) -> None:
    done = response("resp_4", "completed", USAGE, background=False)
    with client(done, done) as http:
        http.post(f"{BASE}/responses", json={"model": "gpt-5"})
        http.get(f"{BASE}/responses/resp_4")
    assert metered.attributes()[INPUT] == 70


def test_an_answer_that_another_process_began_is_charged_where_it_is_fetched(metered: Metered) -> None:
    with client(response("resp_5", "completed", USAGE)) as http, farebox.action("report.read", wallet="bob"):
        http.get(f"{BASE}/responses/resp_5")
    attributes = metered.attributes()
    assert (attributes[INPUT], attributes["farebox.wallet"]) == (70, "bob")


def test_the_official_client_in_the_background(metered: Metered) -> None:
    answers = iter([response("resp_6", "queued"), response("resp_6", "completed", USAGE)])
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json=next(answers))))
    with openai.OpenAI(api_key="none", max_retries=0, http_client=http) as openai_client:
        with farebox.action("report.write", wallet="ada"):
            openai_client.responses.create(model="gpt-5", input="Hello", background=True)
        openai_client.responses.retrieve("resp_6")
    attributes = metered.attributes()
    assert (attributes[INPUT], attributes["farebox.wallet"]) == (70, "ada")


def test_a_stream_that_is_taken_up_again(metered: Metered) -> None:
    def events(*parts: Any) -> bytes:
        return b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts)

    created = {"type": "response.created", "response": response("resp_7", "in_progress")}
    completed = {"type": "response.completed", "response": response("resp_7", "completed", USAGE)}
    wire = iter([events(created), events({"type": "response.output_text.delta", "delta": "x"}, completed)])
    headers = {"content-type": "text/event-stream"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=next(wire)))
    with httpx.Client(transport=transport) as http:
        http.post(f"{BASE}/responses", json={"model": "gpt-5", "background": True, "stream": True})
        http.get(f"{BASE}/responses/resp_7?stream=true&starting_after=1")
    attributes = metered.attributes()
    assert (attributes[INPUT], attributes[OUTPUT]) == (70, 30)


def test_a_compaction_is_a_call(metered: Metered) -> None:
    body = {"id": "resp_c", "object": "response.compaction", "output": [], "usage": USAGE}
    with client(body) as http:
        http.post(f"{BASE}/responses/compact", json={"model": "gpt-5"})
    attributes = metered.attributes()
    assert (attributes[INPUT], attributes["gen_ai.request.model"]) == (70, "gpt-5")


def test_a_run_of_an_assistant(metered: Metered) -> None:
    usage = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}
    with client(run("queued"), run("requires_action"), run("queued"), run("completed", usage)) as http:
        with farebox.tags(wallet="ada"):
            http.post(f"{BASE}/threads/thread_1/runs", json={"assistant_id": "asst_1"})
        http.get(f"{BASE}/threads/thread_1/runs/run_1")
        http.post(f"{BASE}/threads/thread_1/runs/run_1/submit_tool_outputs", json={"tool_outputs": []})
        http.get(f"{BASE}/threads/thread_1/runs/run_1")
    attributes = metered.attributes()
    assert (attributes[INPUT], attributes[OUTPUT], attributes["farebox.wallet"]) == (70, 30, "ada")


DONE = {"id": "cmpl-1", "object": "chat.completion", "choices": [{"finish_reason": "stop"}], "usage": USAGE}


@pytest.mark.parametrize(
    ("begun_at", "begun", "fetched_at", "answers"),
    [
        (
            "https://api.x.ai/v1/chat/completions",
            {"request_id": "7f0a"},
            "https://api.x.ai/v1/chat/deferred-completion/7f0a",
            [{}, {**DONE, "model": "grok-4"}],
        ),
        (
            "https://api.perplexity.ai/async/chat/completions",
            {"id": "7f0b", "model": "sonar", "status": "CREATED", "response": None},
            "https://api.perplexity.ai/async/chat/completions/7f0b",
            [
                {"id": "7f0b", "status": "IN_PROGRESS", "response": None},
                *2 * [{"id": "7f0b", "status": "COMPLETED", "response": {**DONE, "model": "sonar"}}],
            ],
        ),
    ],
    ids=["deferred", "asynchronous"],
)
def test_a_completion_that_is_promised_under_an_id_of_its_own(
    metered: Metered, begun_at: str, begun: Any, fetched_at: str, answers: list[Any]
) -> None:
    with client(begun, *answers) as http:
        with farebox.tags(wallet="ada"):
            http.post(begun_at, json={"model": "m", "messages": []})
        for _ in answers:
            http.get(fetched_at)
    attributes = metered.attributes()
    assert (attributes[INPUT], attributes[OUTPUT], attributes["farebox.wallet"]) == (70, 30, "ada")
    assert attributes["gen_ai.response.id"] == fetched_at.rpartition("/")[2]


@pytest.mark.parametrize("path", ["/responses", "/responses/resp_8/input_items", "/threads/thread_1/runs", "/models"])
def test_other_questions_are_left_alone(metered: Metered, path: str) -> None:
    with client({"object": "list", "data": [response("resp_8", "completed", USAGE)]}) as http:
        http.get(BASE + path)
    assert metered.spans() == []


def test_what_waits_is_bounded_in_number_and_time() -> None:
    sent: list[int] = []
    later = LaterAnswers()
    for number in range(KEPT_MAX + 2):
        later.keep(f"resp_{number}", lambda number=number: sent.append(number), {}, now_s=0)  # type: ignore[misc]
    assert sent == [0, 1]
    assert later.answered("resp_5") == {}
    later.send_old(KEPT_S + 1)
    assert len(sent) == KEPT_MAX + 1
    assert 5 not in sent
    assert not later
