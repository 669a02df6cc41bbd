"""Adverts over a real DHT on loopback, and the static ones of a config."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from intelnav.dht.records import ListedModel, Record
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import PeerError
from intelnav.domain.slice import LayerRange
from intelnav.net.discovery import MAX_CACHED, RelayAdvert
from tests.dht_nodes import Host, MakeHost, dht_hosts
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

MODEL = "b3-" + "a" * 52
RANGES = [LayerRange(0, 8), LayerRange(8, 16), LayerRange(16, 24), LayerRange(24, 32)]
TINY = ListedModel(MODEL, "Tiny", "llama", 32, 2**31, "Q4_K")


@pytest.fixture
async def host() -> AsyncIterator[MakeHost]:
    async with dht_hosts() as make:
        yield make


def advert_of(one: Host, layers: Sequence[LayerRange] = RANGES[:1], model: str = MODEL) -> Advert:
    address = Address("127.0.0.1", one.address.port)
    return Advert(one.identity.peer, (address,), model, tuple(layers), address, "llama.cpp/cpu", 0.25)


async def twenty(make: MakeHost) -> list[Host]:
    """Twenty nodes that know one bootstrap address, five hosts of each range."""
    first = await make()
    hosts = [first] + [await make([first.address]) for _ in range(19)]
    for number, each in enumerate(hosts):
        assert await each.discovery.announce(advert_of(each, [RANGES[number % 4]])) >= 5
    return hosts


async def test_a_newcomer_finds_all_hosts_of_all_ranges_within_a_second(host: MakeHost) -> None:
    hosts = await twenty(host)
    started = time.monotonic()
    newcomer = await host([hosts[0].address])
    found = await newcomer.discovery.providers(MODEL)
    assert time.monotonic() - started < 1.0
    expected = [advert_of(each, [RANGES[number % 4]]) for number, each in enumerate(hosts)]
    assert sorted(found, key=lambda advert: advert.peer) == sorted(expected, key=lambda advert: advert.peer)
    for layers in RANGES:
        assert sum(layers in advert.slices for advert in found) == 5


async def test_five_providers_of_one_key_are_all_returned(host: MakeHost) -> None:
    first = await host()
    hosts = [await host([first.address]) for _ in range(12)]
    for each in hosts[:5]:
        await each.discovery.announce(advert_of(each))
    for each in hosts:
        peers = {advert.peer for advert in await each.discovery.providers(MODEL)}
        assert peers == {provider.identity.peer for provider in hosts[:5]}


async def test_with_a_third_killed_every_lookup_returns_the_living_within_two_seconds(host: MakeHost) -> None:
    hosts = await twenty(host)
    # Each lookup from a node that has noticed nothing yet.
    readers = [await host([hosts[0].address]) for _ in range(20)]
    dead = hosts[1:20:3]
    assert len(dead) == 7
    for each in dead:
        each.kill()
    living = {each.identity.peer for each in hosts if each not in dead}
    for reader in readers:
        started = time.monotonic()
        found = {advert.peer for advert in await reader.discovery.providers(MODEL)}
        assert time.monotonic() - started < 2.0
        assert found >= living


async def test_what_is_withdrawn_is_gone_at_once(host: MakeHost) -> None:
    first = await host()
    one, other = await host([first.address]), await host([first.address])
    for each in (one, other):
        await each.discovery.announce(advert_of(each))
        await each.discovery.announce(advert_of(each, model="b3-b"))
        await each.discovery.announce_relay([each.address], 4)
    assert len(await first.discovery.providers(MODEL)) == 2
    await one.discovery.withdraw(MODEL)
    assert [advert.peer for advert in await first.discovery.providers(MODEL)] == [other.identity.peer]
    assert len(await first.discovery.providers("b3-b")) == 2
    await one.discovery.withdraw_all()
    assert [advert.peer for advert in await first.discovery.providers("b3-b")] == [other.identity.peer]
    assert [relay.peer for relay in await first.discovery.relays()] == [other.identity.peer]
    await one.discovery.announce(advert_of(one))
    assert len(await first.discovery.providers(MODEL)) == 2


async def test_who_hosts_nothing_any_more_lists_nothing_and_contributes_nothing(host: MakeHost) -> None:
    first = await host()
    one = await host([first.address])
    await one.discovery.announce_models([TINY], [one.address])
    await one.discovery.announce_contribution([one.address], 4)
    assert list(await first.discovery.models()) == [TINY]
    assert await first.discovery.adverts_of(one.identity.peer) is not None
    await one.discovery.withdraw_models()
    await one.discovery.withdraw_contribution()
    assert await first.discovery.models() == {}
    assert await first.discovery.adverts_of(one.identity.peer) is None


async def test_models_and_relays_are_listed(host: MakeHost) -> None:
    first = await host()
    one, other = await host([first.address]), await host([first.address])
    second = ListedModel("b3-b", "Other", "qwen2", 24, 2**30, "Q8_0")
    await one.discovery.announce_models([TINY, second], [one.address])
    await other.discovery.announce_models([TINY], [other.address])
    await other.discovery.announce_relay([other.address], 16, 0.5)
    found = await first.discovery.models()
    assert {model: set(peers) for model, peers in found.items()} == {
        TINY: {one.identity.peer, other.identity.peer},
        second: {one.identity.peer},
    }
    assert await first.discovery.relays() == [RelayAdvert(other.identity.peer, (other.address,), 16, 0.5)]
    assert {peer for peer, _ in first.discovery.contacts()} == {one.identity.peer, other.identity.peer}


async def test_who_is_no_relay_any_more_is_not_found_as_one(host: MakeHost) -> None:
    first = await host()
    one = await host([first.address])
    await one.discovery.announce_relay([one.address], 7)
    assert len(await first.discovery.relays()) == 1
    await one.discovery.withdraw_relay()
    assert await first.discovery.relays() == []


async def test_what_is_announced_is_announced_again(host: MakeHost) -> None:
    first = await host()
    one = await host([first.address], announce_seconds=0.2)
    task = asyncio.create_task(one.discovery.run())
    await one.discovery.announce(advert_of(one))

    def seq() -> int:
        [record] = first.node.storage.records(next(iter(first.node.storage._keys)), time.time())
        return record.seq

    before = seq()
    await eventually(lambda: seq() > before)
    again = seq()
    await eventually(lambda: seq() > again)
    await one.discovery.withdraw_all()
    last = seq()
    await asyncio.gather(*(first.discovery.providers(MODEL) for _ in range(20)))
    assert seq() == last
    assert await first.discovery.providers(MODEL) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_advert_that_nobody_kept_is_soon_announced_again(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intelnav.net.discovery.LAST_RETRY_SECONDS", 0.1)
    alone = await host()
    task = asyncio.create_task(alone.discovery.run())
    assert await alone.discovery.announce(advert_of(alone)) == 1
    others = [await host([alone.address]) for _ in range(2)]
    await eventually(lambda: all(len(each.node.storage) == 1 for each in others))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_node_that_crashed_takes_back_what_it_does_not_say_again(
    host: MakeHost, tmp_path: Path
) -> None:
    first = await host()
    one = await host([first.address], seed=bytes([7] * 32), said=tmp_path / "said")
    await one.discovery.announce(advert_of(one))
    await one.discovery.announce(advert_of(one, model="b3-b"))
    one.kill()
    assert len(await first.discovery.providers("b3-b")) == 1

    again = await host([first.address], seed=bytes([7] * 32), said=tmp_path / "said")
    await again.discovery.announce(advert_of(again))
    task = asyncio.create_task(again.discovery.run())
    await nobody_provides(first, "b3-b")
    assert len(await first.discovery.providers(MODEL)) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_withdrawal_that_nobody_heard_is_said_again(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await host()
    one = await host([first.address])
    await one.discovery.announce(advert_of(one))
    with monkeypatch.context() as deaf:
        deaf.setattr(one.node, "put", nobody_keeps)
        await one.discovery.withdraw(MODEL)
    assert len(await first.discovery.providers(MODEL)) == 1
    task = asyncio.create_task(one.discovery.run())
    await nobody_provides(first, MODEL)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def nobody_provides(one: Host, model: str) -> None:
    async with asyncio.timeout(30):
        while True:
            if not await one.discovery.providers(model):
                return
            await asyncio.sleep(0.01)


async def nobody_keeps(_record: Record) -> int:
    return 0


async def test_within_a_moment_the_same_question_costs_nothing(host: MakeHost) -> None:
    first = await host()
    one = await host([first.address], cache_seconds=60.0)
    await first.discovery.announce(advert_of(first))
    sent = one.node.socket.requests_sent
    answers = await asyncio.gather(*(one.discovery.providers(MODEL) for _ in range(50)))
    assert all(answer == [advert_of(first)] for answer in answers)
    assert one.node.socket.requests_sent - sent < 10
    # What it says itself it sees at once.
    await one.discovery.announce(advert_of(one))
    assert len(await one.discovery.providers(MODEL)) == 2


async def test_what_was_read_is_not_kept_for_longer_than_it_is_used(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await host(cache_seconds=60.0)
    now = time.monotonic()
    for number in range(50):
        monkeypatch.setattr(time, "monotonic", lambda at=now + 100.0 * number: at)
        assert await one.discovery.providers(f"b3-{number}") == []
    assert len(one.discovery._cache) == len(one.discovery._reading) == 1


async def test_no_more_is_kept_of_what_was_read_than_so_much(host: MakeHost) -> None:
    one = await host(cache_seconds=60.0)
    for number in range(MAX_CACHED + 20):
        await one.discovery.providers(f"b3-{number}")
    assert len(one.discovery._cache) == len(one.discovery._reading) == MAX_CACHED


async def test_a_model_that_one_host_lists_twice_has_one_host(host: MakeHost) -> None:
    first = await host()
    one = await host([first.address])
    await one.discovery.announce_models([TINY, TINY], [one.address])
    assert await first.discovery.models() == {TINY: [one.identity.peer]}


async def test_what_does_not_fit_an_advert_is_left_out(host: MakeHost) -> None:
    first = await host()
    one = await host([first.address])
    models = [ListedModel(f"b3-{n:052}", f"Model {n}", "llama", 32, 2**31, "Q4_K") for n in range(9)]
    await one.discovery.announce_models(models, [one.address])
    listed = await first.discovery.models()
    assert 3 <= len(listed) < 9
    assert list(listed) == models[: len(listed)]
    short = [LayerRange(2 * number, 2 * number + 1) for number in range(40)]
    await one.discovery.announce(advert_of(one, [*short, LayerRange(0, 20), LayerRange(20, 32)]))
    [found] = await first.discovery.providers(MODEL)
    assert len(found.slices) == 32
    assert set(found.slices) >= {LayerRange(0, 20), LayerRange(20, 32)}


async def test_an_advert_of_which_nothing_fits_is_refused_and_not_kept(host: MakeHost) -> None:
    one = await host()
    far = Address(".".join(["h" * 60] * 4), 1)
    advert = Advert(one.identity.peer, (far, far), MODEL, (RANGES[0],))
    with pytest.raises(PeerError, match="at most 512 bytes"):
        await one.discovery.announce(advert)
    await one.discovery.withdraw_all()
    assert len(one.node.storage) == 0


@pytest.mark.parametrize("at_home", [True, False])
@pytest.mark.parametrize(
    "home",
    [
        *("127.0.0.1", "127.9.9.9", "localhost", "LocalHost.", "::1", "0.0.0.0", "::"),
        # What a dial takes for the same.
        *("127.1", "0", "2130706433", "0x7f.1", "0177.0.0.1", "::ffff:127.0.0.1", "::ffff:0.0.0.0"),
    ],
)
async def test_addresses_of_this_machine_are_only_used_in_a_loopback_swarm(
    host: MakeHost, home: str, at_home: bool
) -> None:
    first = await host(listen=Address("127.0.0.1" if at_home else "0.0.0.0", 0))
    other = await host([Address("127.0.0.1", first.address.port)])
    outside = Address("192.0.2.7", 7717)
    here = Address(home, 7717)
    await other.discovery.announce(Advert(other.identity.peer, (here, outside), MODEL, (RANGES[0],), here))
    await other.discovery.announce(Advert(other.identity.peer, (here,), "b3-b", (RANGES[0],)))
    [found] = await first.discovery.providers(MODEL)
    assert found.addresses == ((here, outside) if at_home else (outside,))
    assert found.chunks == (here if at_home else None)
    assert len(await first.discovery.providers("b3-b")) == at_home
