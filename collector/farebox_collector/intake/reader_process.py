"""Read requests for a collector in a separate process: `python -m farebox_collector.intake.reader_process SOCKET`.

The collector starts this process and sends it the settings over an inherited socket. The process ends when the socket
closes, also if the collector was killed. It opens the books read-only, for the tariffs.
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
from farebox_collector.intake.gc_tuning import tune_gc
from farebox_collector.intake.reader import RequestReader
from farebox_collector.intake.reader_wire import packed, unpacked_task
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.settings import Settings

READY, READ, REFUSED, FAILED = b"y", b"r", b"n", b"f"
"""The first byte of a message: ready; the result of a request; a refusal with its error; a failure with its trace."""


def serve(connection: socket.socket) -> None:
    """Read the requests that arrive over a socket until it is closed."""
    settings: Settings = pickle.loads(receive(connection))  # noqa: S301  (from our own process)
    with closing(open_database(settings.database_url, writable=False, box=settings.secret_box())) as database:
        reader = RequestReader(settings, Tariffs(database, time.time_ns, settings.charge_exposed))
        tune_gc()
        send(connection, READY)
        while True:
            task = unpacked_task(receive(connection))
            try:
                answer = READ + packed(reader.read(*task))
            except (MalformedRequest, RequestTooLarge) as error:
                answer = REFUSED + pickle.dumps(error)
            except Exception:
                # The collector logs the error and answers the request. The process continues with the next one.
                answer = FAILED + traceback.format_exc().encode()
            send(connection, answer)


def main() -> None:
    """Serve the socket whose number is the first argument."""
    # A service manager may signal all processes of the collector. This one still reads the accepted requests.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        try:
            serve(connection)
        except ConnectionEnded:
            return


if __name__ == "__main__":
    main()
