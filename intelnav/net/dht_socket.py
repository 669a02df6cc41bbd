"""The UDP socket of the DHT: requests out and their answers back in, and requests of others to who answers them."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from intelnav.dht.contacts import Contact, plain
from intelnav.dht.datagrams import (
    ID_BYTES,
    Answer,
    Datagram,
    Request,
    decode,
    encode_answer,
    encode_request,
    id_of,
    is_answer,
    is_request,
)
from intelnav.dht.limits import Allowance, RateLimit
from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError, PeerError
from intelnav.domain.identity import Identity

log = logging.getLogger(__name__)

MAX_WAITING = 2048

OnAnswer = Callable[[Contact, Answer], None]
OnRequest = Callable[[Datagram, tuple[str, int]], Answer | None]


@dataclass(slots=True)
class _Waiting:
    address: tuple[str, int]
    on_answer: OnAnswer
    on_silence: Callable[[], None]
    timer: asyncio.TimerHandle


class DhtSocket(asyncio.DatagramProtocol):
    """Sends and receives signed datagrams; `on_request` gives the answer to a request, or None for none.

    Of one host `rate` requests per second are looked at, after a burst of `burst`; an answer is awaited for
    `reply_seconds`.
    """

    def __init__(
        self, identity: Identity, on_request: OnRequest, *, rate: float, burst: float, reply_seconds: float
    ) -> None:
        self._identity = identity
        self._on_request = on_request
        self._rate = RateLimit(rate, burst)
        self._allowance = Allowance()
        self._reply_seconds = reply_seconds
        self._transport: asyncio.DatagramTransport | None = None
        self._family = socket.AF_INET
        self._waiting: dict[bytes, _Waiting] = {}
        self.bytes_sent = 0
        self.bytes_received = 0
        self.requests_sent = 0
        self.datagrams_sent = 0
        self.datagrams_received = 0

    async def listen(self, address: Address) -> Address:
        """Bind the socket; the address it has then. Raises ConfigError if it cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: self, local_addr=(address.host, address.port)
            )
        except (OSError, ValueError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"network.listen: UDP {address} cannot be used ({reason}): "
                "choose a free port, or stop the program that holds it"
            ) from None
        host, port = transport.get_extra_info("sockname")[:2]
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return Address(host, port)

    def ask(
        self,
        address: tuple[str, int],
        request: Request,
        on_answer: OnAnswer,
        on_silence: Callable[[], None],
    ) -> bool:
        """Send a request to whoever answers there; False if that cannot be done.

        Exactly one of the two is called later: `on_answer` with who answered and signed it, or `on_silence`.
        """
        destination = self._destination(address)
        if destination is None or self._transport is None or len(self._waiting) >= MAX_WAITING:
            return False
        request_id = os.urandom(ID_BYTES)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._reply_seconds, self._silent, request_id)
        self._waiting[request_id] = _Waiting(address, on_answer, on_silence, timer)
        self.requests_sent += 1
        self._send(destination, encode_request(self._identity, request_id, request))
        return True

    def may_ask_back(self, address: tuple[str, int], size: int) -> bool:
        """Whether `size` bytes more may be sent to who just asked something; counts them if so."""
        return self._allowance.spend(address, size, time.monotonic())

    def close(self) -> None:
        """Give the socket up; whoever waits is told that there is silence."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        for request_id in list(self._waiting):
            self._silent(request_id)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        # uvloop's transports only look like asyncio's.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Called by asyncio; what is wrong with a datagram ends here, without a word."""
        self.bytes_received += len(data)
        self.datagrams_received += 1
        address = _plain(addr)
        try:
            if is_request(data):
                self._receive_request(data, address)
            elif is_answer(data):
                self._receive_answer(data, address)
        except PeerError as error:
            log.debug("a datagram from %s is dropped: %s", address, error)

    def error_received(self, exc: Exception) -> None:
        """Called by asyncio; nobody listens there, and the time-out will tell."""

    def _receive_request(self, data: bytes, address: tuple[str, int]) -> None:
        now = time.monotonic()
        if not self._rate.allows(address[0], now):
            return
        self._allowance.received(address, len(data))
        datagram = decode(data)
        answer = self._on_request(datagram, address)
        if answer is None:
            return
        reply = encode_answer(self._identity, datagram.id, answer, datagram.key)
        destination = self._destination(address)
        if destination is not None and self._allowance.spend(address, len(reply), now):
            self._send(destination, reply)

    def _receive_answer(self, data: bytes, address: tuple[str, int]) -> None:
        request_id = id_of(data)
        waiting = self._waiting.get(request_id)
        if waiting is None or waiting.address != address:
            return
        datagram = decode(data)
        if not datagram.is_signed(self._identity.peer.key):
            return
        assert isinstance(datagram.content, Answer)
        del self._waiting[request_id]
        waiting.timer.cancel()
        self._allowance.verify(address, time.monotonic())
        waiting.on_answer(Contact(datagram.key, *address), datagram.content)

    def _silent(self, request_id: bytes) -> None:
        waiting = self._waiting.pop(request_id)
        waiting.timer.cancel()
        waiting.on_silence()

    def _send(self, destination: tuple[str, int], data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.bytes_sent += len(data)
            self.datagrams_sent += 1
            self._transport.sendto(data, destination)

    def _destination(self, address: tuple[str, int]) -> tuple[str, int] | None:
        """How the socket spells an address; None if its family cannot reach it."""
        host, port = address
        if (":" in host) == (self._family == socket.AF_INET6):
            return address
        return (f"::ffff:{host}", port) if self._family == socket.AF_INET6 else None


def _plain(address: tuple[str, int]) -> tuple[str, int]:
    """The sender of a datagram in the usual spelling, without a mapping or a zone."""
    host, port = address[:2]
    return plain(host) if ":" in host else host, port
