"""Keeps one slice loaded: put on disk if need be, started, and started again when its worker dies."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import anyio
from anyio import to_thread

from intelnav.controller.ledger import MemoryLedger
from intelnav.controller.shelf import Model, Shelf
from intelnav.domain.errors import EngineError, IntelNavError
from intelnav.domain.job import JobProgress
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import footprint
from intelnav.engine.interface import SliceEngine, SliceSpec
from intelnav.engine.process import SliceProcess, load_slice
from intelnav.net.progress import Progress
from intelnav.store.model_file import describe

log = logging.getLogger(__name__)

# Seconds between tries: doubled each time up to the cap, and forgotten after a healthy while.
FIRST_RETRY = 1.0
LAST_RETRY = 60.0
HEALTHY_SECONDS = 60.0

# A worker that owes an answer for so long hangs: a decode takes far less.
STUCK_SECONDS = 120.0
CHECK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WantedSlice:
    """A slice that the config asks for; `layers` None is the model's last one, wherever that is.

    `name` is what to call the model until it is known. `room` says how to load the slice; path, and context if the
    model was trained for less, are set by the keeper.
    """

    model: ModelRef
    name: str
    layers: LayerRange | None
    room: SliceSpec


class SliceKeeper:
    """One wanted slice and what became of it; `run` keeps it loaded until it is cancelled.

    `state` is `pending`, `importing`, `fetching`, `loading`, `ready`, `failed` or `stopped`; `progress` has the figures
    of what goes on, and stays after a fetch to tell how it went. The keepers of one node share shelf and ledger.
    """

    def __init__(
        self, wanted: WantedSlice, shelf: Shelf, ledger: MemoryLedger, changed: Callable[[], None]
    ) -> None:
        """`changed` is called whenever the slice is, or is no longer, ready."""
        self.wanted = wanted
        self.state = "pending"
        self.reason = ""
        self._changed = changed
        self.failures = 0
        self.progress: Progress | JobProgress | None = None
        self.model: Model | None = None
        self._shelf = shelf
        self._ledger = ledger
        self._engine: SliceEngine | None = None

    @property
    def name(self) -> str:
        """What to call the model."""
        return self.model.name if self.model is not None else self.wanted.name

    @property
    def layers(self) -> LayerRange | None:
        """Which layers; None for the last one of a model that is not known yet."""
        if self.wanted.layers is None and self.model is not None:
            return LayerRange(self.model.blocks - 1, self.model.blocks)
        return self.wanted.layers

    def __str__(self) -> str:
        return f"layers {self.layers or '(the last)'} of {self.name}"

    def cid(self) -> str:
        """The model's id; raises EngineError while it is not known."""
        if self.model is None:
            raise self._missing()
        return self.model.cid

    def engine(self) -> SliceEngine:
        """The loaded slice; raises EngineError that says why there is none."""
        if self._engine is None:
            raise self._missing()
        return self._engine

    async def run(self) -> None:
        """Load, wait for the worker to die, and load again. The slice counts as failed in between."""
        try:
            while True:
                try:
                    await self._serve()
                except (IntelNavError, OSError) as error:
                    self.failures += 1
                    self.state, self.reason = "failed", str(error)
                pause = min(LAST_RETRY, FIRST_RETRY * 2 ** min(self.failures - 1, 10))
                log.warning("%s failed, next try in %g s: %s", self, pause, self.reason)
                await anyio.sleep(pause)
        finally:
            self.state, self._engine = "stopped", None

    async def _serve(self) -> NoReturn:
        """Load the slice and offer it until its worker dies or hangs: EngineError then says how."""
        self.state, self.progress = "pending", None
        self.model = await self._shelf.find(self.wanted.model, self._note)
        assert self.layers is not None
        path = await self._shelf.put(self.model, self.layers, self._note)
        self.state = "loading"
        file = await to_thread.run_sync(describe, path)
        room = self.wanted.room
        spec = replace(room, path=path, context=min(room.context, file.context))
        try:
            self._ledger.promise(self, footprint(file, spec))
            async with load_slice(spec) as engine:
                if "/cpu/" not in engine.info.engine_class and spec.gpu_layers < 0:
                    # All of it lies on a GPU.
                    self._ledger.refund(self)
                ready_at = time.monotonic()
                self._engine, self.state, self.reason = engine, "ready", ""
                self._changed()
                log.info("%s are ready", self)
                await _lost(engine)
                # Not offered any more while what is left of the worker is ended.
                self._engine, self.state, self.reason = None, "failed", engine.death
                self._changed()
                if time.monotonic() - ready_at > HEALTHY_SECONDS:
                    self.failures = 0
                raise EngineError(engine.death)
        finally:
            self._ledger.refund(self)

    def _missing(self) -> EngineError:
        return EngineError(f"{self} are {self.state}" + (f": {self.reason}" if self.reason else ""))

    def _note(self, doing: str, progress: Progress | JobProgress) -> None:
        self.state, self.progress = doing, progress


async def _lost(engine: SliceProcess) -> None:
    """Return once the worker is dead, or hangs and is given up."""
    while not engine.died.is_set():
        with anyio.move_on_after(CHECK_SECONDS):
            await engine.died.wait()
        if engine.stuck_for > STUCK_SECONDS:
            engine.fail(f"the worker has owed an answer for more than {STUCK_SECONDS:g} s")
