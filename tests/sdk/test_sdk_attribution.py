"""Actions and tags: what is inherited, what gets an id of its own, and where they hold."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import uuid
from collections.abc import AsyncGenerator, Generator
from typing import Any

import farebox
import httpx
import pytest
from farebox.attribution import current
from opentelemetry.trace import SpanKind
from sdk.sdk_support import Metered


def now() -> dict[str, str]:
    """What calls that start here are tagged with, without the action's id."""
    attribution = current()
    attributes = dict(attribution.attributes) if attribution else {}
    attributes.pop("farebox.action.id", None)
    return {key.removeprefix("farebox."): str(value) for key, value in attributes.items()}


def action_id() -> str | None:
    attribution = current()
    return attribution.action_id if attribution else None


def test_an_inner_action_inherits_what_it_leaves_out() -> None:
    with farebox.action("agent.run", wallet="ada", dept="research", route="cheap"):
        with farebox.action("chat.reply", dept="support", task="sum-up") as inner:
            assert now() == {
                "event": "chat.reply",
                "wallet": "ada",
                "dept": "support",
                "task": "sum-up",
                "route": "cheap",
            }
            assert (inner.event, inner.wallet, inner.action_id) == ("chat.reply", "ada", action_id())
        assert now() == {"event": "agent.run", "wallet": "ada", "dept": "research", "route": "cheap"}
    assert current() is None


def test_each_action_has_an_id_of_its_own_unless_it_repeats_the_one_around_it() -> None:
    scope = farebox.action("agent.run", wallet="ada")
    with scope:
        first = action_id()
        with farebox.action("agent.run"):
            assert action_id() == first
        with farebox.tags(task="plan"):
            assert action_id() == first
        with farebox.action("chat.reply"):
            assert action_id() != first
        with farebox.action("agent.run", wallet="grace"):
            assert action_id() != first
    with scope:
        assert action_id() != first


def test_tags_without_an_action_have_no_id() -> None:
    with farebox.tags(wallet="ada", project="shop") as tags:
        assert now() == {"wallet": "ada", "project": "shop"}
        assert tags.action_id is None
        assert tags.event is None


@pytest.mark.parametrize("wallet", [7, uuid.UUID(int=7)])
def test_a_wallet_is_its_text(wallet: Any) -> None:
    with farebox.action("chat.reply", wallet=wallet):
        assert now()["wallet"] == str(wallet)


def test_an_empty_wallet_is_none_and_one_without_a_text_does_no_harm() -> None:
    class Unreadable:
        def __str__(self) -> str:
            raise RuntimeError("detached")

    with farebox.tags(wallet="ada"):
        for wallet in ("", None, Unreadable()):
            with farebox.action("chat.reply", wallet=wallet):
                assert now() == {"event": "chat.reply", "wallet": "ada"}


def test_an_exception_passes_and_ends_the_action() -> None:
    @farebox.action("chat.reply")
    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert current() is None


def test_decorated_functions_stay_what_they_are() -> None:
    @farebox.action("chat.reply", wallet="ada")
    def reply(question: str, *, loud: bool = False) -> str:
        """Answers."""
        return f"{question} {loud} {now()['event']}"

    @farebox.action("agent.run")
    async def run(steps: int) -> tuple[int, str | None]:
        await asyncio.sleep(0)
        return steps, action_id()

    assert reply("Why?", loud=True) == "Why? True chat.reply"
    assert reply.__doc__ == "Answers."
    assert inspect.iscoroutinefunction(run)

    async def both() -> list[tuple[int, str | None]]:
        return list(await asyncio.gather(run(1), run(2)))

    (one, first), (two, second) = asyncio.run(both())
    assert (one, two) == (1, 2)
    assert first is not None
    assert second is not None
    assert first != second


def test_a_generator_is_inside_its_action_and_its_consumer_is_not() -> None:
    @farebox.action("chat.reply", wallet="ada")
    def reply() -> Generator[Any, str, str]:
        first = action_id()
        sent = yield now()["event"]
        with farebox.tags(task="second"):
            try:
                yield sent
            except ValueError:
                yield now()["task"]
        assert action_id() == first
        return "done"

    generator = reply()
    # Each step in a context of its own, as a web framework advances a streamed response in a pool of threads.
    assert contextvars.copy_context().run(next, generator) == "chat.reply"
    assert current() is None
    assert contextvars.copy_context().run(generator.send, "sent") == "sent"
    assert contextvars.copy_context().run(generator.throw, ValueError()) == "second"
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "done"
    assert current() is None


def test_closing_a_generator_closes_the_one_inside() -> None:
    closed = []

    @farebox.action("chat.reply")
    def reply() -> Generator[int]:
        try:
            yield 1
        finally:
            closed.append(now()["event"])

    generator = reply()
    next(generator)
    generator.close()
    assert closed == ["chat.reply"]


def test_an_async_generator_is_inside_its_action_and_its_consumer_is_not() -> None:
    closed = []

    @farebox.action("chat.reply")
    async def reply() -> AsyncGenerator[str]:
        try:
            yield now()["event"]
            await asyncio.sleep(0)
            yield now()["event"]
            yield "never read"
        finally:
            closed.append(now()["event"])

    async def consume() -> None:
        generator = reply()
        assert await anext(generator) == "chat.reply"
        assert current() is None
        assert await anext(generator) == "chat.reply"
        await generator.aclose()
        assert closed == ["chat.reply"]

        thrown = reply()
        await anext(thrown)
        with pytest.raises(KeyError):
            await thrown.athrow(KeyError())

    asyncio.run(consume())


def test_tasks_do_not_see_each_others_actions() -> None:
    async def user(wallet: str) -> None:
        async with farebox.action("chat.reply", wallet=wallet):
            await together.wait()
            assert now()["wallet"] == wallet
            assert (await asyncio.to_thread(now))["wallet"] == wallet
            assert (await asyncio.create_task(child()))["wallet"] == wallet

    async def child() -> dict[str, str]:
        return now()

    async def main() -> None:
        await asyncio.gather(*(user(wallet) for wallet in wallets))

    wallets = ["ada", "grace", "linus"]
    together = asyncio.Barrier(len(wallets))
    asyncio.run(main())


def test_a_thread_starts_without_an_action_unless_it_gets_the_context() -> None:
    seen = []
    with farebox.action("chat.reply", wallet="ada"):
        threads = [
            threading.Thread(target=lambda: seen.append(now())),
            threading.Thread(target=contextvars.copy_context().run, args=(lambda: seen.append(now()),)),
        ]
        for thread in threads:
            thread.start()
            thread.join()
    assert seen == [{}, {"event": "chat.reply", "wallet": "ada"}]


def test_one_scope_in_several_threads() -> None:
    scope = farebox.action("chat.reply", wallet="ada")
    together = threading.Barrier(3)
    ids = []

    def work() -> None:
        with scope:
            together.wait()
            ids.append(action_id())
            together.wait()
        assert current() is None

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 3


def test_leaving_in_another_context_leaves_that_context_alone() -> None:
    scope = farebox.action("chat.reply")
    contextvars.copy_context().run(scope.__enter__)
    with farebox.tags(wallet="ada"):
        scope.__exit__(None, None, None)
        assert now() == {"wallet": "ada"}


def test_every_span_of_a_call_is_tagged(metered: Metered) -> None:
    ask: Any = {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "Hello"}]}
    with farebox.action("chat.reply", wallet="ada", dept="support", project="help", task="t", route="r") as reply:
        metered.openai().chat.completions.create(model="gpt-4o-mini", messages=ask["messages"])
        metered.anthropic().messages.create(max_tokens=9, **ask)
        httpx.post(f"{metered.model_url}/v1/messages", json=ask)
    spans = metered.spans()
    assert len(spans) == 3
    for span in spans:
        tags = {key: value for key, value in (span.attributes or {}).items() if key.startswith("farebox.")}
        for estimate in ("farebox.cost_actual", "farebox.cost_per_1k", "farebox.currency"):
            tags.pop(estimate)
        assert tags.pop("farebox.cache_hit", False) is False
        assert tags == {
            "farebox.action.id": reply.action_id,
            "farebox.event": "chat.reply",
            "farebox.wallet": "ada",
            "farebox.dept": "support",
            "farebox.project": "help",
            "farebox.task": "t",
            "farebox.route": "r",
        }


def test_a_stream_is_tagged_with_the_action_in_which_it_began(metered: Metered) -> None:
    with farebox.action("chat.reply", wallet="ada"):
        stream = metered.openai().chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}], stream=True
        )
    with farebox.action("other", wallet="grace"):
        for _ in stream:
            pass
    assert metered.attributes()["farebox.wallet"] == "ada"


def test_a_span_that_says_only_late_what_it_is(metered: Metered) -> None:
    tracer = metered.provider.get_tracer("another instrumentation")
    with farebox.action("chat.reply", wallet="ada"):
        span = tracer.start_span("chat", kind=SpanKind.CLIENT)
        tracer.start_span("SELECT", kind=SpanKind.CLIENT).end()
    span.set_attribute("openinference.span.kind", "LLM")
    span.end()
    assert metered.attributes() == {
        "openinference.span.kind": "LLM",
        "farebox.event": "chat.reply",
        "farebox.wallet": "ada",
        "farebox.action.id": metered.attributes()["farebox.action.id"],
    }


def test_what_a_span_says_itself_stays(metered: Metered) -> None:
    with farebox.action("chat.reply", wallet="ada"):
        metered.provider.get_tracer("app").start_span("x", attributes={"farebox.wallet": "grace"}).end()
    assert metered.attributes()["farebox.wallet"] == "grace"
    assert metered.attributes()["farebox.event"] == "chat.reply"
