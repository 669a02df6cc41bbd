"""How one node finds others and is found by them: the DHT, where to start in it, and what this node says there."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import anyio

from intelnav.config import NodeConfig
from intelnav.controller.kept import Kept
from intelnav.dht.records import ListedModel
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.engine.interface import SliceEngine
from intelnav.net.dht_node import DhtNode
from intelnav.net.dht_upkeep import Upkeep
from intelnav.net.discovery import DhtDiscovery
from intelnav.net.said import Said
from intelnav.net.seeds import SeedLists
from intelnav.wanted import ConfiguredPeers

log = logging.getLogger(__name__)

# How often a load, or an address that others confirmed, is looked at again.
LOOK_SECONDS = 15.0
# A load that changed by less is not worth a new record.
LOAD_STEP = 0.25
WITHDRAW_SECONDS = 2.0
UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104 - what is compared with, not bound to


class Network:
    """Discovery for one node: first the peers of its config, then the DHT. Implements `Discovery`, `Providers`.

    `offered` gives the slices that it offers to others now.
    """

    def __init__(
        self,
        config: NodeConfig,
        identity: Identity,
        known: ConfiguredPeers,
        offered: Callable[[], Sequence[Kept]],
    ) -> None:
        listen = config.network.listen
        local = config.network.is_local
        self._config = config
        self._known = known
        self._offered = offered
        self._own = identity.peer
        # Nobody can reach a node that does not listen; on loopback everybody can; else others tell.
        reachable = False if listen is None else True if local else None
        self.dht = DhtNode(identity, reachable=reachable, contacts=config.data_dir / "contacts.json")
        self.discovery = DhtDiscovery(self.dht, said=Said(config.data_dir / "announced.json"))
        self._upkeep = Upkeep(self.dht, config.network.bootstrap)
        self.seeds = SeedLists(config.network.seeds, config.data_dir / "seeds", self._upkeep.add)
        self._changed = asyncio.Event()
        self._link_port = 0
        self._chunks: Address | None = None
        self._said: dict[str, Advert] = {}
        self._said_at: tuple[Address, ...] = ()

    def slice_changed(self) -> None:
        """Another set of slices is offered."""
        self._changed.set()

    def reconfigure(self, config: NodeConfig) -> None:
        """Take over what can change while this runs: the peers, where to start, and how many there is room for."""
        self._config = config
        self._known.peers = config.network.peers
        self._upkeep.start_from(config.network.bootstrap)

    async def open(self, link: Address | None, chunks: Address | None) -> None:
        """Take the UDP port that belongs to where this node takes links; `chunks` is where it gives out models."""
        any_port = Address("127.0.0.1" if self._config.network.is_local else UNSPECIFIED[0], 0)
        self._link_port = link.port if link is not None else 0
        self._chunks = chunks
        await self.dht.listen(link or any_port)
        self.seeds.load()

    async def run(self) -> None:
        """Join, keep in touch and announce, until cancelled; then what was announced is withdrawn."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._upkeep.run)
            tasks.start_soon(self.seeds.run)
            tasks.start_soon(self.discovery.run)
            if self._config.network.mdns and not self._config.network.is_local:
                # Imported here: it takes a fifth of a second.
                from intelnav.net.mdns import LocalNodes

                nearby = LocalNodes(self._own, self._config.network.listen, self._upkeep.hint)
                tasks.start_soon(nearby.run)
            try:
                await self._upkeep.join()
                await self._announce()
            finally:
                with anyio.move_on_after(WITHDRAW_SECONDS, shield=True):
                    await self.discovery.withdraw_all()
                self.dht.close()

    async def providers(self, model: str) -> list[Advert]:
        """Adverts for the model with this CID: those of the config first, which are believed over the DHT's."""
        told = await self._known.providers(model)
        names = {advert.peer for advert in told} | {self._own}
        return [*told, *(each for each in await self.discovery.providers(model) if each.peer not in names)]

    async def chunk_servers(self, model: str) -> Sequence[Address]:
        """Where the model's bytes may be had."""
        told = list(await self._known.chunk_servers(model))
        found = [
            each.chunks
            for each in await self.discovery.providers(model)
            if each.chunks is not None and each.peer != self._own
        ]
        return list(dict.fromkeys((*told, *found)))

    async def adverts_of(self, peer: PeerId) -> Sequence[Address] | None:
        """See `Contributors`; who is named in the config has its word."""
        told = [each.address for each in self._known.peers if each.id == peer]
        return told or await self.discovery.adverts_of(peer)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where others can dial this node, as far as is known; none if nobody can."""
        listen = self._config.network.listen
        return () if listen is None else outside(listen.host, self._link_port, self.dht.reach.seen_at)

    async def _announce(self) -> None:
        """Keep what is said in the DHT in step with what is loaded."""
        while True:
            self._changed.clear()
            with suppress(OSError):
                await self._say()
            with anyio.move_on_after(LOOK_SECONDS):
                await self._changed.wait()

    async def _say(self) -> None:
        at, relay, room = self.addresses, self._config.role == "relay", self._config.limits.connections
        adverts = self._adverts(at) if at else {}
        gone = [model for model in self._said if model not in adverts]
        for model in gone:
            del self._said[model]
            await self.discovery.withdraw(model)
        changed = bool(gone) or at != self._said_at
        for model, advert in adverts.items():
            if changed or _differ(advert, self._said.get(model)):
                changed = True
                self._said[model] = advert
                await self._put(self.discovery.announce(advert))
        if not changed:
            return
        self._said_at = at
        if adverts:
            await self._put(self.discovery.announce_models(self._listed(), at))
        else:
            await self.discovery.withdraw_models()
        if at and relay:
            await self._put(self.discovery.announce_relay(at, room))
        else:
            await self.discovery.withdraw_relay()
        if at and (adverts or relay):
            await self._put(self.discovery.announce_contribution(at, room))
        else:
            await self.discovery.withdraw_contribution()

    async def _put(self, announcement: Awaitable[int]) -> None:
        try:
            await announcement
        except PeerError as error:
            log.warning("this cannot be announced: %s", error)

    def _adverts(self, at: tuple[Address, ...]) -> dict[str, Advert]:
        """What this node serves now, by model."""
        engines: dict[str, list[SliceEngine]] = {}
        for kept in self._offered():
            if kept.model is not None and kept.engine is not None:
                engines.setdefault(kept.model.cid, []).append(kept.engine)
        chunks: tuple[Address, ...] = ()
        if self._chunks is not None:
            chunks = outside(self._chunks.host, self._chunks.port, self.dht.reach.seen_at)
        return {
            model: Advert(
                self._own,
                at,
                model,
                tuple(sorted({engine.info.layers for engine in loaded})),
                next(iter(chunks), None),
                loaded[0].info.engine_class,
                max(engine.in_use / engine.info.sessions for engine in loaded),
            )
            for model, loaded in engines.items()
        }

    def _listed(self) -> list[ListedModel]:
        listed = {}
        for kept in self._offered():
            manifest = kept.model.manifest if kept.model is not None else None
            if manifest is not None and manifest.cid in self._said:
                listed[manifest.cid] = ListedModel(
                    manifest.cid,
                    manifest.name[:64],
                    manifest.architecture,
                    manifest.blocks,
                    manifest.file.size,
                    manifest.quantisation,
                )
        return list(listed.values())


def outside(host: str, port: int, seen_at: Address | None) -> tuple[Address, ...]:
    """Where others reach what listens on `host`: on every address means where they see this node, if they do."""
    if host not in UNSPECIFIED:
        return (Address(host, port),)
    return () if seen_at is None else (Address(seen_at.host, port),)


def _differ(advert: Advert, said: Advert | None) -> bool:
    """Whether an advert says something new."""
    if said is None or abs(advert.load - said.load) >= LOAD_STEP:
        return True
    return (advert.addresses, advert.slices, advert.chunks) != (said.addresses, said.slices, said.chunks)
