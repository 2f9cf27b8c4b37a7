"""Exchange messages over a socket between two processes: eight bytes of length, then the message."""

import socket
import struct

_LENGTH = struct.Struct("!Q")


class ConnectionEnded(Exception):
    """The other process closed the connection."""


def send(connection: socket.socket, message: bytes) -> None:
    """Send a message. Raises ConnectionEnded."""
    try:
        connection.sendall(_LENGTH.pack(len(message)))
        connection.sendall(message)
    except OSError as error:
        raise ConnectionEnded(str(error)) from error


def receive(connection: socket.socket) -> bytearray:
    """Wait for a message. Raises ConnectionEnded."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        try:
            got = connection.recv_into(rest)
        except OSError as error:
            raise ConnectionEnded(str(error)) from error
        if not got:
            raise ConnectionEnded("closed")
        rest = rest[got:]
    return data
