"""A process that reads requests for a collector: `python -m farebox_collector.intake.reader_process SOCKET`.

Its collector starts it, and says by which settings over the socket that it inherits; it ends when that is closed, which
is also how it learns that the collector was killed. It writes nothing: the books it opens for the tariffs, to read.
"""

import pickle
import signal
import socket
import sys
import time
import traceback
from contextlib import closing

from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.intake.decoding.errors import MalformedRequest, RequestTooLarge
from farebox_collector.intake.frames import ConnectionEnded, receive, send
from farebox_collector.intake.gc_tuning import look_for_garbage_seldom
from farebox_collector.intake.reader import RequestReader
from farebox_collector.intake.reader_wire import packed, unpacked_task
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.settings import Settings

READY, READ, REFUSED, FAILED = b"y", b"r", b"n", b"f"
"""The first byte of what it says: it has begun; what a request came to; why one is refused; what went wrong."""


def serve(connection: socket.socket) -> None:
    """Read what comes over a socket until it is closed."""
    settings: Settings = pickle.loads(receive(connection))  # noqa: S301  (from our own process)
    with closing(open_database(settings.database_url, writable=False, box=settings.secret_box())) as database:
        reader = RequestReader(settings, Tariffs(database, time.time_ns, settings.charge_exposed))
        look_for_garbage_seldom()
        send(connection, READY)
        while True:
            task = unpacked_task(receive(connection))
            try:
                answer = READ + packed(reader.read(*task))
            except (MalformedRequest, RequestTooLarge) as error:
                answer = REFUSED + pickle.dumps(error)
            except Exception:
                # The collector logs it and answers; the next request may do better.
                answer = FAILED + traceback.format_exc().encode()
            send(connection, answer)


def main() -> None:
    """Serve the socket whose number is the first argument."""
    # Whoever stops the collector may signal all its processes; this one has to read what was taken before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            serve(connection)
        except ConnectionEnded:
            return


if __name__ == "__main__":
    main()
