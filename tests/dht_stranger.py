"""A raw UDP endpoint that speaks the DHT's datagrams well enough to break every rule of it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from intelnav.dht.datagrams import (
    Answer,
    Request,
    decode,
    encode_answer,
    encode_request,
    id_of,
    is_answer,
    is_request,
)
from intelnav.domain.advert import Address
from intelnav.domain.identity import Identity

Reply = Callable[[Request, tuple[str, int]], Answer | bytes | None]


def no_reply(_request: Request, _sender: tuple[str, int]) -> None:
    """Say nothing to anybody."""


class Stranger(asyncio.DatagramProtocol):
    """`reply` says what a request of others gets: an answer, signed; any bytes; or nothing."""

    def __init__(self, identity: Identity, reply: Reply) -> None:
        self.identity = identity
        self.reply = reply
        self.bytes_sent = 0
        self.bytes_received = 0
        self.asked: list[Request] = []
        self._waiting: dict[bytes, asyncio.Future[Answer]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        self.address = Address(*transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.bytes_received += len(data)
        if is_answer(data) and (waiting := self._waiting.pop(id_of(data), None)) is not None:
            content = decode(data).content
            assert isinstance(content, Answer)
            waiting.set_result(content)
        elif is_request(data):
            request = decode(data).content
            assert isinstance(request, Request)
            self.asked.append(request)
            reply = self.reply(request, addr)
            if isinstance(reply, Answer):
                reply = encode_answer(self.identity, id_of(data), reply, decode(data).key)
            if reply is not None:
                self.send(reply, Address(*addr))

    def send(self, data: bytes, to: Address) -> None:
        self.bytes_sent += len(data)
        self.transport.sendto(data, (to.host, to.port))

    async def ask(self, request: Request, to: Address, identity: Identity | None = None) -> Answer:
        """The answer of the node at `to`; raises TimeoutError if none comes within five seconds."""
        request_id = os.urandom(8)
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = waiting
        self.send(encode_request(identity or self.identity, request_id, request), to)
        async with asyncio.timeout(5):
            return await waiting


@asynccontextmanager
async def stranger(seed: int, *, host: str = "127.0.0.1", reply: Reply = no_reply) -> AsyncIterator[Stranger]:
    """One that is bound to `host`."""
    made = Stranger(Identity(seed.to_bytes(32, "little")), reply)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, local_addr=(host, 0))
    try:
        yield made
    finally:
        made.transport.close()
