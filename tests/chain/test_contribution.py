"""The host's rule, with real links between the host and those that ask; only the DHT's answers are given by a table."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.chain.contribution import (
    CHECKS_AT_ONCE,
    GRACE_SECONDS,
    GRACES_PER_SUBNET,
    MAX_GRACES,
    MAX_SUBNETS,
    MAX_VERDICTS,
    NO_SECONDS,
    SUBNET_SECONDS,
    WAITING_PER_PEER,
    YES_SECONDS,
    Contribution,
    Grace,
    Verdict,
    Verdicts,
)
from intelnav.domain.advert import Address
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.hidden import Dtype
from intelnav.domain.identity import PeerId
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.engine.process import SliceProcess
from intelnav.net.peers import Peers
from intelnav.wire.fields import MAX_REASON
from intelnav.wire.messages import AbortSession, Message, SessionAck, SessionInit
from tests.hosts import Hosted, hosting
from tests.links import Endpoint, MakeEndpoint
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

# Where the peers that are dialled here may be named from.
HOME = "127.0.0.7"


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Table:
    """What the DHT would find. A lookup is held until `open` is set; `under_way` and `asked` count them."""

    adverts: dict[PeerId, Sequence[Address]] = field(default_factory=dict)
    asked: list[PeerId] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def adverts_of(self, peer: PeerId) -> Sequence[Address] | None:
        self.asked.append(peer)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.open.wait()
        finally:
            self.under_way -= 1
        return self.adverts.get(peer)


@dataclass
class Host:
    node: Endpoint
    table: Table
    clock: Clock
    rule: Contribution

    async def verdict(self, peer: PeerId, host: str = HOME) -> Code | None:
        try:
            await self.rule.check(peer, host)
        except PeerError as error:
            return error.code
        return None

    def use_up_grace(self, host: str = HOME) -> None:
        """Peers that nobody knows take all that this subnet may have."""
        for number in range(GRACES_PER_SUBNET):
            assert self.rule._grace.allows(peer(10**9 + number), host, self.clock.now)


@pytest.fixture
async def host(endpoint: MakeEndpoint) -> Host:
    node, table, clock = await endpoint(), Table(), Clock()
    table.open.set()
    return Host(node, table, clock, Contribution(table, node.peers, clock))


async def test_a_newcomer_has_ten_minutes_and_costs_no_lookup(host: Host) -> None:
    assert await host.verdict(peer(1)) is None
    host.clock.now = GRACE_SECONDS - 1
    assert await host.verdict(peer(1)) is None
    assert host.table.asked == []
    host.clock.now = GRACE_SECONDS
    assert await host.verdict(peer(1)) is Code.CONTRIBUTE_FIRST
    host.clock.now = GRACE_SECONDS + 30 * SUBNET_SECONDS
    assert await host.verdict(peer(1), "198.51.100.1") is Code.CONTRIBUTE_FIRST


async def test_a_peer_with_an_advert_that_a_dial_confirms_is_a_contributor(
    host: Host, endpoint: MakeEndpoint
) -> None:
    host.use_up_grace()
    other = await endpoint()
    host.table.adverts[other.identity.peer] = [Address("127.0.0.1", 9), other.address]
    assert await host.verdict(other.identity.peer) is None
    await other.peers.close()
    host.clock.now = YES_SECONDS - 1
    assert await host.verdict(other.identity.peer) is None
    assert len(host.table.asked) == 1
    host.clock.now = YES_SECONDS
    assert await host.verdict(other.identity.peer) is Code.CONTRIBUTE_FIRST


async def test_a_link_from_a_peer_does_not_make_its_advert_true(host: Host, endpoint: MakeEndpoint) -> None:
    host.use_up_grace()
    client, elsewhere = await endpoint(), await endpoint()
    link = await client.peers.connect(host.node.identity.peer, [host.node.address])
    # Where somebody else listens: the dial meets another key.
    host.table.adverts[client.identity.peer] = [elsewhere.address]
    with pytest.raises(PeerError, match="no dial to its addresses reached you") as caught:
        await host.rule.check(client.identity.peer, HOME)
    assert caught.value.code is Code.CONTRIBUTE_FIRST
    assert link.alive


async def test_who_has_no_advert_is_told_how_to_contribute(host: Host) -> None:
    host.use_up_grace()
    with pytest.raises(PeerError, match="role: relay") as caught:
        await host.rule.check(peer(1), HOME)
    assert caught.value.code is Code.CONTRIBUTE_FIRST


async def test_a_refused_peer_that_begins_to_contribute_is_let_in_a_minute_later(
    host: Host, endpoint: MakeEndpoint
) -> None:
    host.use_up_grace()
    other = await endpoint()
    assert await host.verdict(other.identity.peer) is Code.CONTRIBUTE_FIRST
    host.table.adverts[other.identity.peer] = [other.address]
    host.clock.now = NO_SECONDS - 1
    assert await host.verdict(other.identity.peer) is Code.CONTRIBUTE_FIRST
    assert len(host.table.asked) == 1
    host.clock.now = NO_SECONDS
    assert await host.verdict(other.identity.peer) is None


async def test_asks_at_the_same_time_share_one_check(host: Host, endpoint: MakeEndpoint) -> None:
    host.use_up_grace()
    other = await endpoint()
    host.table.adverts[other.identity.peer] = [other.address]
    host.table.open.clear()
    asks = [asyncio.create_task(host.verdict(other.identity.peer)) for _ in range(WAITING_PER_PEER)]
    await turns()
    assert await host.verdict(other.identity.peer) is Code.BUSY
    host.table.open.set()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*asks) == [None] * WAITING_PER_PEER
    assert len(host.table.asked) == 1
    assert (host.rule._asked, dict(host.rule._waiting)) == ({}, {})


async def test_the_next_ask_makes_the_check_that_a_cancelled_one_left(host: Host) -> None:
    host.use_up_grace()
    host.table.open.clear()
    first, second = (asyncio.create_task(host.verdict(peer(1))) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    host.table.open.set()
    async with asyncio.timeout(10):
        assert await second is Code.CONTRIBUTE_FIRST
    assert host.table.asked == [peer(1), peer(1)]
    assert (host.rule._asked, dict(host.rule._waiting)) == ({}, {})


async def test_many_new_keys_cause_few_checks_at_once(host: Host) -> None:
    host.use_up_grace()
    host.table.open.clear()
    asks = [asyncio.create_task(host.verdict(peer(number))) for number in range(100)]
    await turns()
    assert host.table.under_way == CHECKS_AT_ONCE
    host.table.open.set()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*asks) == [Code.CONTRIBUTE_FIRST] * 100
    assert host.table.most == CHECKS_AT_ONCE


async def test_a_lookup_that_never_ends_is_a_no_in_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intelnav.chain.contribution.CHECK_SECONDS", 0.05)
    host.use_up_grace()
    host.table.open.clear()
    async with asyncio.timeout(10):
        assert await host.verdict(peer(1)) is Code.CONTRIBUTE_FIRST


async def turns() -> None:
    """Let every task run up to where it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_new_keys_from_one_subnet_soon_get_no_grace() -> None:
    grace = Grace()
    given = [grace.allows(peer(n), f"192.0.2.{n % 256}", n) for n in range(80_000)]
    assert sum(given) == GRACES_PER_SUBNET
    assert grace.allows(peer(10**6), "192.0.3.1", 80_000)
    assert grace.allows(peer(10**6 + 1), HOME, SUBNET_SECONDS)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.255", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("192.0.2.1", "::ffff:192.0.2.2", True),
        ("2001:db8:1::1", "2001:db8:1:ffff::9", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("?", "", True),
    ],
)
def test_a_subnet_is_a_slash_24_or_48(one: str, other: str, same: bool) -> None:
    grace = Grace()
    for number in range(GRACES_PER_SUBNET):
        assert grace.allows(peer(number), one, 0)
    assert grace.allows(peer(99), other, 0) is not same


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 3), st.floats(0, 0.6 * SUBNET_SECONDS)), max_size=60
    )
)
def test_grace_is_once_for_a_peer_and_scarce_for_a_subnet(asks: list[tuple[int, int, float]]) -> None:
    grace, now = Grace(), 0.0
    first: dict[int, float] = {}
    granted: dict[int, list[float]] = {}
    for number, subnet, later in asks:
        now += later
        allowed = grace.allows(peer(number), f"192.0.{subnet}.1", now)
        if number in first:
            assert allowed is (now - first[number] < GRACE_SECONDS)
            continue
        recent = [at for at in granted.setdefault(subnet, []) if now - at < SUBNET_SECONDS]
        assert allowed is (len(recent) < GRACES_PER_SUBNET)
        if allowed:
            first[number] = now
            granted[subnet].append(now)


def test_what_is_remembered_is_bounded() -> None:
    grace, verdicts = Grace(), Verdicts()
    for number in range(MAX_SUBNETS + 100):
        subnet = f"10.{number >> 8}.{number & 255}.1"
        assert grace.allows(peer(number), subnet, 0) is (number < MAX_SUBNETS)
        verdicts.put(peer(number), Verdict.CONTRIBUTES, 0)
    assert len(grace._granted) == MAX_SUBNETS
    assert len(verdicts._found) == MAX_VERDICTS
    assert verdicts.get(peer(0), 1) is None
    assert grace.allows(peer(10**6), "172.16.0.1", SUBNET_SECONDS)
    for number in range(MAX_GRACES):
        day = 2 + number // GRACES_PER_SUBNET
        assert grace.allows(peer(10**7 + number), HOME, day * SUBNET_SECONDS)
    assert len(grace._since) == MAX_GRACES


@pytest.mark.parametrize("verdict", Verdict)
def test_what_a_refused_peer_is_told_travels_whole(verdict: Verdict) -> None:
    assert len(verdict) <= MAX_REASON
    assert verdict.isprintable()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
async def hop(tail: SliceProcess, cid: str, table: Table, clock: Clock) -> AsyncIterator[Hosted]:
    """A host of a real slice that holds its guests to the rule."""

    def rule(peers: Peers) -> Contribution:
        return Contribution(table, peers, clock)

    async with hosting({cid: tail}, seed=99, contribution=rule) as hop:
        yield hop


def init(number: int, entry: Endpoint, cid: str, layers: LayerRange) -> SessionInit:
    session = bytes([number]) * 16
    return SessionInit(session, cid, layers, Dtype.F32, 32, entry.identity.peer, None, sampling=Sampling())


async def hears(entry: Endpoint) -> Message:
    async with asyncio.timeout(20):
        return (await entry.events.messages.get())[1]


async def test_a_host_refuses_who_does_not_contribute_and_serves_who_does(
    hop: Hosted, table: Table, clock: Clock, endpoint: MakeEndpoint, cid: str
) -> None:
    entry, layers = await endpoint(), LayerRange(3, 6)
    link = await entry.peers.connect(hop.peers.own, [hop.address])
    link.send(init(1, entry, cid, layers))
    assert isinstance(await hears(entry), SessionAck)
    clock.now = GRACE_SECONDS
    table.open.set()
    link.send(init(2, entry, cid, layers))
    refused = await hears(entry)
    assert isinstance(refused, AbortSession)
    assert (refused.code, refused.reason) == (Code.CONTRIBUTE_FIRST, Verdict.NO_ADVERT)
    assert (len(hop.hops), hop.engine.in_use) == (1, 1)
    table.adverts[entry.identity.peer] = [entry.address]
    clock.now += NO_SECONDS
    link.send(init(3, entry, cid, layers))
    assert isinstance(await hears(entry), SessionAck)


async def test_what_is_not_hosted_costs_no_lookup_and_a_lost_link_ends_one(
    hop: Hosted, table: Table, clock: Clock, endpoint: MakeEndpoint, cid: str
) -> None:
    entry = await endpoint()
    link = await entry.peers.connect(hop.peers.own, [hop.address])
    link.send(init(1, entry, cid, LayerRange(3, 6)))
    assert isinstance(await hears(entry), SessionAck)
    clock.now = GRACE_SECONDS
    link.send(init(2, entry, cid, LayerRange(2, 6)))
    refused = await hears(entry)
    assert isinstance(refused, AbortSession)
    assert refused.code is Code.NOT_HOSTING
    assert table.asked == []
    link.send(init(3, entry, cid, LayerRange(3, 6)))
    await eventually(lambda: table.under_way > 0)
    link.close("test")
    await eventually(lambda: not (table.under_way or len(hop.hops) or hop.engine.in_use))
