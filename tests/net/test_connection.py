import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import Identity
from intelnav.net import connection
from intelnav.net.connection import Connection
from intelnav.wire.channel import Channel, Established
from intelnav.wire.messages import ForwardHidden, Message, Ping, Pong, SessionClose
from tests.links import Endpoint, MakeEndpoint

pytestmark = pytest.mark.anyio

SESSION = bytes(16)


@dataclass
class RawPeer:
    """A dialler that reads only when a test says so, and can send several messages as one."""

    channel: Channel
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *messages: Message) -> None:
        self.writer.write(b"".join(map(self.channel.send, messages)))


@pytest.fixture
async def node(endpoint: MakeEndpoint) -> Endpoint:
    return await endpoint()


@pytest.fixture
async def raw_peer(node: Endpoint) -> AsyncIterator[RawPeer]:
    channel = Channel(
        Identity(b"\x77" * 32),
        node.identity.peer,
        static_private=b"\x03" * 32,
        ephemeral_private=b"\x04" * 32,
        agent="raw",
    )
    # So small that what this side does not read soon piles up at the other.
    reader, writer = await asyncio.open_connection(node.address.host, node.address.port, limit=1024)
    established = False
    async with asyncio.timeout(10):
        while not established:
            writer.write(channel.outgoing())
            events = channel.receive(await reader.read(65536))
            established = any(isinstance(event, Established) for event in events)
    yield RawPeer(channel, reader, writer)
    writer.transport.abort()


async def lost(node: Endpoint) -> Connection:
    async with asyncio.timeout(10):
        return await node.events.lost.get()


async def test_replies_that_the_peer_does_not_read_close_the_link(
    node: Endpoint, raw_peer: RawPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_UNSENT_REPLIES", 10_000)
    sender = asyncio.create_task(_ping_for_ever(raw_peer))
    link = await lost(node)
    assert link.reason == "the peer does not read"
    sender.cancel()


async def _ping_for_ever(peer: RawPeer) -> None:
    while True:
        peer.send(*(Ping(n, n) for n in range(1000)))
        await peer.writer.drain()


async def test_replies_that_the_peer_reads_are_not_counted(
    node: Endpoint, raw_peer: RawPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_UNSENT_REPLIES", 1000)
    heard = 0
    async with asyncio.timeout(10):
        for _ in range(10):
            raw_peer.send(*(Ping(n, n) for n in range(15)))
            heard += 15
            while heard:
                heard -= len(raw_peer.channel.receive(await raw_peer.reader.read(65536)))
    assert node.peers.links()[0].alive


async def test_states_that_the_peer_does_not_read_close_the_link(
    node: Endpoint, raw_peer: RawPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_UNSENT", 2**20)
    (link,) = node.peers.links()
    state = HiddenState(Dtype.F32, 256, 256, bytes(2**18))
    sent = 0
    while link.alive and sent < 64:
        link.send(ForwardHidden(SESSION, sent, 0, state))
        sent += 1
    assert 4 < sent < 64
    assert (await lost(node)).reason == "the peer does not read"


async def test_nothing_is_heard_from_a_link_after_its_end(
    node: Endpoint, raw_peer: RawPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Message] = []

    def closes(link: Connection, message: Message) -> None:
        heard.append(message)
        link.close("enough")

    monkeypatch.setattr(node.events, "on_message", closes)
    raw_peer.send(SessionClose(SESSION), SessionClose(SESSION))
    await lost(node)
    assert heard == [SessionClose(SESSION)]


async def test_a_message_that_is_larger_than_expected_closes_the_link(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    link = await a.peers.connect(b.identity.peer, [b.address])
    large = [
        ForwardHidden(SESSION, seq, 0, HiddenState(Dtype.F16, rows, 1024, bytes(2048 * rows)))
        for seq, rows in enumerate((31, 60, 100))
    ]
    link.send(large[0])
    async with asyncio.timeout(10):
        there, heard = await b.events.messages.get()
    assert heard == large[0]
    there.expect(128 * 1024)
    there.expect(1)
    link.send(large[1])
    async with asyncio.timeout(10):
        assert (await b.events.messages.get())[1] == large[1]
    link.send(large[2])
    assert "over the limit of 131072" in (await lost(b)).reason


async def round_trip(node: Endpoint) -> tuple[Connection, float]:
    async with asyncio.timeout(10):
        return await node.events.round_trips.get()


async def test_a_dialled_link_is_measured_as_it_opens_and_with_every_ping(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    link = await a.peers.connect(b.identity.peer, [b.address])
    for _ in range(2):
        measured, seconds = await round_trip(a)
        assert measured is link
        assert 0 < seconds < 10
        assert link.round_trip == seconds
        link.ping()
    assert b.events.round_trips.empty()


async def test_only_the_pong_of_the_last_ping_counts_and_only_once(node: Endpoint, raw_peer: RawPeer) -> None:
    (link,) = node.peers.links()
    link.ping()
    (first,) = await read(raw_peer, 1)
    link.ping()
    (last,) = await read(raw_peer, 1)
    assert isinstance(first, Ping)
    assert isinstance(last, Ping)
    assert first.nonce != last.nonce
    # Guesses, an old one, one with a clock set forward to look near, the right one, and the right one again.
    raw_peer.send(
        Pong(0, 0), Pong(first.nonce, first.at), Pong(last.nonce, last.at + 1), Pong(first.nonce, last.at)
    )
    raw_peer.send(Pong(last.nonce, last.at), Pong(last.nonce, last.at), SessionClose(SESSION))
    async with asyncio.timeout(10):
        await node.events.messages.get()
    assert node.events.round_trips.qsize() == 1
    assert (await round_trip(node))[0] is link


async def read(peer: RawPeer, count: int) -> list[object]:
    heard: list[object] = []
    async with asyncio.timeout(10):
        while len(heard) < count:
            heard += peer.channel.receive(await peer.reader.read(65536))
    return heard
