"""Run the SDK in a separate process, which reads recorded exchanges and returns the spans it would have sent.

The two distributions share no code: each exchange is one line of JSON over a pipe, and the answer is OTLP/JSON.
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
    """The SDK's result for one exchange."""

    otlp: bytes | None
    """The spans as OTLP/JSON; None if the SDK saw no model call."""
    logged: tuple[str, ...]
    """The SDK's log messages."""


class SdkProcess:
    """The SDK's process, as a context manager. Entering it raises SdkMissing."""

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
        # Drop the settings and keys of the user's real metering.
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
                f"{self._python} cannot be run: {error.strerror}. Give the path of a Python with --sdk-python"
            ) from None
        try:
            ready = self._line()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        if "ready" not in ready:
            self.__exit__(None, None, None)
            raise SdkMissing(
                f"{self._python} has the SDK but not httpx or httpx2: run `{self._python} -m pip install httpx2`"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process by closing its input."""
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
        """Replay one exchange and return the SDK's result."""
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
        with suppress(BrokenPipeError):  # reading the answer raises a better error
            json.dump(line, self._process.stdin)
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return _replayed(self._line())

    def rest(self) -> Replayed:
        """Return the calls that the SDK still holds: those whose answers were never fetched."""
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
                f"the SDK is not installed for {self._python}: run `{self._python} -m pip install farebox httpx2`, or"
                " give the path of your application's Python with --sdk-python"
            )
        raise SdkMissing(f"the SDK's process of {self._python} ended: {why}")


def _replayed(answer: dict[str, Any]) -> Replayed:
    otlp = answer.get("otlp")
    return Replayed(None if otlp is None else json.dumps(otlp).encode(), tuple(answer.get("said") or ()))
