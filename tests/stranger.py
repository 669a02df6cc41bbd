"""A peer with a key of its own that says what it likes after a real handshake."""

import os
import socket
from types import TracebackType
from typing import Self

from intelnav.domain.identity import Identity, PeerId
from intelnav.wire.channel import Channel, Established


def dial(listen: str) -> socket.socket:
    """A TCP connection to where a node listens."""
    host, port = listen.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


class Stranger:
    """An open, encrypted connection to the node at `listen`, whose peer id is `peer`."""

    def __init__(self, listen: str, peer: str) -> None:
        self._channel = Channel(
            Identity(os.urandom(32)),
            PeerId.parse(peer),
            static_private=os.urandom(32),
            ephemeral_private=os.urandom(32),
            agent="stranger",
        )
        self._socket = dial(listen)
        established = False
        while not established:
            self._socket.sendall(self._channel.outgoing())
            data = self._socket.recv(65_536)
            assert data, "the node hung up during the handshake"
            established = any(isinstance(event, Established) for event in self._channel.receive(data))
        self._socket.sendall(self._channel.outgoing())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def say(self, body: bytes) -> None:
        """Send `body` as a sealed message, whatever it is."""
        # Past the codec, which would refuse to write what no node would say.
        assert self._channel._transport is not None
        sealed = self._channel._transport.seal(len(body).to_bytes(4, "big") + body)
        self._socket.sendall(len(sealed).to_bytes(2, "big") + sealed)

    def is_dropped(self) -> bool:
        """Whether the node ends the connection within ten seconds."""
        try:
            while self._socket.recv(65_536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True
