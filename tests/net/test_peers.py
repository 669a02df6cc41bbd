import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import pytest

from intelnav.domain.advert import Address
from intelnav.domain.errors import Code, ConfigError, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import Identity
from intelnav.net import connection
from intelnav.net import peers as peers_module
from intelnav.net.peers import LINKS_PER_PEER, MAX_HANDSHAKES, Peers
from intelnav.wire.messages import ForwardHidden, SessionClose
from tests.links import Endpoint, MakeEndpoint, Recorder
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

until = partial(eventually, seconds=10)


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
    # What comes first shows the link that it is to come over.
    link.send(SessionClose(b"s" * 16))
    await hears(b)
    b.peers.links()[0].expect(4 * 2**20)
    link.send(ForwardHidden(b"s" * 16, 0, 0, state))
    heard = await hears(b)
    assert isinstance(heard, ForwardHidden)
    assert bytes(heard.state.payload) == state.payload


async def test_bytes_of_links_that_are_gone_still_count(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    assert (a.peers.bytes_sent, a.peers.bytes_received) == (0, 0)
    last = (0, 0)
    for _ in range(3):
        link = await a.peers.connect(b.identity.peer, [b.address])
        link.send(SessionClose(b"s" * 16))
        await hears(b)
        link.close("the test says so")
        await a.events.lost.get()
        await b.events.lost.get()
        now = (a.peers.bytes_sent, a.peers.bytes_received)
        assert now == (b.peers.bytes_received, b.peers.bytes_sent)
        assert now > last
        last = now
    assert a.peers.links() == []


async def test_another_key_than_the_dialled_one_is_refused(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    stranger = Identity(b"\x77" * 32).peer
    with pytest.raises(PeerError, match=f"dialled {stranger}, but {b.identity.peer} answered"):
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
    for other in others:
        with suppress(PeerError):
            # Whether the dialler opens its side before it hears of the end is a matter of timing.
            links.append(await other.connect(b.identity.peer, [b.address]))
    assert len(b.peers.links()) == 4
    for peers in (*clones, *others):
        await peers.close()


async def test_who_answers_is_found_out_by_a_dial_that_leaves_no_link(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    assert await a.peers.answers(b.identity.peer, [Address("127.0.0.1", 9), b.address])
    assert a.peers.links() == []
    assert a.events.opened == []
    await until(lambda: not b.peers.links())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::ffff:127.0.0.1"])
async def test_nobody_has_a_node_dial_closer_than_he_is_himself(endpoint: MakeEndpoint, host: str) -> None:
    a, b = await endpoint(), await endpoint()
    here = [Address(host, b.address.port)]
    for teller in ("8.8.8.8", "2001:4860:4860::8888", "192.168.1.7", "::ffff:8.8.8.8", "", "?"):
        with pytest.raises(PeerError):
            await a.peers.connect(b.identity.peer, here, teller=teller)
        assert not await a.peers.answers(b.identity.peer, here, teller=teller)
    assert b.peers.bytes_received == 0
    assert await a.peers.answers(b.identity.peer, here, teller="127.0.0.1")
    assert (await a.peers.connect(b.identity.peer, here, teller="::ffff:127.0.0.1")).alive


async def test_a_link_that_the_peer_opened_does_not_show_that_it_answers(endpoint: MakeEndpoint) -> None:
    a, b, other = await endpoint(), await endpoint(), await endpoint()
    link = await b.peers.connect(a.identity.peer, [a.address])
    assert not await a.peers.answers(b.identity.peer, [])
    assert not await a.peers.answers(b.identity.peer, [Address("127.0.0.1", 9), other.address])
    assert await a.peers.answers(b.identity.peer, [b.address])
    assert link.alive
    assert b.peers.links()[0] is link


async def test_a_link_that_was_dialled_shows_that_the_peer_answers(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    link = await a.peers.connect(b.identity.peer, [b.address])
    assert await a.peers.answers(b.identity.peer, [])
    link.close("test")
    assert not await a.peers.answers(b.identity.peer, [])


async def test_an_address_that_never_speaks_costs_a_bounded_time(
    endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "CONNECT_SECONDS", 0.2)
    a = await endpoint()
    hung_up = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(1000):
                pass
        writer.close()
        hung_up.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(10):
        assert not await a.peers.answers(Identity(b"\x77" * 32).peer, [Address("127.0.0.1", port)] * 50)
        await hung_up.wait()
    server.close()


HOSTILE = ["a..b", "x" * 64, ".", "..", "a\0b", "\ud800", "é" * 70, "%", "[::1]"]


@pytest.mark.parametrize("host", HOSTILE)
async def test_a_host_name_that_cannot_be_is_a_peer_error(endpoint: MakeEndpoint, host: str) -> None:
    a = await endpoint()
    with pytest.raises(PeerError, match="cannot be reached"):
        await a.peers.connect(Identity(b"\x77" * 32).peer, [Address(host, 1)])
    with pytest.raises(ConfigError, match=r"network\.listen"):
        await Peers(Identity(b"\x09" * 32), Recorder(), limit=1).listen(Address(host, 0))


@pytest.mark.parametrize("port", [-1, 70_000, 2**40])
async def test_a_port_that_cannot_be_is_a_peer_error(endpoint: MakeEndpoint, port: int) -> None:
    a = await endpoint()
    with pytest.raises(PeerError, match="cannot be reached"):
        await a.peers.connect(Identity(b"\x77" * 32).peer, [Address("127.0.0.1", port)])


async def test_an_unused_dialled_link_goes_where_another_is_wanted(endpoint: MakeEndpoint) -> None:
    a, b, c, d = await endpoint(limit=2), await endpoint(), await endpoint(), await endpoint()
    used = await a.peers.connect(b.identity.peer, [b.address])
    a.events.used.add(used)
    unused = await a.peers.connect(c.identity.peer, [c.address])
    wanted = await a.peers.connect(d.identity.peer, [d.address])
    async with asyncio.timeout(10):
        assert await a.events.lost.get() is unused
    assert a.peers.links() == [used, wanted]
    a.events.used.add(wanted)
    with pytest.raises(PeerError, match="dialled as many") as caught:
        await a.peers.connect(c.identity.peer, [c.address])
    assert caught.value.code is Code.BUSY
    assert a.peers.links() == [used, wanted]


async def test_links_from_outside_leave_room_to_dial(endpoint: MakeEndpoint) -> None:
    a, b, c = await endpoint(limit=1), await endpoint(), await endpoint()
    await b.peers.connect(a.identity.peer, [a.address])
    link = await a.peers.connect(c.identity.peer, [c.address])
    assert link.alive
    assert len(a.peers.links()) == 2


async def black_hole() -> tuple[asyncio.Server, Address]:
    """Takes connections and never says a word."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    return server, Address("127.0.0.1", server.sockets[0].getsockname()[1])


async def test_bad_addresses_of_a_peer_do_not_hold_up_good_ones(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    server, hole = await black_hole()
    hostile = asyncio.create_task(a.peers.connect(b.identity.peer, [hole] * 8))
    async with asyncio.timeout(2):
        await asyncio.sleep(0)
        assert len(a.peers._dials) == 1
        link = await a.peers.connect(b.identity.peer, [b.address])
        assert await a.peers.connect(b.identity.peer, [hole]) is link
    hostile.cancel()
    await asyncio.gather(hostile, return_exceptions=True)
    assert a.peers._dials == {}
    server.close()


async def test_a_connect_is_bounded_in_time(endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "CONNECT_SECONDS", 0.2)
    a = await endpoint()
    server, hole = await black_hole()
    async with asyncio.timeout(4):
        with pytest.raises(PeerError, match=r"given up after 0\.2 s"):
            await a.peers.connect(Identity(b"\x77" * 32).peer, [hole] * 8)
    server.close()


async def test_two_dials_of_one_peer_leave_one_link(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    links = await asyncio.gather(
        *(a.peers.connect(b.identity.peer, [b.address] * different) for different in (1, 2))
    )
    assert links[0] is links[1]
    async with asyncio.timeout(10):
        await a.events.lost.get()
    assert a.peers.links() == [links[0]]


async def test_a_link_that_is_closed_at_once_is_no_link(
    endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await endpoint(), await endpoint()
    monkeypatch.setattr(a.events, "on_open", lambda link: link.close("not today"))
    with pytest.raises(PeerError, match="not today") as caught:
        await a.peers.connect(b.identity.peer, [b.address])
    assert caught.value.code is Code.CLOSED


async def test_a_handshake_has_its_time(endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HANDSHAKE_SECONDS", 0.1)
    b = await endpoint()
    reader, writer = await asyncio.open_connection(b.address.host, b.address.port)
    async with asyncio.timeout(5):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


@pytest.fixture
async def keeper(endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Endpoint]:
    """A node that looks after its links all the time."""
    monkeypatch.setattr(peers_module, "PING_SECONDS", 0.05)
    node = await endpoint()
    task = asyncio.create_task(node.peers.keep_alive())
    yield node
    task.cancel()


async def test_a_quiet_link_is_pinged_and_stays(keeper: Endpoint, endpoint: MakeEndpoint) -> None:
    b = await endpoint()
    link = await keeper.peers.connect(b.identity.peer, [b.address])
    heard = link.last_heard
    await until(lambda: link.last_heard > heard)
    assert link.alive


async def test_a_link_in_use_is_measured_now_and_then(
    keeper: Endpoint, endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "MEASURE_SECONDS", 0.2)
    b = await endpoint()
    link = await keeper.peers.connect(b.identity.peer, [b.address])
    back = b.events.opened[0]
    async with asyncio.timeout(10):
        for _ in range(3):
            while keeper.events.round_trips.empty():
                # Never quiet for long enough to be asked for a sign of life.
                back.send(SessionClose(b"s" * 16))
                await asyncio.sleep(0.001)
            assert (await keeper.events.round_trips.get())[0] is link


async def test_a_silent_link_is_dropped(
    keeper: Endpoint, endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "SILENCE_SECONDS", 0.3)
    b = await endpoint()
    link = await keeper.peers.connect(b.identity.peer, [b.address])
    other = b.events.opened[0]
    # It hears the pings and has nothing to say.
    monkeypatch.setattr(other, "send", lambda message: None)
    async with asyncio.timeout(10):
        assert await keeper.events.lost.get() is link
    assert link.reason == "the peer went silent"


async def test_bytes_that_are_no_message_are_no_sign_of_life(endpoint: MakeEndpoint) -> None:
    a, b = await endpoint(), await endpoint()
    link = await a.peers.connect(b.identity.peer, [b.address])
    other = b.events.opened[0]
    async with asyncio.timeout(10):
        await a.events.round_trips.get()
    heard, before = link.last_heard, link.bytes_received
    # The length of a frame that never comes.
    other._write(b"\x01\x00drip")
    await until(lambda: link.bytes_received > before)
    assert link.last_heard == heard


async def test_a_dialled_link_that_nothing_uses_is_dropped(
    keeper: Endpoint, endpoint: MakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "UNUSED_SECONDS", 0.3)
    b, c = await endpoint(), await endpoint()
    used = await keeper.peers.connect(b.identity.peer, [b.address])
    keeper.events.used.add(used)
    unused = await keeper.peers.connect(c.identity.peer, [c.address])
    await b.peers.connect(keeper.identity.peer, [keeper.address])
    async with asyncio.timeout(10):
        assert await keeper.events.lost.get() is unused
    assert keeper.peers.links() == [used]


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
