"""Makes the machine match what is desired: observes, plans, acts, and waits for a change or for its time."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import anyio
import anyio.lowlevel

from intelnav.controller.capacity import machine_memory
from intelnav.controller.conditions import conditions
from intelnav.controller.execute import Executor
from intelnav.controller.kept import Kept
from intelnav.controller.plan import plan
from intelnav.controller.shelf import Shelf
from intelnav.controller.state import Condition, Desired, Observed, Plan, SliceName, SliceView
from intelnav.domain.errors import Code, EngineError, PeerError
from intelnav.engine.interface import SliceEngine

log = logging.getLogger(__name__)

# How often files and memory are looked at; nobody tells when they change.
LOOK_SECONDS = 5.0
# How often it is asked whether a worker that drains is free.
DRAIN_SECONDS = 0.1


class Controller:
    """The slices of one node. `want` says what shall be, `run` sees to it until it is cancelled.

    `views` and `conditions` are what users are told of each slice, as of the last step.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        announced: Callable[[], None],
        ending: Callable[[SliceEngine, str], None],
        told: Callable[[Kept, SliceView], None] = lambda _kept, _view: None,
    ) -> None:
        """`announced` and `ending` are as in `Executor`; `told` hears of each slice whose state changed."""
        self.desired = Desired()
        self.views: dict[SliceName, SliceView] = {}
        self.conditions: dict[SliceName, tuple[Condition, ...]] = {}
        self._wake = asyncio.Event()
        self._stepped = asyncio.Event()
        self._told = told
        self._executor = Executor(shelf, changed=self._wake.set, announced=announced, ending=ending)

    @property
    def slices(self) -> Mapping[SliceName, Kept]:
        """Every slice that has anything left of it here."""
        return self._executor.slices

    def want(self, desired: Desired) -> None:
        """Say what shall be from now on."""
        self.desired = desired
        self._wake.set()

    def plan(self, desired: Desired) -> Plan:
        """What would be done now if `desired` were what shall be."""
        return plan(desired, self._observed(desired), time.monotonic())

    def cid(self, name: SliceName) -> str:
        """The id of the slice's model; EngineError while it is not known."""
        kept = self.slices.get(name)
        if kept is None or kept.model is None:
            raise self._missing(name)
        return kept.model.cid

    def engine(self, name: SliceName) -> SliceEngine:
        """The loaded slice; raises PeerError `draining` while it is being ended, else EngineError that says why not."""
        kept = self.slices.get(name)
        if kept is not None and kept.draining is not None:
            raise PeerError(Code.DRAINING, f"{kept} are being ended or loaded anew: ask again later")
        if kept is None or kept.engine is None:
            raise self._missing(name)
        return kept.engine

    async def emptied(self) -> None:
        """Return once nothing is left of any slice."""
        while self.slices:
            await self._stepped.wait()

    async def run(self) -> None:
        """Keep it so."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look)
            while True:
                self._wake.clear()
                now = time.monotonic()
                step = self.plan(self.desired)
                self._publish(step)
                for action in step.actions:
                    self._executor.start(action, tasks)
                self._stepped.set()
                self._stepped = asyncio.Event()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause(step, now)):
                        await self._wake.wait()
                # What wakes this may come in a row; whatever else is ready goes first.
                await anyio.lowlevel.checkpoint()

    def _pause(self, step: Plan, now: float) -> float:
        """Seconds until it is looked again, even if nothing tells of a change: the memory of the machine never does."""
        if any(kept.draining is not None for kept in self.slices.values()):
            return DRAIN_SECONDS
        return LOOK_SECONDS if step.wake_at is None else min(LOOK_SECONDS, max(0.0, step.wake_at - now))

    def _missing(self, name: SliceName) -> EngineError:
        view = self.views.get(name)
        state, reason = ("pending", "") if view is None else (view.state, view.reason)
        return EngineError(f"{self.slices.get(name, name)} are {state}" + (f": {reason}" if reason else ""))

    async def _look(self) -> None:
        while True:
            await anyio.sleep(LOOK_SECONDS)
            await self._executor.look()

    def _observed(self, desired: Desired) -> Observed:
        now = time.monotonic()
        wanted = {slice.name: slice for slice in desired.slices}
        slices = {name: kept.observed(wanted.get(name), now) for name, kept in self.slices.items()}
        return Observed(slices, machine_memory())

    def _publish(self, step: Plan) -> None:
        desired, observed = self.desired, self._observed(self.desired)
        wanted = {slice.name: slice for slice in desired.slices}
        before, self.views = self.views, {view.name: view for view in step.views}
        known, self.conditions = self.conditions, {}
        now = time.time()
        for name, view in self.views.items():
            kept = self.slices.get(name, Kept(name))
            there = observed.slices.get(name) or kept.observed(wanted.get(name), 0.0)
            self.conditions[name] = conditions(
                wanted.get(name), there, view, known.get(name, ()), desired.generation, now
            )
            if name not in before or before[name].state != view.state:
                self._told(kept, view)
