"""A second process to read requests in, so that reading and committing use two cores.

Threads of one Python process compute one at a time. While there is one request at a time that costs little, and a
process costs memory; so it is started when requests begin to wait for each other, and stays.
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
"""How often a request must have found another one being read."""
_WAITS_BEFORE_RESTART = 5_000
_END_SECONDS = 5

_logger = logging.getLogger(__name__)


class ReadingFailed(Exception):
    """The reading process could not read a request, for a reason that has nothing to do with the request's form."""


class _Process(NamedTuple):
    running: subprocess.Popen[bytes]
    connection: socket.socket

    def end(self) -> None:
        """Close the connection, at which it ends by itself."""
        self.connection.close()
        try:
            self.running.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()


class ReaderWorker:
    """The reading process of a collector: none at first. `read` is one thread's; the other methods are anybody's."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._waits = 0
        self._starting: threading.Thread | None = None
        self._process: _Process | None = None
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether there is a process to read in."""
        return self._process is not None

    def start(self) -> None:
        """Begin to read in another process; returns when it can, or cannot, which is logged."""
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
        _logger.info("requests are read in a process of their own", extra={"pid": process.running.pid})
        self._process = process

    def requests_wait(self) -> None:
        """A request has to wait until another one is read."""
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
        """Have a request read, while `ready`. Raises MalformedRequest, RequestTooLarge, ReadingFailed."""
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
                # Whatever it died of: not at once again.
                self._waits = -_WAITS_BEFORE_RESTART
            raise ReadingFailed("the reading process ended") from error
        kind, said = bytes(answer[:1]), answer[1:]
        if kind == reader_process.READ:
            return unpacked(said)
        if kind == reader_process.REFUSED:
            raise pickle.loads(said)  # noqa: S301  (from our own process)
        raise ReadingFailed(bytes(said).decode())

    def close(self) -> None:
        """End the process; nothing is read in it any more."""
        with self._lock:
            self._closed = True
        if self._starting is not None:
            self._starting.join()
        process, self._process = self._process, None
        if process is not None:
            process.end()
