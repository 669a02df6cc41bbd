"""Nodes of the DHT join, stay in touch, and find together again."""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from intelnav.dht.contacts import Contact
from intelnav.dht.datagrams import Answer, Datagram, Request
from intelnav.dht.lookup import Lookup, LookupLimits
from intelnav.domain.advert import Address
from intelnav.net import dht_upkeep
from intelnav.net.dht_contacts import KnownContacts
from intelnav.net.dht_node import DhtSettings
from intelnav.net.dht_socket import DhtSocket
from tests.dht_nodes import Host, MakeHost, dht_hosts
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

until = partial(eventually, seconds=30)

# The same upkeep, at the pace of a test.
QUICK = DhtSettings(
    reply_seconds=0.3, rejoin_seconds=0.2, refresh_seconds=0.2, save_seconds=0.1, join_seconds=0.5
)
NOBODY = Address("127.0.0.1", 9)


@pytest.fixture
async def host() -> AsyncIterator[MakeHost]:
    async with dht_hosts() as make:
        yield make


def knows(one: Host, others: Collection[Host]) -> bool:
    peers = {peer for peer, _ in one.node.contacts()}
    return peers >= {other.identity.peer for other in others if other is not one}


def knows_none(one: Host, others: Collection[Host]) -> bool:
    return not {peer for peer, _ in one.node.contacts()} & {other.identity.peer for other in others}


async def test_from_one_bootstrap_address_all_get_to_know_each_other(host: MakeHost) -> None:
    first = await host(running=True, settings=QUICK)
    hosts = [first] + [await host([first.address], running=True, settings=QUICK) for _ in range(5)]
    await until(lambda: all(knows(each, hosts) for each in hosts))
    assert all(not each.node.reach.is_client for each in hosts)
    assert hosts[1].node.reach.seen_at == hosts[1].address


async def test_a_bootstrap_address_by_name_will_do(host: MakeHost) -> None:
    first = await host()
    second = await host([Address("no.such.host.invalid", 1), Address("localhost", first.address.port)])
    assert knows(second, [first])


async def test_names_that_nobody_resolves_hold_up_nobody(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = await host()
    others = [await host([first.address]) for _ in range(2)]
    file = tmp_path / "contacts.json"
    known = KnownContacts(file)
    known.answered(Contact(others[0].identity.peer.key, others[0].address.host, others[0].address.port))
    known.save()
    resolve = dht_upkeep._resolved
    asked: list[str] = []

    async def endless(address: Address) -> list[tuple[str, int]]:
        if not address.host.endswith(".example"):
            return await resolve(address)
        # All names are looked up at once, and meanwhile whoever is known by number has been asked.
        asked.append(address.host)
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(dht_upkeep, "_resolved", endless)
    dead = [Address(f"{name}.example", 1) for name in "abc"]
    patient = replace(QUICK, join_seconds=60.0)
    async with asyncio.timeout(10):
        by_contact = await host(dead, contacts=file, settings=patient)
        by_number = await host([*dead, first.address], settings=patient)
    assert knows(by_contact, others)
    assert knows(by_number, others)
    assert asked == 2 * [each.host for each in dead]


@pytest.mark.parametrize("name", ["127.0.0.1", "::ffff:127.0.0.1", "localhost"])
async def test_a_bootstrap_address_has_many_spellings(host: MakeHost, name: str) -> None:
    first = await host()
    second = await host([Address(name, first.address.port)])
    assert knows(second, [first])


async def test_who_starts_first_finds_the_others_later(host: MakeHost, tmp_path: Path) -> None:
    second = await host()
    port = second.address
    second.kill()
    early = await host([port], running=True, settings=QUICK)
    assert early.node.contacts() == []
    late = await host(listen=port)
    await until(lambda: knows(early, [late]))


async def test_the_contacts_that_were_kept_are_enough(host: MakeHost, tmp_path: Path) -> None:
    first = await host()
    others = [await host([first.address]) for _ in range(4)]
    file = tmp_path / "contacts.json"
    before = await host([first.address], contacts=file, running=True, settings=QUICK)
    await until(file.exists)
    await until(lambda: len(before.node.known) == 5)
    before.node.close()
    before.kill()
    first.kill()
    others[0].kill()
    again = await host([first.address, NOBODY], contacts=file, seed=b"s" * 32)
    assert knows(again, others[1:])


async def test_a_lost_datagram_does_not_leave_a_newcomer_alone(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await host()
    hosts = [first] + [await host([first.address]) for _ in range(3)]
    lost: list[bytes] = []
    answer = first.node._handlers.answer

    def silent_once(datagram: Datagram, sender: tuple[str, int], now: float) -> Answer | None:
        assert isinstance(datagram.content, Request)
        if datagram.content.query == "find" and not lost:
            lost.append(datagram.id)
            return None
        return answer(datagram, sender, now)

    monkeypatch.setattr(first.node._handlers, "answer", silent_once)
    newcomer = await host([first.address])
    assert lost
    assert knows(newcomer, hosts)


async def test_other_bootstrap_addresses_are_tried_at_once(host: MakeHost) -> None:
    first, second = await host(), await host()
    late = await host([first.address], running=True)
    assert not knows(late, [second])
    late.upkeep.start_from([second.address])
    await until(lambda: knows(late, [second]))


async def test_the_dead_are_forgotten(host: MakeHost) -> None:
    first = await host(running=True, settings=QUICK)
    hosts = [await host([first.address], running=True, settings=QUICK) for _ in range(4)]
    await until(lambda: all(knows(each, [first, *hosts]) for each in [first, *hosts]))
    hosts[0].kill()
    hosts[1].kill()
    living = [first, *hosts[2:]]
    await until(lambda: all(knows_none(each, hosts[:2]) for each in living))
    assert all(knows(each, living) for each in living)


async def test_a_refresh_goes_where_too_little_is_known(
    host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await host()
    hosts = [first] + [await host([first.address]) for _ in range(5)]
    part = 7 << 150, (8 << 150) - 1
    monkeypatch.setattr(first.node.table, "thin_parts", lambda: [part])
    visited: list[int] = []
    look_up = first.node.lookup

    async def lookup(target: bytes, *, records: bool, limits: LookupLimits | None = None) -> Lookup:
        visited.append(int.from_bytes(target, "big"))
        found = await look_up(target, records=records, limits=limits)
        assert found.requests <= (limits or LookupLimits()).requests
        return found

    monkeypatch.setattr(first.node, "lookup", lookup)
    await first.upkeep.refresh()
    assert len(visited) == 3
    assert visited[0] == int.from_bytes(first.node.id, "big")
    assert part[0] <= visited[2] <= part[1]
    assert knows(first, hosts)


async def test_parted_networks_grow_together_again(host: MakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await host(running=True, settings=QUICK)
    hosts = [first] + [await host([first.address], running=True, settings=QUICK) for _ in range(7)]
    await until(lambda: all(knows(each, hosts) for each in hosts))
    left, right = hosts[:4], hosts[4:]
    sides = {id(each.node.socket): each in left for each in hosts}
    ports = {each.address.port: each in left for each in hosts}
    send = DhtSocket._send

    def cut(self: DhtSocket, destination: tuple[str, int], data: bytes) -> None:
        if sides[id(self)] == ports[destination[1]]:
            send(self, destination, data)

    monkeypatch.setattr(DhtSocket, "_send", cut)
    await until(lambda: all(knows_none(each, right) for each in left))
    await until(lambda: all(knows_none(each, left) for each in right))
    assert all(knows(each, side) for side in (left, right) for each in side)
    monkeypatch.setattr(DhtSocket, "_send", send)
    await until(lambda: all(knows(each, hosts) for each in hosts))
