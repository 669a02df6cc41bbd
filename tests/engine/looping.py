"""The compiled loop of a slice, one request at a time."""

import socket
from typing import Protocol

from intelnav.engine.interface import Forward, Output
from intelnav.engine.link import FrameReader, pack_forward, unpack_output, write_frame

NUMBER = 2**64 - 7


class Serving(Protocol):
    """A slice, or its loop alone."""

    def serve(self, socket: int, /) -> bytes:
        """See `Loop.serve`."""
        ...


def served(stage: Serving, data: bytes) -> tuple[bytes, bytes]:
    """Send `data` and hang up: what the loop replied, and what it left to Python."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        left = stage.serve(theirs.fileno())
        theirs.close()
        return ours.recv(1 << 20), left


def request(forward: Forward) -> bytes:
    return write_frame(NUMBER, *pack_forward(forward))


def looped(stage: Serving, forward: Forward) -> Output | None:
    """What the loop makes of a forward; None if it leaves it to Python, as it came."""
    replied, left = served(stage, request(forward))
    if not replied:
        assert left == request(forward)
        return None
    assert left == b""
    ((number, fields, payload),) = FrameReader().feed(replied)
    assert number == NUMBER
    assert isinstance(fields, bytes)
    return unpack_output(fields, payload)
