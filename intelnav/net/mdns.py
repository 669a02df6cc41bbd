"""Nodes of the local network, found and announced by mDNS ([B1] in docs/protocol.md): hints where to start, no more."""

import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial

import anyio
import psutil
from anyio.abc import TaskGroup
from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from intelnav.config.values import is_loopback
from intelnav.domain.advert import Address
from intelnav.domain.identity import PeerId

log = logging.getLogger(__name__)

SERVICE = "_intelnav._udp.local."
# Anybody on the local network can announce as much as he likes.
MAX_SERVICES = 64
MAX_ADDRESSES = 8
ASK_MILLISECONDS = 3000
RETRY_SECONDS = 300.0
CLOSE_SECONDS = 2.0


class LocalNodes:
    """Announces where this node listens, if it does, and finds others; `found` is called with each new address.

    `interfaces` are the IPv4 addresses of the interfaces to use; without any it is all of them.
    """

    def __init__(
        self,
        own: PeerId,
        listen: Address | None,
        found: Callable[[Address], None],
        interfaces: Sequence[str] = (),
    ) -> None:
        self._name = f"{own.short}.{SERVICE}"
        self._listen = listen
        self._found = found
        self._interfaces = list(interfaces)
        self._services: dict[str, frozenset[Address]] = {}
        self._asking: set[str] = set()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """What is announced now, each once."""
        return tuple(sorted({address for found in self._services.values() for address in found}, key=str))

    async def run(self) -> None:
        """Announce and look until cancelled; where the network does not allow it, try again every five minutes."""
        while True:
            try:
                await self._run()
            except* (OSError, ZeroconfError) as errors:
                reason: BaseException = errors
                while isinstance(reason, BaseExceptionGroup):
                    reason = reason.exceptions[0]
                log.info("mDNS cannot be used: %r; next try in %.0f s", reason, RETRY_SECONDS)
            await anyio.sleep(RETRY_SECONDS)

    async def _run(self) -> None:
        interfaces = self._interfaces or InterfaceChoice.All
        zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)
        try:
            async with anyio.create_task_group() as tasks:
                browser = AsyncServiceBrowser(
                    zeroconf.zeroconf, SERVICE, handlers=[partial(self._changed, tasks)]
                )
                try:
                    if self._listen is not None:
                        await zeroconf.async_register_service(self._own(self._listen), allow_name_change=True)
                    await anyio.sleep_forever()
                finally:
                    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                        await browser.async_cancel()
        finally:
            self._services.clear()
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                # Says goodbye as well, so that others forget this node at once.
                await zeroconf.async_close()

    def _own(self, listen: Address) -> AsyncServiceInfo:
        """What this node says of itself."""
        hosts = [listen.host] if _is_one_host(listen.host) else self._interfaces or _own_hosts()
        return AsyncServiceInfo(
            SERVICE,
            self._name,
            port=listen.port,
            addresses=[socket.inet_aton(host) for host in hosts],
            server=f"{self._name.split('.')[0]}.local.",
        )

    def _changed(
        self,
        tasks: TaskGroup,
        zeroconf: Zeroconf,
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """Called by zeroconf, in this loop."""
        if state_change is ServiceStateChange.Removed:
            self._services.pop(name, None)
        elif name != self._name and (name in self._services or len(self._services) < MAX_SERVICES):
            self._services.setdefault(name, frozenset())
            if name not in self._asking:
                self._asking.add(name)
                tasks.start_soon(self._ask, zeroconf, name)

    async def _ask(self, zeroconf: Zeroconf, name: str) -> None:
        """Find out where a service is."""
        try:
            info = AsyncServiceInfo(SERVICE, name)
            if not await info.async_request(zeroconf, ASK_MILLISECONDS):
                return
        finally:
            self._asking.discard(name)
        hosts = info.parsed_addresses(IPVersion.V4Only)[:MAX_ADDRESSES]
        if info.port and name in self._services:
            before = self._services[name]
            self._services[name] = frozenset(Address(host, info.port) for host in hosts)
            for address in self._services[name] - before:
                self._found(address)


def _is_one_host(host: str) -> bool:
    """Whether `host` is the IPv4 address of one interface, rather than all of them or a name."""
    try:
        return not ipaddress.IPv4Address(host).is_unspecified
    except ValueError:
        return False


def _own_hosts() -> list[str]:
    """IPv4 addresses of this machine that others may reach."""
    found = (each for interface in psutil.net_if_addrs().values() for each in interface)
    return [each.address for each in found if each.family is socket.AF_INET and not is_loopback(each.address)]
