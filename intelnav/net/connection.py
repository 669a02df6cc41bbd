"""One encrypted link to one peer, over TCP.

An asyncio protocol rather than a stream: sealing and writing a message is one synchronous step, so a cancelled task
can neither burn a Noise nonce nor interleave two messages, and a received message reaches its handler without a
task switch.
"""

import asyncio
import logging
import os
import time
from typing import Protocol, cast

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import PeerId
from intelnav.wire.channel import Channel, Established
from intelnav.wire.codec import MAX_MESSAGE
from intelnav.wire.messages import AbortSession, ForwardHidden, Hidden, Message, Ping, Pong, Token, Unknown

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
# What may wait for a peer that does not read; windows keep an honest one far below it.
MAX_UNSENT = 64 * 2**20
# The part of it that no window bounds: a peer that asks and never reads could make pongs and refusals pile up. They
# count from the moment on when the peer was last seen to have read nearly all.
MAX_UNSENT_REPLIES = 2**20
_NEARLY_ALL_READ = 2**16


class Events(Protocol):
    """Who is told what happens on a connection."""

    def on_open(self, link: "Connection") -> None:
        """The handshake succeeded: `link.peer` is known."""
        ...

    def on_message(self, link: "Connection", message: Message) -> None:
        """A valid message other than ping, pong or hello arrived."""
        ...

    def on_round_trip(self, link: "Connection") -> None:
        """A ping came back: `link.round_trip` is new."""
        ...

    def on_lost(self, link: "Connection") -> None:
        """The connection is gone; called once, also when it never opened."""
        ...


class Connection(asyncio.Protocol):
    """A TCP connection that speaks the protocol; `peer` is proven once `opened` is done.

    `host` is the number at the other end, `remote` that with its port; `round_trip` is that of the last ping that came
    back, in seconds.
    """

    def __init__(self, channel: Channel, events: Events) -> None:
        self._channel = channel
        self._events = events
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._peer: PeerId | None = None
        self.opened: asyncio.Future[PeerId] = asyncio.get_running_loop().create_future()
        self.host = ""
        self.remote = ""
        self.bytes_sent = 0
        self.bytes_received = 0
        self.last_heard = time.monotonic()
        self.last_pinged = 0.0
        self.round_trip: float | None = None
        self.reason = "closed"
        self._unsent_replies = 0
        self._asked: Ping | None = None

    @property
    def peer(self) -> PeerId:
        """Who is at the other end; only known after the handshake."""
        assert self._peer is not None
        return self._peer

    @property
    def alive(self) -> bool:
        """Whether messages can still be sent."""
        return self._peer is not None and self._transport is not None and not self._transport.is_closing()

    def send(self, message: Message) -> None:
        """Seal and write now; after the connection is gone messages fall away and `on_lost` tells."""
        if self._transport is None or self._transport.is_closing():
            return
        waiting = self._transport.get_write_buffer_size()
        if waiting < _NEARLY_ALL_READ:
            self._unsent_replies = 0
        if waiting > MAX_UNSENT or self._unsent_replies > MAX_UNSENT_REPLIES:
            self.close("the peer does not read")
            return
        data = self._channel.send(message)
        if not isinstance(message, ForwardHidden | Hidden | Token):
            self._unsent_replies += len(data)
        self._write(data)

    def expect(self, size: int) -> None:
        """Take messages of up to `size` bytes from now on, for as long as the link lasts; never less than before."""
        self._channel.max_message = max(self._channel.max_message, min(size, MAX_MESSAGE))

    def ping(self) -> None:
        """Ask for a sign of life, and time the answer; any whole message moves `last_heard`.

        The nonce is random: a peer can seem further away than it is, never nearer.
        """
        self.last_pinged = time.monotonic()
        self._asked = Ping(int.from_bytes(os.urandom(8), "big") >> 1, time.monotonic_ns())
        self.send(self._asked)

    def close(self, reason: str) -> None:
        """Drop the connection at once."""
        if self._transport is not None and not self._transport.is_closing():
            self.reason = reason
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio; the dialler speaks first."""
        # uvloop's transports only look like asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        self.host = name[0] if name else ""
        self.remote = f"{name[0]}:{name[1]}" if name else "?"
        self._deadline = asyncio.get_running_loop().call_later(
            HANDSHAKE_SECONDS, self.close, "handshake timed out"
        )
        self._write(self._channel.outgoing())

    def data_received(self, data: bytes) -> None:
        """Called by asyncio; whatever is wrong with the bytes closes the connection and nothing else."""
        self.bytes_received += len(data)
        try:
            events = self._channel.receive(data)
            if self._peer is None:
                # The handshake has answers of its own.
                self._write(self._channel.outgoing())
            if events:
                self.last_heard = time.monotonic()
            for event in events:
                if self._transport is None or self._transport.is_closing():
                    # What came in one piece with the reason for the end: nobody may act on it any more.
                    return
                self._handle(event)
        except PeerError as error:
            peer = self._peer.short if self._peer else self.remote
            log.info("closing the link to %s: %s", peer, error, extra={"peer": self._peer})
            self.close(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio, exactly once."""
        if self._deadline is not None:
            self._deadline.cancel()
        if not self.opened.done():
            self.opened.set_exception(PeerError(Code.CLOSED, f"{self.remote} hung up: {exc or self.reason}"))
            # An inbound connection has nobody waiting for this.
            self.opened.exception()
        self._events.on_lost(self)

    def _handle(self, event: Established | Message) -> None:
        match event:
            case ForwardHidden() | Token() | Hidden():
                self._events.on_message(self, event)
            case Established(peer):
                self._peer = peer
                if self._deadline is not None:
                    self._deadline.cancel()
                self._events.on_open(self)
                self.opened.set_result(peer)
            case Ping(nonce, at):
                self.send(Pong(nonce, at))
            case Pong(nonce, at):
                if self._asked == Ping(nonce, at):
                    # Only the last ping counts, and only once.
                    self._asked = None
                    self.round_trip = (time.monotonic_ns() - at) / 1e9
                    self._events.on_round_trip(self)
            case Unknown(kind, session):
                if session is not None:
                    self.send(AbortSession(session, Code.UNSUPPORTED, f"unknown message kind {kind}"))
            case _:
                self._events.on_message(self, event)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        if data and self._transport is not None:
            self.bytes_sent += len(data)
            self._transport.write(data)
