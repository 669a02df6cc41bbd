"""A hop with a real worker behind it, and a peer that does not play by the rules in front of it."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest

from intelnav.chain.hop import WINDOW
from intelnav.domain.advert import Address
from intelnav.domain.errors import Code
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import Identity, PeerId
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.engine.process import SliceProcess
from intelnav.net import peers
from intelnav.net.connection import Connection
from intelnav.net.peers import Peers
from intelnav.wire.codec import encode
from intelnav.wire.messages import (
    AbortSession,
    ForwardHidden,
    Hidden,
    Message,
    NextHop,
    SessionAck,
    SessionClose,
    SessionInit,
    Token,
)
from tests.chain.conftest import ROOM
from tests.hosts import Hosted, hosting
from tests.links import Recorder
from tests.models import WIDTH
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


class Client:
    """A peer that opens sessions; what comes back is kept per session."""

    def __init__(self, seed: int, node: Hosted, cid: str) -> None:
        self.node = node
        self.cid = cid
        self.events = Recorder()
        self.peers = Peers(Identity(bytes([seed]) * 32), self.events, limit=8)
        self.link: Connection

    async def connect(self) -> "Client":
        self.link = await self.peers.connect(self.node.peers.own, [self.node.address])
        return self

    async def hears(self) -> Message:
        async with asyncio.timeout(20):
            return (await self.events.messages.get())[1]

    def init(self, session: bytes, **changes: object) -> SessionInit:
        init = SessionInit(
            session, self.cid, LayerRange(3, 6), Dtype.F32, 32, self.peers.own, None, sampling=Sampling()
        )
        return replace(init, **changes)  # type: ignore[arg-type] # fields of the caller's choice

    async def open(self, session: bytes) -> None:
        self.link.send(self.init(session))
        assert isinstance(await self.hears(), SessionAck)

    async def answer(self, session: bytes, steps: int = 6) -> list[int]:
        """Tokens for rows that are the same for every session."""
        tokens: list[int] = []
        for seq in range(steps):
            self.link.send(forward(session, seq, seq))
            reply = await self.hears()
            assert isinstance(reply, Token), reply
            tokens += reply.tokens
        return tokens

    async def aborted(self) -> Code:
        reply = await self.hears()
        assert isinstance(reply, AbortSession), reply
        return reply.code


def state(position: int, rows: int = 1, width: int = WIDTH, dtype: Dtype = Dtype.F32) -> HiddenState:
    values = np.random.default_rng(position).standard_normal((rows, width), dtype=np.float32)
    return HiddenState(
        dtype, rows, width, values.astype({Dtype.F32: "<f4", Dtype.F16: "<f2"}[dtype]).tobytes()
    )


def forward(session: bytes, seq: int, position: int, rows: int = 1) -> ForwardHidden:
    return ForwardHidden(session, seq, position, state(position, rows), sample_from=rows - 1)


@pytest.fixture
def idle_seconds() -> float:
    return 300.0


@pytest.fixture
async def node(tail: SliceProcess, cid: str, idle_seconds: float) -> AsyncIterator[Hosted]:
    async with hosting({cid: tail}, seed=1, idle_seconds=idle_seconds) as node:
        yield node


@pytest.fixture
async def client(node: Hosted, cid: str) -> AsyncIterator[Client]:
    client = await Client(2, node, cid).connect()
    yield client
    await client.peers.close()


async def is_empty(node: Hosted) -> None:
    """Wait until the node holds no session and its engine no sequence."""
    await eventually(lambda: not len(node.hops) and not node.engine.in_use)


def sid(number: int) -> bytes:
    return bytes([number]) * 16


async def test_a_session_answers_and_its_sequence_comes_back(client: Client, node: Hosted) -> None:
    await client.open(sid(1))
    assert len(await client.answer(sid(1))) == 6
    client.link.send(SessionClose(sid(1)))
    await is_empty(node)


async def test_sessions_do_not_see_each_other(client: Client) -> None:
    await client.open(sid(1))
    alone = await client.answer(sid(1))
    await client.open(sid(2))
    await client.open(sid(3))
    client.link.send(forward(sid(3), 0, 0, rows=5))
    assert isinstance(await client.hears(), Token)
    assert await client.answer(sid(2)) == alone


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (lambda s: forward(s, 1, 1), Code.BAD_REQUEST),
        (lambda s: forward(s, 3, 2), Code.BAD_REQUEST),
        (lambda s: forward(s, 2, 5), Code.BAD_REQUEST),
        (lambda s: forward(s, 2, 2, rows=17), Code.BAD_REQUEST),
        (lambda s: replace(forward(s, 2, 2), state=state(2, width=WIDTH * 2)), Code.BAD_REQUEST),
        (lambda s: replace(forward(s, 2, 2), state=state(2, dtype=Dtype.F16)), Code.BAD_REQUEST),
        (lambda s: replace(forward(s, 2, 2), sample_from=1), Code.BAD_REQUEST),
        (lambda s: replace(forward(s, 2, 2), kv_truncate_to=9), Code.BAD_REQUEST),
        (
            lambda s: replace(forward(s, 2, 2), state=HiddenState(Dtype.F32, 1, WIDTH, b"\xff" * 4 * WIDTH)),
            None,
        ),
    ],
    ids=["replayed", "seq", "position", "rows", "width", "dtype", "sample", "truncate", "nan"],
)
async def test_a_bad_forward_ends_its_own_session_only(
    client: Client, bad: object, code: Code | None
) -> None:
    await client.open(sid(1))
    alone = await client.answer(sid(1))
    await client.open(sid(2))
    await client.open(sid(3))
    first = await client.answer(sid(2), steps=2)
    assert callable(bad)
    client.link.send(bad(sid(2)))
    ended = await client.aborted()
    assert ended == code or (code is None and ended in (Code.BAD_REQUEST, Code.ENGINE_FAILED))
    assert first == alone[:2]
    assert await client.answer(sid(3)) == alone


async def test_what_drains_opens_no_session_and_says_so(tail: SliceProcess, cid: str) -> None:
    async with hosting({cid: tail}, seed=1, draining=[cid]) as node:
        client = await Client(2, node, cid).connect()
        client.link.send(client.init(sid(1)))
        assert await client.aborted() == Code.DRAINING
        # Of other layers it has no more than any node.
        client.link.send(client.init(sid(2), layers=LayerRange(2, 6)))
        assert await client.aborted() == Code.NOT_HOSTING
        await client.peers.close()


async def test_the_sessions_of_one_engine_are_shown_and_ended(client: Client, node: Hosted) -> None:
    await client.open(sid(1))
    await client.answer(sid(1), steps=2)
    (running,) = node.hops.running(node.engine)
    own = client.peers.own
    assert (running.session, running.entry, running.prev, running.next) == (sid(1), own, own, None)
    assert running.tokens == 2
    assert running.seconds >= 0
    node.hops.end_in(node.engine, "given up")
    assert await client.aborted() == Code.DRAINING
    assert node.hops.running(node.engine) == []
    await is_empty(node)


async def test_a_node_that_leaves_ends_its_sessions_in_its_own_time(client: Client, node: Hosted) -> None:
    await client.open(sid(1))
    node.hops.refuse_all()
    client.link.send(client.init(sid(2)))
    assert await client.aborted() == Code.DRAINING
    assert len(await client.answer(sid(1))) == 6


async def test_a_full_context_is_too_long(client: Client) -> None:
    await client.open(sid(1))
    position = 0
    for seq in range(ROOM.context // 16):
        client.link.send(forward(sid(1), seq, position, rows=16))
        assert isinstance(await client.hears(), Token)
        position += 16
    client.link.send(forward(sid(1), seq + 1, position))
    assert await client.aborted() == Code.TOO_LONG


async def test_forwards_beyond_the_window_end_the_session(client: Client) -> None:
    await client.open(sid(1))
    for seq in range(WINDOW + 1):
        client.link.send(forward(sid(1), seq, seq))
    heard = [await client.hears() for _ in range(1)]
    while isinstance(heard[-1], Token):
        heard.append(await client.hears())
    assert isinstance(heard[-1], AbortSession)
    assert heard[-1].code == Code.BAD_REQUEST


async def test_an_outsider_can_neither_feed_nor_end_a_session(client: Client, node: Hosted, cid: str) -> None:
    await client.open(sid(1))
    first = await client.answer(sid(1), steps=2)
    stranger = await Client(9, node, cid).connect()
    stranger.link.send(forward(sid(1), 2, 2))
    assert await stranger.aborted() == Code.BAD_REQUEST
    stranger.link.send(SessionClose(sid(1)))
    stranger.link.send(AbortSession(sid(1), Code.CLOSED, "mine"))
    stranger.link.send(stranger.init(sid(1)))
    assert await stranger.aborted() == Code.BAD_REQUEST
    await stranger.peers.close()
    await client.open(sid(2))
    assert (await client.answer(sid(2)))[:2] == first
    client.link.send(forward(sid(1), 2, 2))
    assert isinstance(await client.hears(), Token)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": "b3-" + "a" * 52}, Code.NOT_HOSTING),
        ({"layers": LayerRange(2, 6)}, Code.NOT_HOSTING),
        ({"layers": LayerRange(3, 7)}, Code.NOT_HOSTING),
        ({"context": ROOM.context + 1}, Code.TOO_LONG),
        ({"layers": LayerRange(3, 5)}, Code.BAD_REQUEST),
    ],
    ids=["model", "start", "end", "context", "sampling without head"],
)
async def test_an_init_that_does_not_fit_is_refused(
    client: Client, node: Hosted, changes: dict[str, object], code: Code
) -> None:
    client.link.send(client.init(sid(1), **changes))
    assert await client.aborted() == code
    await is_empty(node)


async def test_a_slice_may_be_asked_to_stop_early(client: Client) -> None:
    client.link.send(client.init(sid(1), layers=LayerRange(3, 5), sampling=None))
    assert isinstance(await client.hears(), SessionAck)
    client.link.send(forward(sid(1), 0, 0, rows=3))
    reply = await client.hears()
    assert isinstance(reply, Hidden)
    assert (reply.state.rows, reply.state.width) == (3, WIDTH)


async def test_the_last_place_taken_is_busy_and_a_closed_one_free_again(client: Client) -> None:
    for number in range(ROOM.sessions):
        await client.open(sid(number))
    client.link.send(client.init(sid(99)))
    assert await client.aborted() == Code.BUSY
    client.link.send(SessionClose(sid(0)))
    await client.open(sid(100))


async def test_a_next_hop_that_cannot_be_reached_is_said(client: Client, node: Hosted) -> None:
    nobody = NextHop(PeerId(b"\x42" * 32), (Address("127.0.0.1", 9),))
    client.link.send(client.init(sid(1), layers=LayerRange(3, 5), next=nobody, sampling=None))
    assert await client.aborted() == Code.CLOSED
    await is_empty(node)


async def test_a_next_hop_in_a_closer_network_than_the_entrys_is_not_dialled(
    client: Client, node: Hosted
) -> None:
    there = Client(3, node, client.cid)
    await there.peers.listen(Address("127.0.0.1", 0))
    assert there.peers.address is not None
    [link] = node.peers.links()
    link.host = "8.8.8.8"
    near = NextHop(there.peers.own, (there.peers.address,))
    client.link.send(client.init(sid(1), layers=LayerRange(3, 5), next=near, sampling=None))
    reply = await client.hears()
    assert isinstance(reply, AbortSession)
    assert "closer to here" in reply.reason
    assert there.peers.bytes_received == 0
    await is_empty(node)
    await there.peers.close()


async def test_a_lost_entry_leaves_nothing_behind(client: Client, node: Hosted) -> None:
    for number in range(ROOM.sessions):
        await client.open(sid(number))
    client.link.send(forward(sid(1), 0, 0, rows=16))
    client.link.close("test")
    await is_empty(node)


@pytest.mark.parametrize("idle_seconds", [0.2])
async def test_a_session_that_nobody_uses_ends(client: Client, node: Hosted) -> None:
    await client.open(sid(1))
    assert await client.aborted() == Code.TIMEOUT
    await is_empty(node)


async def test_answers_to_questions_that_were_never_asked_fall_away(client: Client) -> None:
    client.link.send(Token(sid(7), 0, 0, ()))
    client.link.send(SessionAck(sid(7), "class", 1, 1, 1))
    await client.open(sid(1))


async def test_the_link_to_prev_counts_before_its_first_forward(
    client: Client, node: Hosted, cid: str
) -> None:
    prev = await Client(3, node, cid).connect()
    client.link.send(client.init(sid(1), prev=prev.peers.own))
    assert isinstance(await client.hears(), SessionAck)
    [there] = [link for link in node.peers.links() if link.peer == prev.peers.own]
    assert node.hops.uses(there)
    prev.link.close("test")
    assert await client.aborted() == Code.CLOSED
    await is_empty(node)


async def test_of_two_links_to_prev_one_may_go_before_its_first_forward(
    client: Client, node: Hosted, cid: str
) -> None:
    prev = await Client(3, node, cid).connect()
    again = await Client(3, node, cid).connect()
    client.link.send(client.init(sid(1), prev=prev.peers.own))
    assert isinstance(await client.hears(), SessionAck)
    prev.link.close("test")
    await eventually(lambda: sum(link.peer == prev.peers.own for link in node.peers.links()) == 1)
    assert len(node.hops) == 1
    again.link.send(forward(sid(1), 0, 0))
    assert isinstance(await client.hears(), Token)
    # That one is used now.
    again.link.close("test")
    assert await client.aborted() == Code.CLOSED
    await is_empty(node)


async def test_prev_may_end_a_session_before_its_first_forward(
    client: Client, node: Hosted, cid: str
) -> None:
    prev = await Client(3, node, cid).connect()
    client.link.send(client.init(sid(1), prev=prev.peers.own))
    assert isinstance(await client.hears(), SessionAck)
    prev.link.send(AbortSession(sid(1), Code.BUSY, "test"))
    assert await client.aborted() == Code.BUSY
    await is_empty(node)
    await prev.peers.close()


@pytest.mark.parametrize("is_first", [False, True])
async def test_activations_are_expected_from_prev_and_nobody_else(
    client: Client, node: Hosted, cid: str, is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "CONTROL_BYTES", 1024)
    prev, other = Client(3, node, cid), await Client(4, node, cid).connect()
    if is_first:
        await prev.connect()
    client.link.send(client.init(sid(1), prev=prev.peers.own))
    assert isinstance(await client.hears(), SessionAck)
    if not is_first:
        await prev.connect()
    await eventually(lambda: prev.peers.own in {link.peer for link in node.peers.links()})
    limits = {link.peer: link._channel.max_message for link in node.peers.links()}
    assert limits[other.peers.own] == 1024
    assert limits[prev.peers.own] == 32 * 1024 + ROOM.max_rows * Dtype.F32.row_bytes(WIDTH)
    await prev.peers.close()
    await other.peers.close()


async def test_sessions_leave_no_task_behind(client: Client, node: Hosted) -> None:
    await client.open(sid(1))
    before = len(asyncio.all_tasks())
    for number in range(2, 200):
        client.link.send(client.init(sid(number)))
        if number % 3 == 0:
            assert isinstance(await client.hears(), SessionAck | AbortSession)
        if number % 5:
            client.link.send(SessionClose(sid(number)))
        else:
            client.link.send(AbortSession(sid(number), Code.CLOSED, "test"))
    client.link.send(SessionClose(sid(1)))
    await is_empty(node)
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


async def test_of_two_slices_with_one_start_the_one_that_reaches_far_enough_serves(
    tail: SliceProcess, cid: str, shorter: SliceProcess
) -> None:
    async with hosting({cid: tail}, seed=1, beside=[shorter]) as node:
        client = await Client(2, node, cid).connect()
        await client.open(sid(1))
        assert (tail.in_use, shorter.in_use) == (1, 0)
        client.link.send(client.init(sid(2), layers=LayerRange(3, 5), sampling=None))
        assert isinstance(await client.hears(), SessionAck)
        assert (tail.in_use, shorter.in_use) == (1, 1)
        await client.peers.close()


async def test_a_known_peer_that_sends_rubbish_loses_its_link_only(
    client: Client, node: Hosted, cid: str
) -> None:
    await client.open(sid(1))
    alone = await client.answer(sid(1))
    rng = random.Random(1)
    good = b"".join(map(bytes, encode(forward(sid(1), 6, 6))))
    for number in range(200):
        hostile = await Client(20, node, cid).connect()
        body = bytearray(good if number % 2 else rng.randbytes(rng.randrange(200)))
        for _ in range(rng.randrange(1, 5)):
            if body:
                body[rng.randrange(len(body))] = rng.randrange(256)
        length = rng.choice([len(body), len(body) + 5, 2**32 - 1])
        sealed = hostile.link._channel._transport.seal(length.to_bytes(4, "big") + body)  # type: ignore[union-attr] # it is open
        assert hostile.link._transport is not None
        hostile.link._transport.write(len(sealed).to_bytes(2, "big") + sealed)
        await hostile.peers.close()
    await client.open(sid(2))
    assert await client.answer(sid(2)) == alone
    client.link.send(forward(sid(1), 6, 6))
    assert isinstance(await client.hears(), Token)


async def test_a_session_that_ends_in_the_turn_in_which_it_opens_leaves_nothing(
    client: Client, node: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = node.engine.open
    left = asyncio.Event()

    async def open_and_lose(sampling: Sampling | None) -> int:
        sequence = await reserve(sampling)
        # As when the worker's answer and the end of the link arrive together.
        node.hops.on_lost(node.peers.links()[0])
        left.set()
        return sequence

    monkeypatch.setattr(node.engine, "open", open_and_lose)
    client.link.send(client.init(sid(1)))
    async with asyncio.timeout(20):
        await left.wait()
    await is_empty(node)


async def test_a_draining_node_refuses_and_ends(client: Client, node: Hosted) -> None:
    await client.open(sid(1))
    node.hops.end_all("leaving")
    assert await client.aborted() == Code.DRAINING
    client.link.send(client.init(sid(2)))
    assert await client.aborted() == Code.DRAINING


async def test_a_killed_worker_ends_its_sessions_with_its_code(client: Client, node: Hosted) -> None:
    await client.open(sid(1))
    assert isinstance(node.engine, SliceProcess)
    os.kill(node.engine.pid, signal.SIGKILL)
    await node.engine.died.wait()
    client.link.send(forward(sid(1), 0, 0))
    assert await client.aborted() == Code.ENGINE_FAILED
