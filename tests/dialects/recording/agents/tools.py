"""How to run each coding agent once, without a network: its settings, environment and command."""

import base64
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

PROMPT = "Read note.txt"
RESOURCE = "farebox.wallet=platform,farebox.project=shop"
EMAIL = "dev@example.com"
ACCOUNT, ORGANIZATION = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


class Setting(NamedTuple):
    """Where a tool finds things."""

    programs: Path
    """The folder with the tools' programs."""
    home: Path
    workspace: Path
    models: str
    """The address of the model server."""
    otlp: str
    """The address of the receiver."""
    session: dict[str, Any]
    """The recorded session; see `sessions.json`."""


class Run(NamedTuple):
    """One command."""

    command: list[str]
    environment: dict[str, str]


def claude(at: Setting, again: bool) -> Run:
    """Claude Code. With an account it is logged in as a subscriber is."""
    exporters = {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": at.session["protocol"],
        "OTEL_EXPORTER_OTLP_ENDPOINT": at.otlp,
        "OTEL_LOGS_EXPORT_INTERVAL": "500",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }
    if at.session.get("traces"):
        exporters |= {"CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1", "OTEL_TRACES_EXPORTER": "otlp"}
    quiet = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    key = {"ANTHROPIC_API_KEY": "sk-ant-none"}
    if at.session.get("account"):
        key = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-none"}
        account = {"accountUuid": ACCOUNT, "emailAddress": EMAIL, "organizationUuid": ORGANIZATION}
        (at.home / ".claude.json").write_text(json.dumps({"oauthAccount": account, "hasCompletedOnboarding": True}))
    command = [str(at.programs / "claude"), "-p", PROMPT, "--model", at.session["model"]]
    return Run(command + ["--continue"] * again, {"ANTHROPIC_BASE_URL": at.models, **key, **exporters, **quiet})


def codex(at: Setting, again: bool) -> Run:
    """Codex CLI. With an account it is logged in with ChatGPT."""
    protocol = at.session["protocol"]

    def exporter(path: str) -> str:
        if protocol == "grpc":
            return f'{{ otlp-grpc = {{ endpoint = "{at.otlp}" }} }}'
        encoding = "json" if protocol == "http/json" else "binary"
        return f'{{ otlp-http = {{ endpoint = "{at.otlp}{path}", protocol = "{encoding}" }} }}'

    account = bool(at.session.get("account"))
    folder = at.home / ".codex"
    folder.mkdir(exist_ok=True)
    key = "requires_openai_auth = true" if account else 'env_key = "OPENAI_API_KEY"'
    lines = [
        f'model = "{at.session["model"]}"',
        'model_provider = "scripted"',
        "check_for_update_on_startup = false",
        "[analytics]",
        "enabled = false",
        "[model_providers.scripted]",
        'name = "scripted"',
        f'base_url = "{at.models}/v1"',
        key,
        'wire_api = "responses"',
        "[otel]",
        'environment = "test"',
        f"exporter = {exporter('/v1/logs')}",
        f"metrics_exporter = {exporter('/v1/metrics')}",
        f"trace_exporter = {exporter('/v1/traces') if at.session.get('traces') else chr(34) + 'none' + chr(34)}",
        "log_user_prompt = false",
    ]
    (folder / "config.toml").write_text("\n".join(lines) + "\n")
    if account:
        (folder / "auth.json").write_text(json.dumps(_chatgpt_login()))
    arguments = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    resume = ["resume", "--last"] if again else []
    command = [str(at.programs / "codex"), "exec", *arguments, *resume, PROMPT]
    return Run(command, {} if account else {"OPENAI_API_KEY": "sk-none"})


def _chatgpt_login() -> dict[str, Any]:
    claims = {
        "email": EMAIL,
        "exp": 4_000_000_000,
        "https://api.openai.com/auth": {
            "chatgpt_account_id": ACCOUNT,
            "chatgpt_user_id": "user-none",
            "chatgpt_plan_type": "pro",
        },
    }
    parts = [{"alg": "none"}, claims, "none"]
    token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    tokens = {"id_token": token, "access_token": token, "refresh_token": "none", "account_id": ACCOUNT}
    return {"OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": "2100-01-01T00:00:00Z"}


def gemini(at: Setting, again: bool) -> Run:
    """Gemini CLI."""
    settings = {
        "telemetry": {
            "enabled": True,
            "traces": bool(at.session.get("traces")),
            "target": "local",
            "otlpEndpoint": at.otlp,
            "otlpProtocol": "grpc" if at.session["protocol"] == "grpc" else "http",
            "logPrompts": False,
        },
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"disableAutoUpdate": True},
        "security": {"auth": {"selectedType": "gemini-api-key"}},
    }
    folder = at.home / ".gemini"
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [str(at.programs / "gemini"), "-p", PROMPT, "-m", at.session["model"], "--yolo"]
    environment = {
        "GEMINI_API_KEY": "none",
        "GOOGLE_GEMINI_BASE_URL": at.models,
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
    }
    return Run(command + ["--resume", "latest"] * again, environment)


def qwen(at: Setting, again: bool) -> Run:
    """Qwen Code, by OpenAI's interface."""
    settings = {
        "telemetry": {
            "enabled": True,
            "target": "local",
            "otlpEndpoint": at.otlp,
            "otlpProtocol": "grpc" if at.session["protocol"] == "grpc" else "http",
            "logPrompts": False,
        },
        "privacy": {"usageStatisticsEnabled": False},
        "security": {"auth": {"selectedType": "openai"}},
    }
    folder = at.home / ".qwen"
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [str(at.programs / "qwen"), "-p", PROMPT, "--yolo"]
    environment = {
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": f"{at.models}/v1",
        "OPENAI_MODEL": at.session["model"],
    }
    return Run(command + ["--continue"] * again, environment)


TOOLS = {"claude": claude, "codex": codex, "gemini": gemini, "qwen": qwen}


def base_environment(home: Path) -> dict[str, str]:
    """What every tool gets; nothing of the recorder's own environment but the path."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "OTEL_RESOURCE_ATTRIBUTES": RESOURCE,
    }
