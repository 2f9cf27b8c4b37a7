"""The set-up files of coding agents are whole, name one address and one key, and keep prompts at home."""

import json
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SETUPS = REPOSITORY / "deploy" / "agents"
ADDRESS, HEADER = "https://farebox.example:4318", "Bearer fbx_REPLACE_ME"


def test_claude_code_exports_logs_and_metrics() -> None:
    variables = json.loads((SETUPS / "claude-code.json").read_bytes())["env"]
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == ADDRESS
    assert variables["OTEL_EXPORTER_OTLP_HEADERS"] == f"Authorization={HEADER}"
    assert variables["OTEL_EXPORTER_OTLP_PROTOCOL"].startswith("http/")
    assert {variables[f"OTEL_{signal}_EXPORTER"] for signal in ("LOGS", "METRICS")} == {"otlp"}
    assert variables["CLAUDE_CODE_ENABLE_TELEMETRY"] == "1"
    assert not {name for name in variables if name.startswith("OTEL_LOG_")}, (
        "prompts and bodies are opted into by these"
    )


def test_codex_exports_logs_and_metrics() -> None:
    otel = tomllib.loads((SETUPS / "codex.toml").read_text(encoding="utf-8"))["otel"]
    for exporter, signal in (("exporter", "logs"), ("metrics_exporter", "metrics")):
        told = otel[exporter]["otlp-http"]
        assert told["endpoint"] == f"{ADDRESS}/v1/{signal}"
        assert told["headers"] == {"Authorization": HEADER}
    assert otel["log_user_prompt"] is False


def test_gemini_exports_without_prompts() -> None:
    telemetry = json.loads((SETUPS / "gemini-settings.json").read_bytes())["telemetry"]
    assert telemetry["otlpEndpoint"] == ADDRESS
    assert (telemetry["enabled"], telemetry["otlpProtocol"], telemetry["logPrompts"]) == (True, "http", False)
    variables = (SETUPS / "gemini.env").read_text(encoding="utf-8")
    assert f'OTEL_EXPORTER_OTLP_HEADERS="Authorization={HEADER}"' in variables


def test_every_file_is_in_the_guide() -> None:
    guide = (REPOSITORY / "docs/how-to/agents.md").read_text(encoding="utf-8")
    for path in SETUPS.iterdir():
        assert f"../../deploy/agents/{path.name}" in guide
