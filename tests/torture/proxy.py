"""A line to PostgreSQL that is cut at COMMIT: before it arrives, while it is worked on, or when its answer is due."""

import contextlib
import socket
import threading
from enum import Enum

_CHUNK = 65_536
_COMMIT = b"COMMIT\0"


class Cut(Enum):
    """Where the line breaks."""

    BEFORE = "before COMMIT arrives"
    DURING = "while COMMIT runs"
    AFTER = "after COMMIT, before its answer arrives"


class Proxy:
    """Forwards connections to a server on loopback; `cut_next` breaks the next one that commits."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._cut: Cut | None = None
        self._was_cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_next(self, where: Cut, timeout_s: float) -> bool:
        """Cut the next connection that commits; whether one did in time."""
        self._was_cut.clear()
        with self._lock:
            self._cut = where
        return self._was_cut.wait(timeout_s)

    def close(self) -> None:
        """Take no more connections; those that are open end with their clients."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                return
            line = _Line(self, client, server)
            threading.Thread(target=line.forth, daemon=True).start()
            threading.Thread(target=line.back, daemon=True).start()

    def take_cut(self) -> Cut | None:
        """The cut that is due, which is then no longer due."""
        with self._lock:
            cut, self._cut = self._cut, None
        return cut

    def tell_cut(self) -> None:
        """A line was cut."""
        self._was_cut.set()


class _Line:
    """One connection, in both directions."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._silent = False

    def forth(self) -> None:
        """From the client to the server, with an eye on COMMIT."""
        with contextlib.suppress(OSError):
            while data := self._client.recv(_CHUNK):
                cut = self._proxy.take_cut() if _COMMIT in data else None
                if cut is Cut.AFTER:
                    # `back` waits for the answer and then hangs up instead of passing it on.
                    self._silent = True
                elif cut is Cut.DURING:
                    self._server.sendall(data)
                if cut in (Cut.BEFORE, Cut.DURING):
                    self._hang_up()
                    self._proxy.tell_cut()
                    return
                self._server.sendall(data)
        self._hang_up()

    def back(self) -> None:
        """From the server to the client."""
        with contextlib.suppress(OSError):
            while data := self._server.recv(_CHUNK):
                if self._silent:
                    self._proxy.tell_cut()
                    break
                self._client.sendall(data)
        self._hang_up()

    def _hang_up(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
