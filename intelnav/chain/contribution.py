"""Everyone contributes ([C1] to [C4] in docs/protocol.md): whose sessions a host opens, as it finds out by itself."""

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import anyio

from intelnav.domain.advert import Address
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import PeerId

GRACE_SECONDS = 600.0
# Newcomers of one subnet, /24 or /48, that get grace within a day: a new key costs nothing, an address something.
GRACES_PER_SUBNET = 4
SUBNET_SECONDS = 86_400.0
# Peers whose grace is remembered. With 4 a day, it takes one subnet 16 years to push out what is known of a peer.
MAX_GRACES = 24_576
MAX_SUBNETS = 8192

YES_SECONDS = 600.0
NO_SECONDS = 60.0
MAX_VERDICTS = 4096
CHECK_SECONDS = 12.0
# A check costs a lookup and a dial, and whoever makes a key can cause one.
CHECKS_AT_ONCE = 16
# Sessions of one peer that may wait for the same answer; links bound the peers.
WAITING_PER_PEER = 8


class Verdict(StrEnum):
    """What a check found; the text is what the refused peer is told, within the 200 characters that travel."""

    CONTRIBUTES = ""
    NO_ADVERT = (
        "host or relay first: list a slice under `slices`, or write `role: relay`, and a network.listen that peers"
        " can reach (`intelnav init` does so); no advert of yours was found"
    )
    UNREACHABLE = (
        "host or relay first: your advert was found, but no dial to its addresses reached you; let peers reach your"
        " network.listen (router, firewall), then ask again"
    )


class Contributors(Protocol):
    """Who says that it hosts or relays."""

    async def adverts_of(self, peer: PeerId) -> Sequence[Address] | None:
        """The addresses in the live adverts of `peer`, host or relay; None if none is found in bounded time."""
        ...


class Reach(Protocol):
    """How a host sees for itself that a peer is where it says."""

    async def answers(self, peer: PeerId, addresses: Sequence[Address], *, teller: str) -> bool:
        """Whether a dial to one of `addresses`, of those that a host at `teller` may name, leads to `peer`."""
        ...


class Grace:
    """Who is new here, without a clock: each peer has 10 minutes from its first question on, once.

    Bounded in three ways, and what is over a bound gets no grace: peers of one subnet in a day, subnets remembered for
    that day, peers remembered at all.
    """

    def __init__(self) -> None:
        self._since: OrderedDict[PeerId, float] = OrderedDict()
        self._granted: OrderedDict[str, list[float]] = OrderedDict()

    def allows(self, peer: PeerId, host: str, now: float) -> bool:
        """Whether `peer`, asking from `host`, a number, at `now` seconds, has grace; its first ask grants it."""
        since = self._since.get(peer)
        if since is None and self._grant(_subnet(host), now):
            since = self._since[peer] = now
            if len(self._since) > MAX_GRACES:
                self._since.popitem(last=False)
        return since is not None and now - since < GRACE_SECONDS

    def _grant(self, subnet: str, now: float) -> bool:
        """Take one of the subnet's graces, if any is left."""
        while self._granted and now - next(iter(self._granted.values()))[-1] >= SUBNET_SECONDS:
            self._granted.popitem(last=False)
        times = [at for at in self._granted.get(subnet, ()) if now - at < SUBNET_SECONDS]
        if len(times) >= GRACES_PER_SUBNET or (
            subnet not in self._granted and len(self._granted) >= MAX_SUBNETS
        ):
            return False
        self._granted[subnet] = [*times, now]
        self._granted.move_to_end(subnet)
        return True


class Verdicts:
    """What checks found, without a clock: a yes for 10 minutes, a no for one; the oldest go when there are too many."""

    def __init__(self) -> None:
        self._found: OrderedDict[PeerId, tuple[Verdict, float]] = OrderedDict()

    def get(self, peer: PeerId, now: float) -> Verdict | None:
        """What is known of `peer` at `now` seconds, or None."""
        verdict, until = self._found.get(peer, (None, now))
        return verdict if now < until else None

    def put(self, peer: PeerId, verdict: Verdict, now: float) -> None:
        """Remember what a check found at `now`."""
        self._found[peer] = verdict, now + (YES_SECONDS if verdict is Verdict.CONTRIBUTES else NO_SECONDS)
        self._found.move_to_end(peer)
        if len(self._found) > MAX_VERDICTS:
            self._found.popitem(last=False)


class Contribution:
    """A host's rule: sessions are for peers that host or relay, which it looks up and then dials itself.

    `now` is a clock that never goes back, in seconds.
    """

    def __init__(
        self, contributors: Contributors, reach: Reach, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._contributors = contributors
        self._reach = reach
        self._now = now
        self._grace = Grace()
        self._verdicts = Verdicts()
        self._slots = anyio.Semaphore(CHECKS_AT_ONCE)
        self._asked: dict[PeerId, anyio.Lock] = {}
        self._waiting: Counter[PeerId] = Counter()

    async def check(self, peer: PeerId, host: str) -> None:
        """Return if `peer`, whose link comes from `host`, may open a session here; PeerError with the reason if not.

        A known contributor and a newcomer wait for nothing. Asks of one peer share one check, which takes 12 seconds
        at most once its turn has come; if the one that made it is cancelled, the next makes it.
        """
        now = self._now()
        verdict = self._verdicts.get(peer, now)
        if verdict is Verdict.CONTRIBUTES or self._grace.allows(peer, host, now):
            return
        if verdict is None:
            verdict = await self._joined(peer, host)
        if verdict is not Verdict.CONTRIBUTES:
            raise PeerError(Code.CONTRIBUTE_FIRST, str(verdict))

    async def _joined(self, peer: PeerId, host: str) -> Verdict:
        if self._waiting[peer] >= WAITING_PER_PEER:
            raise PeerError(Code.BUSY, "as many of your sessions wait for the same answer as may")
        self._waiting[peer] += 1
        try:
            async with self._asked.setdefault(peer, anyio.Lock()):
                verdict = self._verdicts.get(peer, self._now())
                if verdict is None:
                    async with self._slots:
                        verdict = await self._checked(peer, host)
                    self._verdicts.put(peer, verdict, self._now())
                return verdict
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer], self._asked[peer]

    async def _checked(self, peer: PeerId, host: str) -> Verdict:
        verdict = Verdict.NO_ADVERT
        with anyio.move_on_after(CHECK_SECONDS):
            addresses = await self._contributors.adverts_of(peer)
            if addresses is not None:
                verdict = Verdict.UNREACHABLE
                if await self._reach.answers(peer, addresses, teller=host):
                    verdict = Verdict.CONTRIBUTES
        return verdict


def _subnet(host: str) -> str:
    """The /24 or /48 that a link comes from; whatever is no IP address is a subnet of its own kind."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))
