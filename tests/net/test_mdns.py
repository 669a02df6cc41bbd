"""Nodes that find each other by real multicast on the loopback interface, and nowhere else."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from intelnav.domain.advert import Address
from intelnav.domain.identity import PeerId
from intelnav.net import mdns
from intelnav.net.mdns import MAX_ADDRESSES, MAX_SERVICES, SERVICE, LocalNodes
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

until = partial(eventually, seconds=30)

LOOPBACK = ("127.0.0.1",)


def local_node(number: int, port: int | None, found: Callable[[Address], None]) -> LocalNodes:
    listen = Address("127.0.0.1", port) if port is not None else None
    return LocalNodes(PeerId(bytes([number]) * 32), listen, found, LOOPBACK)


@asynccontextmanager
async def running(*nodes: LocalNodes) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(node.run)
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def stranger(count: int, port: int, addresses: int = 1) -> AsyncIterator[None]:
    """Somebody who announces `count` services of our kind."""
    zeroconf = AsyncZeroconf(interfaces=list(LOOPBACK))
    try:
        packed = [socket.inet_aton(f"127.0.0.{number}") for number in range(1, addresses + 1)]
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                info = AsyncServiceInfo(
                    SERVICE,
                    f"stranger-{number}.{SERVICE}",
                    port=port,
                    addresses=packed,
                    server="stranger.local.",
                )
                tasks.start_soon(partial(zeroconf.async_register_service, info, cooperating_responders=True))
        yield
    finally:
        await zeroconf.async_close()


async def test_nodes_find_each_other_and_forget_one_that_leaves() -> None:
    heard: dict[int, list[Address]] = {1: [], 2: []}
    one, two = (local_node(n, 7700 + n, heard[n].append) for n in (1, 2))
    async with running(one):
        async with running(two):
            await until(lambda: bool(heard[1] and heard[2]))
            assert (heard[1], heard[2]) == ([Address("127.0.0.1", 7702)], [Address("127.0.0.1", 7701)])
            assert one.addresses == (Address("127.0.0.1", 7702),)
        await until(lambda: not one.addresses)
    assert two.addresses == ()


async def test_a_node_that_listens_nowhere_looks_and_stays_silent() -> None:
    heard: list[Address] = []
    unheard: list[Address] = []
    listening, silent = local_node(1, 7701, unheard.append), local_node(2, None, heard.append)
    async with running(listening, silent):
        await until(lambda: bool(heard))
        # A third one is heard, long after the silent one would have been.
        async with running(local_node(3, 7703, heard.append)):
            await until(lambda: bool(unheard))
    assert unheard == [Address("127.0.0.1", 7703)]


async def test_what_others_announce_is_bounded_and_cannot_be_port_0() -> None:
    heard: list[Address] = []
    node = local_node(1, None, heard.append)
    async with running(node), stranger(1, 0), stranger(MAX_SERVICES + 20, 7717, MAX_ADDRESSES + 4):
        await until(lambda: len(node._services) >= MAX_SERVICES and not node._asking)
        assert len(node._services) == MAX_SERVICES
        assert len(node.addresses) == MAX_ADDRESSES
        assert len(heard) <= MAX_SERVICES * MAX_ADDRESSES
        assert {address.port for address in heard} == {7717}


async def test_a_network_that_does_not_allow_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "RETRY_SECONDS", 0.05)
    heard: list[Address] = []
    looking = LocalNodes(PeerId(b"\x01" * 32), None, heard.append, ["203.0.113.77"])
    tried = anyio.Event()

    def refused(message: str, *arguments: object) -> None:
        assert "mDNS cannot be used" in message
        looking._interfaces[:] = LOOPBACK
        tried.set()

    monkeypatch.setattr(mdns.log, "info", refused)
    async with running(looking, local_node(2, 7702, heard.append)):
        await until(lambda: Address("127.0.0.1", 7702) in heard)
    assert tried.is_set()


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "node.example"])
def test_who_listens_everywhere_announces_no_loopback_address(
    listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = LocalNodes(PeerId(b"\x01" * 32), Address(listen, 7717), print)._own(Address(listen, 7717))
    assert own.port == 7717
    assert not any(address.startswith("127.") for address in own.parsed_addresses())


def test_who_listens_at_one_address_announces_that() -> None:
    listen = Address("192.0.2.7", 7717)
    own = LocalNodes(PeerId(b"\x01" * 32), listen, print)._own(listen)
    assert own.parsed_addresses() == ["192.0.2.7"]
