"""Records golden sessions of coding agents: the real tools, from npm, against a scripted model server.

    python tests/dialects/recording/agents/record.py [SESSION ...]

runs the sessions of `sessions.json` and keeps in `tests/dialects/golden/agents/SESSION.json` what the tool sent over
OTLP (logs, metrics, spans) in OTLP's JSON encoding, and what the model server had answered. Ids and times stay as they
came. Prompts, answers and what tells of the machine are cut out. Needs npm, Node 20 and the network the first time; the
tools are kept in `.venv/emitters/agents`. The tools themselves run without a network.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from catcher import otlp_catcher
from scripted_models import scripted_server
from tools import TOOLS, Setting, base_environment

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[3]
GOLDEN = REPOSITORY / "tests" / "dialects" / "golden" / "agents"
INSTALLED = REPOSITORY / ".venv" / "emitters" / "agents"
SESSIONS = json.loads((HERE / "sessions.json").read_text(encoding="utf-8"))

TEXT_CUT = "[cut]"
LONGEST_TEXT = 200
MACHINE = ("process.", "host.", "os.", "code.", "thread.", "service.instance", "auth.env", "os_")
MACHINES = frozenset({"os", "busy_ns", "idle_ns", "target", "phases", "is_docker"})
TEXTS = (
    "prompt",
    "response",
    "user_prompt",
    "arguments",
    "output",
    "error",
    "error.message",
    "function_args",
    "phases",
)
NOTHING_TO_READ = ("events", "links", "droppedAttributesCount", "droppedEventsCount", "droppedLinksCount")
TEXTS_OF_GENAI = ("gen_ai.system_instructions", "gen_ai.input.", "gen_ai.output.", "gen_ai.tool.", "gen_ai.agent.desc")


def main() -> None:
    """Record the sessions that are named, or all."""
    names = sys.argv[1:] or list(SESSIONS)
    for name in names:
        if name not in SESSIONS:
            sys.exit(f"no session {name}; there are {', '.join(SESSIONS)}")
    programs = install()
    for name in names:
        print(name)
        record(name, programs)


def install() -> Path:
    """Install the pinned tools, and return the folder of their programs."""
    wanted = HERE / "package.json"
    INSTALLED.mkdir(parents=True, exist_ok=True)
    stamp = INSTALLED / "node_modules" / ".package-lock.json"
    if not stamp.exists() or (INSTALLED / "package.json").read_bytes() != wanted.read_bytes():
        shutil.copy(wanted, INSTALLED)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=INSTALLED, check=True)
        # npm may hold back scripts of packages; this one puts the program in its place.
        subprocess.run(["node", "node_modules/@anthropic-ai/claude-code/install.cjs"], cwd=INSTALLED, check=True)
    return INSTALLED / "node_modules" / ".bin"


def record(name: str, programs: Path) -> None:
    """Run one session and keep what it sent."""
    session = SESSIONS[name]
    answered: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="recorded-agent-") as folder, otlp_catcher() as caught:
        home = Path(folder)
        workspace = home / "workspace"
        workspace.mkdir()
        (workspace / "note.txt").write_text("A note.\n")
        otlp = caught.grpc if session["protocol"] == "grpc" else caught.http
        for number, steps in enumerate(session["runs"]):
            with scripted_server(steps, str(workspace)) as (models, script):
                run = TOOLS[session["tool"]](Setting(programs, home, workspace, models, otlp, session), number > 0)
                ended = subprocess.run(
                    run.command,
                    env=base_environment(home) | run.environment,
                    cwd=workspace,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=180,
                )
            answered += script.answered
            left = len(steps) - len(script.answered)
            if left > 0 or any("unscripted" in step for step in script.answered):
                sys.exit(f"{name}, run {number}: {left} steps left, {script.answered}\n{ended.stdout}\n{ended.stderr}")
    cut = str(home)
    kept = [{"signal": signal, "request": scrubbed(signal, request, cut)} for signal, _, request in caught.batches]
    document = {"answered": answered, "batches": [batch for batch in kept if batch["request"]]}
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / f"{name}.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"  {len(answered)} answers, {sorted(batch['signal'] for batch in document['batches'])}")


def scrubbed(signal: str, request: dict[str, Any], machine: str) -> dict[str, Any]:
    """A request without texts, facts about the machine, and spans and metrics that have nothing to do with usage."""
    outer, scopes, inner = {
        "logs": ("resourceLogs", "scopeLogs", "logRecords"),
        "traces": ("resourceSpans", "scopeSpans", "spans"),
        "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    }[signal]
    for resource in request[outer]:
        cut_attributes(resource.get("resource", {}), machine)
        for scope in resource[scopes]:
            cut_attributes(scope.get("scope", {}), machine)
            scope[inner] = [item for item in scope[inner] if about_usage(signal, item)]
            for item in scope[inner]:
                for key in NOTHING_TO_READ:
                    item.pop(key, None)
                item.get("status", {}).pop("message", None)
                cut_body(item)
                cut_attributes(item, machine)
                for kind in ("sum", "histogram", "gauge"):
                    for point in item.get(kind, {}).get("dataPoints", []):
                        point.pop("exemplars", None)
                        cut_attributes(point, machine)
        resource[scopes] = [scope for scope in resource[scopes] if scope[inner]]
    request[outer] = [resource for resource in request[outer] if resource[scopes]]
    return request if request[outer] else {}


def cut_body(record: dict[str, Any]) -> None:
    """Cut a text that is no name of an event."""
    text = (record.get("body") or {}).get("stringValue", "")
    if " " in text:
        record["body"] = {"stringValue": TEXT_CUT}


def about_usage(signal: str, item: dict[str, Any]) -> bool:
    """Whether a span or metric tells of usage; log records all stay."""
    if signal == "logs":
        return True
    if signal == "metrics":
        return "token" in item["name"] or "cost" in item["name"]
    keys = {pair["key"] for pair in item.get("attributes", [])}
    return any(key.startswith("gen_ai.") or "token" in key for key in keys)


def cut_attributes(owner: dict[str, Any], machine: str) -> None:
    """Drop attributes about the machine, and cut texts."""
    kept = []
    for pair in owner.get("attributes", []):
        key, value = pair["key"], pair.get("value", {})
        if key.startswith(MACHINE) or key in MACHINES:
            continue
        text = value.get("stringValue", "")
        if key == "service.version" and text.startswith("v"):
            continue  # Gemini CLI writes the version of Node here
        if text and (key in TEXTS or key.startswith(TEXTS_OF_GENAI) or len(text) > LONGEST_TEXT or machine in text):
            value["stringValue"] = TEXT_CUT
        kept.append(pair)
    if "attributes" in owner:
        owner["attributes"] = kept


if __name__ == "__main__":
    main()
