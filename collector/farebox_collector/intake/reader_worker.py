"""Start and use a second process that reads requests, so that reading and committing use two cores.

Threads of one Python process compute one at a time. That costs little while there is one request at a time, and a
process costs memory. So the process starts when requests begin to wait for each other, and stays.
"""

import logging
import pickle
import socket
import subprocess
import sys
import threading
from typing import NamedTuple

from farebox_collector.intake import reader_process
from farebox_collector.intake.frames import ConnectionEnded, receive, send
from farebox_collector.intake.reader import ReadRequest
from farebox_collector.intake.reader_wire import Task, packed_task, unpacked
from farebox_collector.settings import Settings

_WAITS_BEFORE_START = 50
"""Number of requests that had to wait for another one before the process starts."""
_WAITS_BEFORE_RESTART = 5_000
_END_SECONDS = 5

_logger = logging.getLogger(__name__)


class ReadingFailed(Exception):
    """The reading process could not read a request, for a reason other than the request's form."""


class _Process(NamedTuple):
    running: subprocess.Popen[bytes]
    connection: socket.socket

    def end(self) -> None:
        """Close the connection, which ends the process; kill it after `_END_SECONDS`."""
        self.connection.close()
        try:
            self.running.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()


class ReaderWorker:
    """The reading process of a collector; not started at first. Call `read` from one thread only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._waits = 0
        self._starting: threading.Thread | None = None
        self._process: _Process | None = None
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether the process accepts requests."""
        return self._process is not None

    def start(self) -> None:
        """Start the process. Return when it is ready, or has failed to start, which is logged."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", reader_process.__name__, str(theirs.fileno())]
            running = subprocess.Popen(  # noqa: S603  (our own module)
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        process = _Process(running, ours)
        try:
            send(ours, pickle.dumps(self._settings))
            receive(ours)
        except ConnectionEnded:
            _logger.exception("the reading process did not start; requests are read in this process")
            process.end()
            return
        _logger.info("requests are read in a separate process", extra={"pid": process.running.pid})
        self._process = process

    def requests_wait(self) -> None:
        """Count a request that waits for another one to be read; start the process after enough of them."""
        with self._lock:
            self._waits += 1
            if self._waits == _WAITS_BEFORE_START and not self._closed:
                self._starting = threading.Thread(target=self.start, name="start-reading", daemon=True)
                self._starting.start()

    @property
    def pid(self) -> int | None:
        """The process's id."""
        return None if self._process is None else self._process.running.pid

    def read(self, task: Task) -> ReadRequest:
        """Read a request in the process, while `ready`. Raises MalformedRequest, RequestTooLarge, ReadingFailed."""
        process = self._process
        if process is None:
            raise ReadingFailed("there is no reading process")
        try:
            send(process.connection, packed_task(task))
            answer = memoryview(receive(process.connection))
        except ConnectionEnded as error:
            self._process = None
            process.end()
            with self._lock:
                # Delay the restart: the cause may persist.
                self._waits = -_WAITS_BEFORE_RESTART
            raise ReadingFailed("the reading process ended") from error
        kind, content = bytes(answer[:1]), answer[1:]
        if kind == reader_process.READ:
            return unpacked(content)
        if kind == reader_process.REFUSED:
            raise pickle.loads(content)  # noqa: S301  (from our own process)
        raise ReadingFailed(bytes(content).decode())

    def close(self) -> None:
        """End the process. Call it when no request is being read."""
        with self._lock:
            self._closed = True
        if self._starting is not None:
            self._starting.join()
        process, self._process = self._process, None
        if process is not None:
            process.end()
