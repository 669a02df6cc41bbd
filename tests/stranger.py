"""A peer with a key of its own that says what it likes after a real handshake."""

import os
import socket
from collections import deque
from types import TracebackType
from typing import Self, TypeVar

from intelnav.domain.identity import Identity, PeerId
from intelnav.wire.channel import Channel, Established, Event
from intelnav.wire.messages import Message, Ping
from intelnav.wire.noise import MAX_PLAINTEXT


def dial(listen: str) -> socket.socket:
    """A TCP connection to where a node listens."""
    host, port = listen.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


M = TypeVar("M", bound=Message)


class Stranger:
    """An open, encrypted connection to the node at `listen`, whose peer id is `peer`."""

    def __init__(self, listen: str, peer: str) -> None:
        identity = Identity(os.urandom(32))
        self.own = identity.peer
        self._channel = Channel(
            identity,
            PeerId.parse(peer),
            static_private=os.urandom(32),
            ephemeral_private=os.urandom(32),
            agent="stranger",
        )
        self._socket = dial(listen)
        self._heard: deque[Event] = deque()
        established = False
        while not established:
            self._socket.sendall(self._channel.outgoing())
            data = self._socket.recv(65_536)
            assert data, "the node hung up during the handshake"
            self._heard.extend(self._channel.receive(data))
            established = any(isinstance(event, Established) for event in self._heard)
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
        message = len(body).to_bytes(4, "big") + body
        for start in range(0, len(message), MAX_PLAINTEXT):
            sealed = self._channel._transport.seal(message[start : start + MAX_PLAINTEXT])
            self._socket.sendall(len(sealed).to_bytes(2, "big") + sealed)

    def send(self, message: Message) -> None:
        """Send a message as a node would."""
        self._socket.sendall(self._channel.send(message))

    def answers(self, kind: type[M]) -> M:
        """The next message of the node that is no ping; it must be of this kind."""
        while True:
            while not self._heard:
                data = self._socket.recv(65_536)
                assert data, "the node hung up"
                self._heard.extend(self._channel.receive(data))
            event = self._heard.popleft()
            if not isinstance(event, Established | Ping):
                assert isinstance(event, kind), event
                return event

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
