import asyncio
from contextlib import suppress

import pytest

from intelnav.domain.errors import Code, ConfigError, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import Identity
from intelnav.net.peers import LINKS_PER_PEER, MAX_HANDSHAKES, Peers
from intelnav.wire.messages import ForwardHidden, SessionClose
from tests.links import Endpoint, MakeEndpoint, Recorder

pytestmark = pytest.mark.anyio


async def hears(node: Endpoint) -> object:
    async with asyncio.timeout(10):
        return (await node.events.messages.get())[1]


async def test_messages_go_both_ways_over_one_link(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    link = await a.peers.connect(b.identity.peer, [b.address])
    link.send(SessionClose(b"s" * 16))
    assert await hears(b) == SessionClose(b"s" * 16)
    back = await b.peers.connect(a.identity.peer, [a.address])
    back.send(SessionClose(b"t" * 16))
    assert await hears(a) == SessionClose(b"t" * 16)
    assert len(a.peers.links()) == len(b.peers.links()) == 1
    assert back is b.events.opened[0]


async def test_a_state_larger_than_a_frame_arrives_whole(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    state = HiddenState(Dtype.F32, 128, 4096, bytes(range(256)) * 8192)
    link = await a.peers.connect(b.identity.peer, [b.address])
    link.send(ForwardHidden(b"s" * 16, 0, 0, state))
    heard = await hears(b)
    assert isinstance(heard, ForwardHidden)
    assert bytes(heard.state.payload) == state.payload


async def test_another_key_than_the_dialled_one_is_refused(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    stranger = Identity(b"\x77" * 32).peer
    with pytest.raises(PeerError, match="cannot be reached"):
        await a.peers.connect(stranger, [b.address])
    assert a.peers.links() == []


async def test_the_next_address_is_tried(endpoint: MakeEndpoint) -> None:
    a, b, other = await endpoint(), await endpoint(), await endpoint()
    link = await a.peers.connect(b.identity.peer, [other.address, b.address])
    assert link.peer == b.identity.peer


async def test_no_address_that_answers_is_an_error_that_names_each(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    await b.peers.close()
    with pytest.raises(PeerError, match=str(b.address)) as caught:
        await a.peers.connect(b.identity.peer, [b.address])
    assert caught.value.code == Code.CLOSED


async def test_simultaneous_dials_of_one_node_share_a_link(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    links = await asyncio.gather(*(a.peers.connect(b.identity.peer, [b.address]) for _ in range(8)))
    assert len(set(links)) == 1


async def test_a_lost_link_is_told_once_and_dialled_anew(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    link = await a.peers.connect(b.identity.peer, [b.address])
    link.close("test")
    async with asyncio.timeout(10):
        assert await a.events.lost.get() is link
        await b.events.lost.get()
    assert a.peers.links() == b.peers.links() == []
    link.send(SessionClose(b"s" * 16))
    again = await a.peers.connect(b.identity.peer, [b.address])
    assert again is not link
    assert again.alive


async def test_links_of_one_peer_and_in_all_are_bounded(endpoint: MakeEndpoint) -> None:
    b = await endpoint(limit=4)
    clones = [Peers(Identity(b"\x05" * 32), Recorder(), limit=4) for _ in range(LINKS_PER_PEER + 1)]
    links = [await clone.connect(b.identity.peer, [b.address]) for clone in clones]
    async with asyncio.timeout(10):
        await b.events.lost.get()
    assert len(b.peers.links()) == LINKS_PER_PEER
    others = [Peers(Identity(bytes([n]) * 32), Recorder(), limit=4) for n in range(10, 16)]
    links += [await other.connect(b.identity.peer, [b.address]) for other in others]
    assert len(b.peers.links()) == 4
    for peers in (*clones, *others):
        await peers.close()


async def test_an_address_in_use_is_a_config_error(endpoint: MakeEndpoint) -> None:
    a = await endpoint()
    with pytest.raises(ConfigError, match=r"network\.listen"):
        await Peers(Identity(b"\x09" * 32), Recorder(), limit=1).listen(a.address)


async def test_a_flood_of_handshakes_leaves_open_links_alone(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    link = await a.peers.connect(b.identity.peer, [b.address])
    silent = [
        await asyncio.open_connection(b.address.host, b.address.port) for _ in range(MAX_HANDSHAKES + 5)
    ]
    async with asyncio.timeout(10):
        # The first to come is the first to go.
        assert await silent[0][0].read() == b""
    link.send(SessionClose(b"s" * 16))
    assert await hears(b) == SessionClose(b"s" * 16)
    late = Peers(Identity(b"\x08" * 32), Recorder(), limit=4)
    assert (await late.connect(b.identity.peer, [b.address])).alive
    await late.close()
    for _, writer in silent:
        writer.close()


async def test_bytes_that_are_no_protocol_close_the_connection(endpoint: MakeEndpoint) -> None:
    b = await endpoint()
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x08" + b"\xff" * 8, b"\xff\xff" + b"x" * 70000):
        reader, writer = await asyncio.open_connection(b.address.host, b.address.port)
        writer.write(junk)
        async with asyncio.timeout(10):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
    assert b.peers.links() == []
