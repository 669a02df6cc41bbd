"""With `slices: auto`, the node picks what it hosts: what fits in its memory, and what the swarm lacks most."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from anyio import to_thread

from intelnav.config import NodeConfig, SliceConfig
from intelnav.controller.auto import Candidate, Picked, pick
from intelnav.controller.capacity import machine_memory
from intelnav.controller.coverage import Coverage, seen
from intelnav.controller.loop import Controller
from intelnav.controller.shelf import Shelf
from intelnav.controller.sizes import candidate
from intelnav.controller.state import Room, SliceName
from intelnav.domain.errors import IntelNavError
from intelnav.domain.identity import PeerId
from intelnav.domain.model_ref import ModelRef
from intelnav.engine.interface import SliceSpec
from intelnav.network import Network
from intelnav.store.catalog import EMBEDDED
from intelnav.wanted import room_of

log = logging.getLogger(__name__)

# How often it is thought over; sooner for the first time, when the DHT has hardly been heard.
SECONDS = 10.0
FIRST_SECONDS = 2.0
JITTER = 0.3


class Choice:
    """What this node picked, in `slices`, while its config says `slices: auto`."""

    def __init__(
        self, config: NodeConfig, own: PeerId, shelf: Shelf, network: Network, controller: Controller
    ) -> None:
        """`config` can be set to another one at any time; `wake` makes that count at once."""
        self.config = config
        self.slices: tuple[SliceConfig, ...] = ()
        self._own = own
        self._shelf = shelf
        self._network = network
        self._controller = controller
        self._picked: tuple[Picked, ...] = ()
        self._settled: set[Picked] = set()
        self._coverage: dict[str, Coverage] = {}
        self._known: dict[tuple[ModelRef, Room], Candidate] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Think it over now."""
        self._wake.set()

    async def run(self, changed: Callable[[], None]) -> None:
        """Pick until cancelled; `changed` is called whenever `slices` did."""
        seconds = FIRST_SECONDS
        while True:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    seconds * random.uniform(1 - JITTER, 1 + JITTER) if self.config.auto is not None else None
                ):
                    await self._wake.wait()
            if self.config.auto is not None:
                seconds = SECONDS
                before = self.slices
                await self._think()
                if self.slices != before:
                    log.info(
                        "picked: %s",
                        ", ".join(str(SliceName(each.model, each.layers)) for each in self.slices),
                    )
                    changed()

    async def _think(self) -> None:
        candidates = await self._candidates()
        if not candidates:
            return
        now = time.monotonic()
        for each in candidates:
            adverts = await self._network.providers(each.cid)
            offers = [(advert.peer, layers) for advert in adverts for layers in advert.slices]
            self._coverage[each.cid] = seen(self._coverage.get(each.cid), offers, self._own, each.blocks, now)
        refs = {each.cid: each.model for each in candidates}
        have = self._picked or await self._held(refs, now)
        have = tuple(self._settle(held, refs, now) for held in have)
        self._picked = pick(self._memory(), candidates, self._coverage, self._own, have, now)
        self._settled &= set(self._picked)
        self.slices = tuple(SliceConfig(model=refs[each.cid], layers=each.layers) for each in self._picked)

    def _settle(self, held: Picked, refs: dict[str, ModelRef], now: float) -> Picked:
        """A pick counts from when it was first announced."""
        name = SliceName(refs[held.cid], held.layers) if held.cid in refs else None
        kept = self._controller.slices.get(name) if name is not None else None
        if held in self._settled or kept is None or not kept.announced:
            return held
        settled = replace(held, since=now)
        self._settled.add(settled)
        return settled

    async def _held(self, refs: dict[str, ModelRef], now: float) -> tuple[Picked, ...]:
        """What an earlier process picked, by what it left on disk: its bytes are here."""
        store = self._shelf.store
        held = [each for each in await to_thread.run_sync(store.slices) if each.model in refs]
        with suppress(OSError):
            last = max(held, key=lambda each: each.path.stat().st_mtime_ns, default=None)
            return () if last is None else (Picked(last.model, last.layers, now),)
        return ()

    def _memory(self) -> int:
        """What all that is picked may take together: what this node's own entries need is not to be had."""
        auto = self.config.auto
        if auto is not None and auto.memory is not None:
            return auto.memory
        own = [slice for slice in self._controller.desired.slices if not slice.hosted]
        files = [
            (self._controller.slices[each.name].file, each.room)
            for each in own
            if each.name in self._controller.slices
        ]
        return machine_memory() - sum(file.need(room) for file, room in files if file is not None)

    async def _candidates(self) -> list[Candidate]:
        """The models to pick from, as far as enough is known of them; the other ones are left for later."""
        found, room = [], room_of(self.config)
        for ref in await self._models():
            if (ref, room) not in self._known:
                try:
                    self._known[ref, room] = await self._described(ref, room)
                except (IntelNavError, OSError) as error:
                    log.warning("%s cannot be picked: %s", ref, error)
                    continue
            found.append(self._known[ref, room])
        return list({each.cid: each for each in found}.values())

    async def _models(self) -> Sequence[ModelRef]:
        """Those of the config; else those of the catalog that the swarm serves, and the embedded one if it is alone."""
        assert self.config.auto is not None
        if self.config.auto.models:
            return self.config.auto.models
        served = {listed.cid for listed in await self._network.discovery.models()}
        known = self._shelf.catalog.entries
        offered = [ModelRef("name", entry.name) for entry in known if entry.cid in served]
        mine = [each.model for each in self.slices if each.model not in offered]
        embedded = [ModelRef("name", entry.name) for entry in known if entry.origin == EMBEDDED]
        return [*offered, *mine] or embedded

    async def _described(self, ref: ModelRef, room: Room) -> Candidate:
        model = await self._shelf.find(ref)
        described = await self._shelf.described(model)
        spec = SliceSpec(
            self._shelf.store.root,
            sessions=room.sessions,
            context=min(room.context, described.context),
            max_rows=room.max_rows,
        )
        return candidate(ref, model.cid, described, spec)
