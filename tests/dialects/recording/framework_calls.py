"""The scripted calls, made through frameworks, and small agents that call a tool. Imports late: see provider_calls."""

from typing import Any

from provider_calls import CALLS, PROMPT, call_span, headers


def look() -> str:
    """Look at the model server."""
    return "It stands on loopback."


def langchain_calls(url: str) -> None:
    """Chat, stream, cache, reasoning, an error and an agent with LangChain and LangGraph."""
    from langchain.agents import create_agent
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    def model(name: str, **more: Any) -> Any:
        if name.startswith("anthropic"):
            return ChatAnthropic(
                model=CALLS[name]["model"], base_url=url, api_key="none", default_headers=headers(name), max_retries=0
            )
        return ChatOpenAI(
            model=CALLS[name]["model"],
            base_url=f"{url}/v1",
            api_key="none",
            default_headers=headers(name),
            max_retries=0,
            **more,
        )

    for provider, kinds in (
        ("openai", ("chat", "cache", "reasoning", "audio", "error")),
        ("anthropic", ("chat", "cache", "reasoning", "search", "error")),
    ):
        for kind in kinds:
            name = f"{provider}.{kind}"
            with call_span(name):
                model(name).invoke(PROMPT)
    for name, usage in (
        ("openai.stream", True),
        ("openai.stream_without_usage", False),
        ("anthropic.stream", None),
        ("anthropic.cache_stream", None),
    ):
        with call_span(name):
            for _ in model(name, stream_usage=usage).stream(PROMPT):
                pass
    with call_span("openai.responses"):
        model("openai.responses", use_responses_api=True).invoke(PROMPT)
    with call_span("openai.embeddings"):
        OpenAIEmbeddings(
            model=CALLS["openai.embeddings"]["model"],
            base_url=f"{url}/v1",
            api_key="none",
            default_headers=headers("openai.embeddings"),
            check_embedding_ctx_length=False,
        ).embed_query(PROMPT)
    for name in ("openai.agent", "anthropic.agent"):
        with call_span(name):
            create_agent(model(name), tools=[look]).invoke({"messages": [{"role": "user", "content": PROMPT}]})


def pydantic_ai_calls(url: str) -> None:
    """The same with pydantic-ai."""
    from pydantic_ai import Agent, Embedder
    from pydantic_ai.direct import model_request_stream_sync, model_request_sync
    from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
    from pydantic_ai.messages import ModelRequest
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    openai_provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    anthropic_provider = AnthropicProvider(base_url=url, api_key="none")

    def model(name: str) -> Any:
        if name.startswith("anthropic"):
            return AnthropicModel(CALLS[name]["model"], provider=anthropic_provider)
        made = OpenAIResponsesModel if name == "openai.responses" else OpenAIChatModel
        return made(CALLS[name]["model"], provider=openai_provider)

    prompt = [ModelRequest.user_text_prompt(PROMPT)]
    openai_kinds = ("chat", "cache", "reasoning", "audio", "responses", "error")
    anthropic_kinds = ("chat", "cache", "reasoning", "search", "error")
    names = [f"openai.{kind}" for kind in openai_kinds] + [f"anthropic.{kind}" for kind in anthropic_kinds]
    for name in names:
        with call_span(name):
            model_request_sync(model(name), prompt, model_settings={"extra_headers": headers(name)})
    for name in ("openai.stream", "anthropic.stream", "anthropic.cache_stream"):
        with (
            call_span(name),
            model_request_stream_sync(model(name), prompt, model_settings={"extra_headers": headers(name)}) as stream,
        ):
            for _ in stream:
                pass
    with call_span("openai.embeddings"):
        embedding = OpenAIEmbeddingModel(CALLS["openai.embeddings"]["model"], provider=openai_provider)
        Embedder(embedding).embed_query_sync(PROMPT, settings={"extra_headers": headers("openai.embeddings")})
    for name in ("openai.agent", "anthropic.agent"):
        with call_span(name):
            agent = Agent(model(name), tools=[look], model_settings={"extra_headers": headers(name)})
            agent.run_sync(PROMPT)
