"""Records golden spans: real emitters, each in an environment of its own, against the bundled model server.

    python tests/dialects/recording/record.py [NAME ...]

makes each environment from its pinned requirements with uv (or npm), keeps what the emitter sends over OTLP as OTLP
JSON in `tests/dialects/golden/NAME.json`, with ids and times as they came, and cuts out prompts and what tells of the
machine. Of emitters that write log events too, both signals are kept, in `tests/dialects/golden/events`. Needs the
network the first time; environments are kept in `.venv/emitters`.
"""

import base64
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
GOLDEN = HERE.parent / "golden"
ENVIRONMENTS = REPOSITORY / ".venv" / "emitters"
UV = str(Path(sys.executable).with_name("uv"))
NODE_EMITTERS = ("vercel", "vercel-legacy", "vercel-5")
REQUIREMENTS = {
    # Emitters that share the environment of another.
    "anthropic-client": "genai-anthropic",
    "openllmetry-google": "google-others",
    "openinference-google": "google-others",
    "genai-openai-events": "genai-openai",
    "genai-anthropic-events": "genai-anthropic",
}
TELLS_EVENTS = "-events"
OF_THE_MACHINE = ("process.", "host.", "os.", "code.", "service.instance", "thread.")
TEXT_CUT = "[cut]"
TEXTS = ("What does the model server say?", "It stands on loopback.", "Look at the model server.")


def main() -> None:
    """Record the emitters that are named, or all."""
    known = [*_python_emitters(), *NODE_EMITTERS]
    for name in sys.argv[1:] or known:
        if name not in known:
            sys.exit(f"no emitter {name}; there are {', '.join(known)}")
        print(name)
        record(name)


def record(name: str) -> None:
    """Run one emitter and keep what it sent."""
    command = _node_command(name) if name in NODE_EMITTERS else _python_command(name)
    bodies: list[tuple[str, bytes]] = []
    with _model_server() as model_url, _receiver(bodies) as endpoint:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")} | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_SERVICE_NAME": name,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        }
        subprocess.run([*command, name, model_url], env=environment, check=True, timeout=300)
    merged, logs = ExportTraceServiceRequest(), ExportLogsServiceRequest()
    for path, body in bodies:
        if path == "/v1/traces":
            merged.MergeFrom(ExportTraceServiceRequest.FromString(body))
        elif path == "/v1/logs":
            logs.MergeFrom(ExportLogsServiceRequest.FromString(body))
    document, folder = as_otlp_json(merged), GOLDEN
    if name.endswith(TELLS_EVENTS):
        document, folder = {"traces": document, "logs": logs_as_otlp_json(logs)}, GOLDEN / "events"
    folder.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1, sort_keys=True)
    (folder / f"{name.removesuffix(TELLS_EVENTS)}.json").write_text(text + "\n", encoding="utf-8")
    events = sum(len(s.log_records) for r in logs.resource_logs for s in r.scope_logs)
    print(f"  {sum(len(s.spans) for r in merged.resource_spans for s in r.scope_spans)} spans, {events} log records")


def as_otlp_json(request: ExportTraceServiceRequest) -> dict[str, Any]:
    """The request in the OTLP JSON encoding, without prompts, events, links and facts about the machine."""
    whole: dict[str, Any] = json_format.MessageToDict(request)
    for resource_spans in whole["resourceSpans"]:
        _cut_attributes(resource_spans.get("resource", {}))
        for scope_spans in resource_spans["scopeSpans"]:
            for span in scope_spans["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    if key in span:
                        span[key] = base64.b64decode(span[key]).hex()
                for key in ("events", "links", "flags"):
                    span.pop(key, None)
                span.get("status", {}).pop("message", None)
                _cut_attributes(span)
    return whole


def logs_as_otlp_json(request: ExportLogsServiceRequest) -> dict[str, Any]:
    """The same for log records."""
    whole: dict[str, Any] = json_format.MessageToDict(request)
    for resource_logs in whole["resourceLogs"]:
        _cut_attributes(resource_logs.get("resource", {}))
        for scope_logs in resource_logs["scopeLogs"]:
            for record in scope_logs["logRecords"]:
                for key in ("traceId", "spanId"):
                    if key in record:
                        record[key] = base64.b64decode(record[key]).hex()
                record.pop("flags", None)
                _cut_attributes(record)
    return whole


def _cut_attributes(owner: dict[str, Any]) -> None:
    kept = [pair for pair in owner.get("attributes", []) if not pair["key"].startswith(OF_THE_MACHINE)]
    for pair in kept:
        value = pair.get("value", {})
        if "stringValue" in value:
            value["stringValue"] = _cut(value["stringValue"])
        for item in value.get("arrayValue", {}).get("values", []):
            if "stringValue" in item:
                item["stringValue"] = _cut(item["stringValue"])
    if kept:
        owner["attributes"] = kept


def _cut(text: str) -> str:
    for known in TEXTS:
        text = text.replace(known, TEXT_CUT)
    # The model server's reply begins and ends like this, with a number in between.
    start = text.find("The model server read ")
    while start >= 0:
        end = text.find("nothing to add.", start)
        text = text[:start] + TEXT_CUT + (text[end + len("nothing to add.") :] if end >= 0 else "")
        start = text.find("The model server read ")
    return text


def _python_emitters() -> list[str]:
    listed = (HERE / "emitters.py").read_text(encoding="utf-8").partition("EMITTERS:")[2].partition("}")[0]
    return [line.split('"')[1] for line in listed.splitlines() if '": ' in line]


def _python_command(name: str) -> list[str]:
    requirements = HERE / "requirements" / f"{REQUIREMENTS.get(name, name)}.txt"
    place = ENVIRONMENTS / requirements.stem
    python = place / "bin" / "python"
    stamp = place / "requirements.txt"
    if not stamp.exists() or stamp.read_bytes() != requirements.read_bytes():
        subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)], check=True)
        install = [UV, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements)]
        subprocess.run(install, check=True)
        shutil.copy(requirements, stamp)
    return [str(python), str(HERE / "emitters.py")]


def _node_command(name: str) -> list[str]:
    package = HERE / ("vercel-5" if name == "vercel-5" else "vercel")
    place = ENVIRONMENTS / package.name
    stamp = place / "node_modules" / ".package-lock.json"
    place.mkdir(parents=True, exist_ok=True)
    if not stamp.exists() or (place / "package.json").read_bytes() != (package / "package.json").read_bytes():
        shutil.copy(package / "package.json", place)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=place, check=True)
    for source in (HERE / "vercel.mjs", HERE / "calls.json"):
        shutil.copy(source, place)
    return ["node", str(place / "vercel.mjs")]


@contextmanager
def _model_server() -> Iterator[str]:
    command = [sys.executable, str(REPOSITORY / "instrumentation/demo/model_server.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.terminate()


@contextmanager
def _receiver(bodies: list[tuple[str, bytes]]) -> Iterator[str]:
    """Takes OTLP over HTTP and keeps the bodies."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("content-length")
            body = self._chunks() if length is None else self.rfile.read(int(length))
            compressed = self.headers.get("content-encoding") == "gzip"
            bodies.append((self.path, gzip.decompress(body) if compressed else body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def _chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    main()
