"""A real collector in a process of its own, and clients for its four ports."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
EXPORT_METHODS = {
    "traces": EXPORT_METHOD,
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
START_SECONDS = 60


class Collector:
    """`farebox serve` on free ports over the books at `database`; `settings` become FAREBOX_… in its environment.

    `database` is a SQLite file, or the URL of anything else, and then `log` says where the log goes.
    """

    def __init__(self, database: Path | str, log: Path | None = None, key: str = "", **settings: Any) -> None:
        """With a `key`, that is the first key of new books, and these clients send it."""
        self.database_url = database if isinstance(database, str) else f"sqlite:///{database}"
        self.database = Path(self.database_url.removeprefix("sqlite:///"))
        self.log = log or self.database.with_suffix(".log")
        self._settings = settings | ({"bootstrap_key": key} if key else {})
        self._key = {"authorization": f"Bearer {key}"} if key else {}
        self.process: subprocess.Popen[str]
        self.start()

    def command(self) -> list[str]:
        """What is started."""
        addresses = (f"--{name}-address=127.0.0.1:0" for name in ("grpc", "otlp-http", "api", "metrics"))
        return [*FAREBOX, "serve", "--database-url", self.database_url, *addresses]

    def environment(self) -> dict[str, str]:
        """The environment that it is started in."""
        return clean_environment() | {f"FAREBOX_{key.upper()}": str(value) for key, value in self._settings.items()}

    def start(self) -> None:
        """Start (again) and wait until it is ready."""
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment(),
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the collector did not start: {self.log.read_text(encoding='utf-8')[-4000:]}"
        ports = json.loads(line)
        self.grpc_target = f"127.0.0.1:{ports['grpc']}"
        self.otlp_url = f"http://127.0.0.1:{ports['otlp_http']}"
        self.api_url = f"http://127.0.0.1:{ports['api']}"
        self.metrics_url = f"http://127.0.0.1:{ports['metrics']}/metrics"
        self.api = httpx2.Client(base_url=self.api_url, timeout=30, headers=self._key)
        self.otlp = httpx2.Client(base_url=self.otlp_url, timeout=30, headers=self._key)
        self.channel = grpc.insecure_channel(self.grpc_target, options=[("grpc.use_local_subchannel_pool", 1)])

    def export_grpc(
        self, body: bytes, compression: grpc.Compression | None = None, signal: str = "traces"
    ) -> ExportTraceServiceResponse:
        """Export over gRPC; raises grpc.RpcError."""
        call = unary(self.channel, EXPORT_METHODS[signal])
        answer = call(body, timeout=30, compression=compression, metadata=tuple(self._key.items()))
        return ExportTraceServiceResponse.FromString(answer)

    def export_http(
        self, body: bytes, content_type: str = "application/x-protobuf", signal: str = "traces", **headers: str
    ) -> httpx2.Response:
        """Export over HTTP; `headers` are further ones, `_` for a dash."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.otlp.post(f"/v1/{signal}", content=body, headers={"content-type": content_type, **named})

    def usage(self, **query: Any) -> list[dict[str, Any]]:
        """All usage records that match, newest first."""
        return self.pages("/v1/usage", **query)

    def pages(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """All items of a list of the API."""
        items: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.api.get(path, params={**query, **cursor}).raise_for_status().json()
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = {"cursor": page["next_cursor"]}

    def wallet(self, name: str) -> dict[str, Any]:
        """One wallet."""
        wallet: dict[str, Any] = self.api.get(f"/v1/wallets/{name}").raise_for_status().json()
        return wallet

    def fold(self) -> None:
        """Let the collector fold: every request that reads the books does so first; a scrape does not."""
        self.api.get("/v1/wallets", params={"limit": 1})

    def metrics(self, *, folded: bool = True) -> dict[str, float]:
        """All samples, by their name with labels as Prometheus writes them, after a fold or as they are."""
        if folded:
            self.fold()
        lines = httpx2.get(self.metrics_url).raise_for_status().text.splitlines()
        return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def audit(self) -> None:
        """Fail with what the audit says unless the books are clean."""
        result = farebox("audit", "--database-url", self.database_url)
        assert result.returncode == 0, result.stdout + result.stderr

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(timeout=30)
        self._close_clients()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        self._close_clients()
        return status

    def close(self) -> None:
        """End the process if it still runs."""
        if self.process.poll() is None:
            self.kill()

    def _close_clients(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.api.close()
        self.otlp.close()
        self.channel.close()


FAREBOX = (sys.executable, "-m", "farebox_collector")


def farebox(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run the `farebox` command to its end."""
    environment = clean_environment() | {f"FAREBOX_{key.upper()}": str(value) for key, value in settings.items()}
    return subprocess.run(
        [*FAREBOX, *arguments], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def unary(channel: grpc.Channel, method: str = EXPORT_METHOD) -> Any:
    """A method that takes and returns bytes: the stubs of gRPC want serializers, which gRPC does not need."""
    return channel.unary_unary(method)  # type: ignore[call-arg]


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of Farebox, and a terminal of a fixed width.

    What is compiled once may be kept: without that a third of a start is compiling what every start compiles.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FAREBOX_", "OTEL_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "COLUMNS": "120"}
