"""The SDK in a process of its own, which reads recorded exchanges and answers with the spans it would have sent.

The two distributions share no code: a line of JSON for each exchange goes over the pipe, and OTLP/JSON comes back.
"""

import base64
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, NamedTuple

from farebox_collector.recordings.exchanges import Exchange

_MODULE = "farebox.replay_recordings"


class SdkMissing(Exception):
    """The SDK cannot be run; the message says what to install."""


class Replayed(NamedTuple):
    """What the SDK made of one exchange."""

    otlp: bytes | None
    """The spans as OTLP/JSON; None where it saw no call of a model."""
    said: tuple[str, ...]
    """What it logged."""


class SdkProcess:
    """Runs between `with` and its end. Raises SdkMissing on entering."""

    def __init__(self, python: str, model_urls: Sequence[str] = ()) -> None:
        """`python` is the interpreter whose environment has the SDK."""
        self._python = python
        self._command = [python, "-m", _MODULE]
        for url in model_urls:
            self._command += ["--model-url", url]
        self._process: subprocess.Popen[str]
        self._errors: IO[bytes]

    def __enter__(self) -> "SdkProcess":
        """Start the process."""
        # Neither the settings of the user's own metering nor its keys have a place there.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAREBOX_", "OTEL_"))}
        self._errors = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(  # noqa: S603, the Python that the user named
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                encoding="utf-8",
                env=kept,
            )
        except OSError as error:
            self._errors.close()
            raise SdkMissing(
                f"{self._python} cannot be run: {error.strerror}. Name a Python with --sdk-python"
            ) from None
        try:
            ready = self._line()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        if "ready" not in ready:
            self.__exit__(None, None, None)
            raise SdkMissing(
                f"{self._python} has the SDK and neither httpx nor httpx2: `{self._python} -m pip install httpx2`"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the process end; it ends when its input does."""
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def replay(self, exchange: Exchange) -> Replayed:
        """What the SDK makes of one exchange."""
        line = {
            "entry": exchange.entry,
            "method": exchange.method,
            "url": exchange.url,
            "content_type": exchange.content_type,
            "request": base64.b64encode(exchange.request).decode(),
            "status": exchange.status,
            "headers": exchange.headers,
            "body": base64.b64encode(exchange.body).decode(),
            "began_ns": exchange.began_ns,
            "took_ns": exchange.took_ns,
        }
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the missing answer says more
            json.dump(line, self._process.stdin)
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return _replayed(self._line())

    def rest(self) -> Replayed:
        """What the SDK has kept back: calls whose answers were to be fetched later, and were not."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return _replayed(self._line())

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._process.wait(30)
        self._errors.seek(0)
        last = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        why = last[-1] if last else f"it ended with status {self._process.returncode}"
        if "No module named" in why and "farebox" in why:
            raise SdkMissing(
                f"the SDK is not installed for {self._python}: `{self._python} -m pip install farebox httpx2`, or name "
                "the Python of your application with --sdk-python"
            )
        raise SdkMissing(f"the SDK's process of {self._python} ended: {why}")


def _replayed(answer: dict[str, Any]) -> Replayed:
    otlp = answer.get("otlp")
    return Replayed(None if otlp is None else json.dumps(otlp).encode(), tuple(answer.get("said") or ()))
