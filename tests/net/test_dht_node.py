"""What holds of a running node of the DHT, whoever else is there: real datagrams on loopback."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256

import pytest

from intelnav.dht.contacts import Contact
from intelnav.dht.datagrams import Answer, Request, encode_answer, encode_request, id_of, is_request
from intelnav.dht.keys import MODELS_KEY, model_key
from intelnav.dht.records import MAX_RECORD, Offer, Record, encode_record, mark_of
from intelnav.dht.storage import StorageLimits
from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError
from intelnav.domain.identity import Identity
from intelnav.domain.slice import LayerRange
from intelnav.net.dht_node import DhtNode, DhtSettings
from tests.dht_nodes import MakeHost, dht_hosts
from tests.dht_stranger import Stranger, stranger
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

KEY = model_key("b3-x")
# One moment for all, so that a record made twice is the same record.
BORN = int(time.time())
OFFER = Offer((Address("127.0.0.1", 7717),), (LayerRange(0, 6),))
GET = Request("get", KEY, seed=bytes(8), place=bytes(6))
# For tests of what is kept, rather than of how much is looked at.
PATIENT = DhtSettings(requests_per_second=1e6, request_burst=1e6)


@pytest.fixture
async def host() -> AsyncIterator[MakeHost]:
    async with dht_hosts() as make:
        yield make


def signed(number: int, *, seq: int = 1, key: bytes = KEY, offer: Offer = OFFER, lives: int = 1800) -> Record:
    identity = Identity(number.to_bytes(32, "big"))
    return encode_record(identity, key, offer, seq=seq, expires=BORN + lives)


async def token_for(one: Stranger, at: Address) -> bytes:
    answer = await one.ask(Request("find", KEY), at)
    assert answer.token is not None
    return answer.token


async def add(
    one: Stranger, at: Address, data: bytes, key: bytes = KEY, token: bytes | None = None
) -> str | None:
    token = await token_for(one, at) if token is None else token
    return (await one.ask(Request("add", key, record=data, token=token), at)).stored


async def test_a_record_put_by_one_is_got_by_another(host: MakeHost) -> None:
    first = await host()
    second, third = await host([first.address]), await host([first.address])
    assert await second.node.put(signed(7)) == 3
    assert await third.node.get(KEY) == [signed(7)]
    assert await third.node.get(MODELS_KEY) == []


async def test_lookups_and_datagrams_are_counted(host: MakeHost) -> None:
    alone = (await host()).node
    await alone.get(KEY)
    assert (sum(alone.lookups.counts), alone.lookups_unanswered) == (1, 1)
    first = await host()
    second = (await host([first.address])).node
    before = second.socket.datagrams_sent, second.socket.datagrams_received, sum(second.lookups.counts)
    await second.get(KEY)
    assert second.socket.datagrams_sent > before[0]
    assert second.socket.datagrams_received > before[1]
    assert sum(second.lookups.counts) > before[2]
    assert second.lookups_unanswered < sum(second.lookups.counts)


async def test_a_port_that_is_taken_is_an_error_that_says_so(host: MakeHost) -> None:
    taken = (await host()).address
    node = DhtNode(Identity(b"x" * 32))
    with pytest.raises(ConfigError, match="choose a free port"):
        await node.listen(taken)
    with pytest.raises(ConfigError, match="cannot be used"):
        await node.listen(Address("no.such.host.invalid", 0))
    node.close()


async def test_bad_adverts_are_neither_kept_nor_passed_on_nor_used(host: MakeHost) -> None:
    first = await host()
    reader = await host([first.address])
    async with stranger(666) as bad:
        assert await add(bad, first.address, signed(1, seq=5).data) == "kept"
        forged = signed(2).data.replace(Identity((2).to_bytes(32, "big")).peer.key, bad.identity.peer.key)
        oversized = signed(2).data + bytes(MAX_RECORD + 1 - len(signed(2).data))
        cases = {
            "forged": forged,
            "replayed": signed(1, seq=4).data,
            "of the same seq": signed(1, seq=5, offer=Offer()).data,
            "expired": signed(2, lives=-1).data,
            "too far ahead": signed(2, lives=3600).data,
            "under a foreign key": signed(2, key=MODELS_KEY, offer=Offer()).data,
            "rubbish": os.urandom(200),
        }
        for name, data in cases.items():
            assert await add(bad, first.address, data) == "refused", name
        # This one is no valid request at all: nothing comes back.
        token = await token_for(bad, first.address)
        bad.send(
            encode_request(bad.identity, b"12345678", Request("add", KEY, record=oversized, token=token)),
            first.address,
        )
        assert await add(bad, first.address, signed(3).data, token=b"no token") == "token"
        page = await bad.ask(GET, first.address)
    assert page.records == (signed(1, seq=5).data,)
    assert [each.seq for each in await reader.node.get(KEY)] == [5]
    assert len(first.node.storage) == 1


async def test_a_hostile_holders_records_are_not_used(host: MakeHost) -> None:
    victim = await host()
    good = signed(1)
    forged = signed(2).data.replace(Identity((2).to_bytes(32, "big")).peer.key, b"f" * 32)
    shown = (forged, signed(3, lives=-1).data, signed(4, key=MODELS_KEY, offer=Offer()).data, good.data)

    def reply(request: Request, sender: tuple[str, int]) -> Answer:
        return Answer(sender, bytes(8), records=shown if request.query == "get" else ())

    async with stranger(666, reply=reply) as bad:
        victim.node.ping((bad.address.host, bad.address.port), None)
        await bad.ask(Request("ping"), victim.address)
        assert await victim.node.get(KEY) == [good]


async def test_ten_thousand_adverts_from_one_host_crowd_out_nobody(host: MakeHost) -> None:
    first = await host(settings=PATIENT)
    async with stranger(1) as honest, stranger(666, host="127.0.1.1") as flood:
        for number in range(1, 6):
            assert await add(honest, first.address, signed(number).data) == "kept"
        token = await token_for(flood, first.address)
        outcomes: list[str | None] = []
        for start in range(1000, 11_000, 100):
            requests = (
                flood.ask(Request("add", KEY, record=signed(number).data, token=token), first.address)
                for number in range(start, start + 100)
            )
            outcomes += [answer.stored for answer in await asyncio.gather(*requests)]
        assert outcomes.count("kept") == StorageLimits().key_network
        assert outcomes.count("busy") == 10_000 - StorageLimits().key_network
        for number in range(6, 20):
            assert await add(honest, first.address, signed(number).data) == "kept"
    kept = {each.peer for each in first.node.storage.records(KEY, time.time())}
    assert {signed(number).peer for number in range(1, 20)} <= kept
    assert len(kept) == 19 + StorageLimits().key_network


async def flood_keys(one: Stranger, at: Address, numbers: range) -> int:
    """Announce one peer under as many keys; how many are kept."""
    token = await token_for(one, at)
    kept = 0
    for start in numbers[::100]:
        keys = [sha256(number.to_bytes(4, "big")).digest()[:20] for number in range(start, start + 100)]
        requests = (
            one.ask(Request("add", key, record=signed(7, key=key).data, token=token), at) for key in keys
        )
        kept += [answer.stored for answer in await asyncio.gather(*requests)].count("kept")
    return kept


async def test_ten_thousand_keys_from_one_host_or_its_neighbours_crowd_out_nobody(host: MakeHost) -> None:
    first = await host(settings=PATIENT)
    limits = StorageLimits()
    async with stranger(1) as honest, stranger(666, host="127.0.1.1") as flood:
        assert await add(honest, first.address, signed(1).data) == "kept"
        assert await flood_keys(flood, first.address, range(10_000)) == limits.address
        left = limits.network - limits.address
        for neighbour in range(2, 7):
            async with stranger(neighbour, host=f"127.0.1.{neighbour}") as other:
                start = 10_000 + 300 * neighbour
                kept = await flood_keys(other, first.address, range(start, start + 300))
                assert kept == min(left, limits.address)
                left -= kept
        assert left == 0
        assert len(first.node.storage) == 1 + limits.network
        for number in range(2, 20):
            assert await add(honest, first.address, signed(number).data) == "kept"
        other_key = sha256(b"other").digest()[:20]
        assert await add(honest, first.address, signed(1, key=other_key).data, other_key) == "kept"


async def test_a_flood_is_not_looked_at_beyond_its_rate(host: MakeHost) -> None:
    settings = DhtSettings(requests_per_second=1.0, request_burst=20.0)
    first = await host(settings=settings)
    async with stranger(1) as honest, stranger(666, host="127.0.1.1") as flood:
        # No more than a socket's buffer holds, or the honest one's would be lost before the node sees it.
        for _ in range(60):
            flood.send(encode_request(flood.identity, os.urandom(8), Request("ping")), first.address)
        await honest.ask(Request("ping"), first.address)
        await honest.ask(Request("ping"), first.address)
        # Twenty answers, perhaps one or two more for the time it took, and a ping back.
        assert 20 * 150 < flood.bytes_received < 25 * 250 + 700


@pytest.mark.parametrize("is_client", [False, True])
async def test_nobody_gets_more_than_twice_what_he_sent_unproven(host: MakeHost, is_client: bool) -> None:
    first = await host(settings=PATIENT)
    others = [await host([first.address]) for _ in range(12)]
    for number in range(1, 31):
        await others[0].node.put(signed(number, offer=Offer(OFFER.addresses, OFFER.slices * 20)))
    marks = tuple(mark_of(signed(number), bytes(8)) for number in range(1, 31))
    async with stranger(1) as witness, stranger(666, host="127.0.1.1") as silent:
        sent = [
            Request("ping", client=is_client),
            Request("find", KEY, client=is_client),
            replace(GET, client=is_client),
            Request("page", KEY, seed=bytes(8), wanted=marks, client=is_client),
            Request("add", KEY, record=signed(99).data, token=bytes(8), client=is_client),
        ]
        for request in sent * 5:
            before = silent.bytes_received
            data = encode_request(silent.identity, os.urandom(8), request)
            silent.send(data, first.address)
            # Its own answers come after everything that was due to the silent one.
            await witness.ask(Request("ping"), first.address)
            await witness.ask(Request("ping"), first.address)
            assert silent.bytes_received <= 2 * silent.bytes_sent
            assert silent.bytes_received > before
        assert silent.bytes_received > 5 * 5 * 150
        answered = silent.bytes_received
        for request in sent:
            data = encode_request(silent.identity, os.urandom(8), request)
            for malformed in (data[:599], data[:108], data + b"\0", os.urandom(len(data)), b"IN1?"):
                silent.send(malformed, first.address)
        await witness.ask(Request("ping"), first.address)
        await witness.ask(Request("ping"), first.address)
        assert silent.bytes_received == answered


async def test_who_does_not_answer_enters_no_table(host: MakeHost) -> None:
    first = await host()
    async with stranger(1) as silent:
        for _ in range(3):
            await silent.ask(Request("find", KEY), first.address)
        assert any(request.query == "ping" for request in silent.asked)
        assert first.node.contacts() == []


async def test_a_client_uses_the_dht_and_enters_no_table(host: MakeHost) -> None:
    first = await host()
    second = await host([first.address])
    client = await host([first.address], reachable=False)
    assert await client.node.put(signed(5)) == 2
    assert [each.peer for each in await second.node.get(KEY)] == [signed(5).peer]
    assert [each.peer for each in await client.node.get(KEY)] == [signed(5).peer]
    for other in (first, second):
        assert client.identity.peer not in [peer for peer, _ in other.node.contacts()]
        assert len(other.node.known) == 1
    assert len(client.node.contacts()) == 2


async def test_an_answer_counts_only_from_where_it_was_asked_and_for_who_signed_it(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = await host()
    async with stranger(1) as asked, stranger(2) as other:

        def reply(request: Request, sender: tuple[str, int]) -> bytes:
            # Under the right id from elsewhere, then from there, but signed with another's key.
            other.send(
                encode_answer(asked.identity, LAST[-1], Answer(sender, bytes(8)), own), Address(*sender)
            )
            return encode_answer(other.identity, LAST[-1], Answer(sender, bytes(8)), own)

        own = victim.identity.peer.key
        LAST: list[bytes] = []
        original = asked.datagram_received

        def remember(data: bytes, addr: tuple[str, int]) -> None:
            LAST.append(data[4:12])
            original(data, addr)

        monkeypatch.setattr(asked, "datagram_received", remember)
        asked.reply = reply
        address = asked.address.host, asked.address.port
        heard: asyncio.Future[Contact] = asyncio.get_running_loop().create_future()
        victim.node.socket.ask(
            address, Request("ping"), lambda contact, _: heard.set_result(contact), lambda: None
        )
        async with asyncio.timeout(10):
            assert await heard == Contact(other.identity.peer.key, *address)

        # Nor does it stand for the node that was asked, which is not there and no longer named.
        victim.node.table.add(Contact(asked.identity.peer.key, *address))
        found = await victim.node.lookup(KEY, records=False)
        assert [holder.contact.key for holder in found.holders()] == [other.identity.peer.key]
        await eventually(lambda: asked.identity.peer not in [peer for peer, _ in victim.node.contacts()])


@pytest.mark.parametrize("passes_on", ["a ping of its own", "what it was asked"])
async def test_who_has_another_answer_in_its_place_does_not_take_that_place(
    host: MakeHost, passes_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = await host()
    victim = await host([holder.address])
    holder.node.storage.add(signed(7), "127.0.0.9", time.time())
    assert len(await victim.node.get(KEY)) == 1
    async with stranger(5, host="127.0.3.3") as thief:
        askers: dict[bytes, Address] = {}

        def pass_on(data: bytes, addr: tuple[str, int]) -> None:
            if is_request(data):
                askers[id_of(data)] = Address(*addr)
                own = encode_request(thief.identity, id_of(data), Request("ping", client=True))
                thief.send(own if passes_on == "a ping of its own" else data, holder.address)
            elif id_of(data) in askers:
                thief.send(data, askers.pop(id_of(data)))

        monkeypatch.setattr(thief, "datagram_received", pass_on)
        # To be asked back it asks something; the victim hears that, and then what was passed on.
        heard = victim.node.socket.datagrams_received
        thief.send(encode_request(thief.identity, os.urandom(8), Request("ping")), victim.address)
        await eventually(lambda: victim.node.socket.datagrams_received >= heard + 2)
        assert victim.node.contacts() == [(holder.identity.peer, holder.address)]
        found = await victim.node.lookup(KEY, records=True)
        assert [each.contact.address for each in found.holders()] == [
            (holder.address.host, holder.address.port)
        ]
        assert len(found.records) == 1


@pytest.mark.parametrize("kind", ["rubbish", "fakes", "silence", "endless pages", "wrong addresses"])
async def test_hostile_nodes_cost_a_lookup_its_bound(host: MakeHost, kind: str) -> None:
    chance = random.Random(1)

    def reply(request: Request, sender: tuple[str, int]) -> Answer | bytes | None:
        if request.query == "ping":
            return Answer(sender)
        if kind == "rubbish":
            return chance.randbytes(1000)
        if kind == "silence":
            return None
        if kind == "fakes":
            # Discard port: nobody is there.
            fakes = (Contact(chance.randbytes(32), f"127.9.{chance.randrange(256)}.1", 9) for _ in range(22))
            return Answer(sender, bytes(8), tuple(fakes))
        if kind == "wrong addresses":
            keys = [each.identity.peer.key for each in (first, *good)]
            elsewhere = [Contact(key, "127.9.9.9", chance.randrange(1, 99)) for key in keys]
            made_up = [
                Contact(chance.randbytes(32), each.address.host, each.address.port) for each in (first, *good)
            ]
            return Answer(sender, bytes(8), tuple(elsewhere + made_up))
        shown = (signed(chance.randrange(1, 900)).data,)
        return Answer(sender, bytes(8), (), shown, tuple(chance.randbytes(6) for _ in range(64)))

    first = await host()
    good = [await host([first.address]) for _ in range(6)]
    async with (
        stranger(661, reply=reply) as a,
        stranger(662, reply=reply) as b,
        stranger(663, reply=reply) as c,
    ):
        for bad in (a, b, c):
            for each in (first, *good):
                # Asking makes them ask back, and then it is in their tables.
                await bad.ask(Request("ping"), each.address)
        reader = await host([first.address])
        assert await good[0].node.put(signed(1)) >= 5
        sent = reader.node.socket.requests_sent
        started = time.monotonic()
        found = await reader.node.get(KEY)
        assert time.monotonic() - started < 5.5
        assert reader.node.socket.requests_sent - sent <= 60 + 8
        assert signed(1).peer in [each.peer for each in found]
        assert sum(len(bad.asked) for bad in (a, b, c)) > 0
