"""One encrypted connection as a sans-I/O object: bytes from the socket in, events out, and the way back.

It joins handshake, frames and codec, and has `hello` come first ([T1] to [T5] in docs/protocol.md).
"""

from dataclasses import dataclass

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.wire.codec import MAX_MESSAGE, decode, encode
from intelnav.wire.messages import PROTOCOL, Hello, Message
from intelnav.wire.noise import MAX_PLAINTEXT, Handshake, Transport

MAX_HANDSHAKE = 1024

_FRAME_HEAD = 2
_MESSAGE_HEAD = 4


@dataclass(frozen=True, slots=True)
class Established:
    """The handshake is done and the other side's `hello` fits ours; `peer` is proven."""

    peer: PeerId


Event = Established | Message


class Channel:
    """One side of a connection. `dialled` is the peer that must answer, or None on the side that accepts.

    `static_private` (per process) and `ephemeral_private` (per connection) are 32 random bytes each. What
    `outgoing` and `send` return must be written whole and in order: it has used up nonces. A channel that
    raised PeerError from `receive` is dead. `max_message` bounds the messages that are received, in bytes; it can be
    set at any time.
    """

    def __init__(
        self,
        identity: Identity,
        dialled: PeerId | None,
        *,
        static_private: bytes,
        ephemeral_private: bytes,
        agent: str,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self._handshake = Handshake(
            identity, dialled, static_private=static_private, ephemeral_private=ephemeral_private
        )
        self._hello = Hello(PROTOCOL, agent)
        self.max_message = max_message
        self._transport: Transport | None = None
        self._established = False
        self._dead = False
        self._frames = b""
        self._stream = bytearray()
        self._outgoing = bytearray()
        if first := self._handshake.start():
            self._outgoing += _framed(first)

    def outgoing(self) -> bytes:
        """What must be written now: after construction, and after each `receive`."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def send(self, message: Message) -> bytes:
        """The sealed message, for one write. Raises PeerError `closed` unless established and alive.

        A message over 16 MiB raises PeerError `bad_request` and leaves the channel as it was.
        """
        if not self._established or self._transport is None or self._dead:
            raise PeerError(Code.CLOSED, "the connection is not open")
        return _sealed(self._transport, message)

    def receive(self, data: bytes) -> list[Event]:
        """What `data`, cut anywhere, completes. Keeps at most one frame and one message of it.

        Raises PeerError if the other side broke the protocol; the connection is then to be closed.
        """
        if self._dead:
            raise PeerError(Code.CLOSED, "the connection is not open")
        try:
            return self._receive(data)
        except PeerError:
            self._dead = True
            self._frames = b""
            self._stream.clear()
            raise

    def _receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        data = self._frames + data if self._frames else data
        at = 0
        while len(data) - at >= _FRAME_HEAD:
            start = at + _FRAME_HEAD
            size = data[at] << 8 | data[at + 1]
            if self._transport is None and size > MAX_HANDSHAKE:
                raise PeerError(Code.BAD_REQUEST, f"a handshake frame of {size} bytes")
            if len(data) - start < size:
                break
            at = start + size
            if self._transport is None:
                self._shake_hands(data[start:at])
            else:
                for body in self._bodies(self._transport.unseal(data[start:at])):
                    events.append(self._event(self._transport.peer, decode(body)))
        self._frames = data[at:]
        return events

    def _shake_hands(self, frame: bytes) -> None:
        if answer := self._handshake.receive(frame):
            self._outgoing += _framed(answer)
        self._transport = self._handshake.transport
        if self._transport is not None:
            self._outgoing += _sealed(self._transport, self._hello)

    def _bodies(self, plaintext: bytes) -> list[bytes]:
        size = len(plaintext) - _MESSAGE_HEAD
        if not self._stream and size == int.from_bytes(plaintext[:_MESSAGE_HEAD], "big") <= self.max_message:
            # One message in one frame: what comes for every token.
            return [plaintext[_MESSAGE_HEAD:]]
        bodies = []
        self._stream += plaintext
        while len(self._stream) >= _MESSAGE_HEAD:
            size = int.from_bytes(self._stream[:_MESSAGE_HEAD], "big")
            if size > self.max_message:
                raise PeerError(
                    Code.BAD_REQUEST, f"a message of {size} bytes is over the limit of {self.max_message}"
                )
            end = _MESSAGE_HEAD + size
            if len(self._stream) < end:
                break
            bodies.append(bytes(memoryview(self._stream)[_MESSAGE_HEAD:end]))
            del self._stream[:end]
        return bodies

    def _event(self, peer: PeerId, message: Message) -> Event:
        if isinstance(message, Hello) == self._established:
            raise PeerError(Code.BAD_REQUEST, "hello must be the first message and come once")
        if not isinstance(message, Hello):
            return message
        if message.protocol != PROTOCOL:
            raise PeerError(
                Code.UNSUPPORTED,
                f"the peer speaks protocol {message.protocol}, this node protocol {PROTOCOL}",
            )
        self._established = True
        return Established(peer)


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(_FRAME_HEAD, "big") + content


def _sealed(transport: Transport, message: Message) -> bytes:
    """The message in as few frames as hold it."""
    buffers = encode(message)
    plaintext = b"".join((sum(map(len, buffers)).to_bytes(_MESSAGE_HEAD, "big"), *buffers))
    if len(plaintext) <= MAX_PLAINTEXT:
        return _framed(transport.seal(plaintext))
    view = memoryview(plaintext)
    return b"".join(
        _framed(transport.seal(view[at : at + MAX_PLAINTEXT])) for at in range(0, len(view), MAX_PLAINTEXT)
    )
