"""Keeps one slice loaded: cut from the model if need be, started, and started again when its worker dies."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

import anyio
from anyio import from_thread, to_thread

from intelnav.controller.ledger import MemoryLedger
from intelnav.domain.errors import ConfigError, ContentError, EngineError
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import footprint
from intelnav.engine.interface import SliceEngine, SliceSpec
from intelnav.engine.process import SliceProcess, load_slice
from intelnav.store.architectures import rules_of
from intelnav.store.cut import cut
from intelnav.store.model_file import ModelFile, describe

log = logging.getLogger(__name__)

State = Literal["pending", "cutting", "loading", "ready", "failed", "stopped"]

# Seconds between tries: doubled each time up to the cap, and forgotten after a healthy while.
FIRST_RETRY = 1.0
LAST_RETRY = 60.0
HEALTHY_SECONDS = 60.0

# A worker that owes an answer for so long hangs: a decode takes far less.
STUCK_SECONDS = 120.0
CHECK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WantedSlice:
    """A slice that the config asks for. `source` is a GGUF with at least these layers, `model` its CID.

    `room` says how to load it; its path is set by the keeper.
    """

    model: str
    name: str
    source: Path
    layers: LayerRange
    room: SliceSpec


class SliceKeeper:
    """One wanted slice and what became of it; `run` keeps it loaded until it is cancelled.

    The keepers of one node share a ledger. `slices` is the folder for what is cut; no other process writes there.
    """

    def __init__(self, wanted: WantedSlice, slices: Path, ledger: MemoryLedger) -> None:
        self.wanted = wanted
        self.state: State = "pending"
        self.reason = ""
        self.failures = 0
        self._slices = slices
        self._ledger = ledger
        self._engine: SliceEngine | None = None

    def engine(self) -> SliceEngine:
        """The loaded slice; raises EngineError that says why there is none."""
        if self._engine is None:
            reason = f": {self.reason}" if self.reason else ""
            raise EngineError(f"layers {self.wanted.layers} of {self.wanted.name} are {self.state}{reason}")
        return self._engine

    async def run(self) -> None:
        """Load, wait for the worker to die, and load again. The slice counts as failed in between."""
        try:
            while True:
                try:
                    await self._serve()
                except (ConfigError, ContentError, EngineError, OSError) as error:
                    self.failures += 1
                    self.state, self.reason = "failed", str(error)
                pause = min(LAST_RETRY, FIRST_RETRY * 2 ** min(self.failures - 1, 10))
                log.warning(
                    "layers %s of %s failed, next try in %g s: %s",
                    self.wanted.layers,
                    self.wanted.name,
                    pause,
                    self.reason,
                )
                await anyio.sleep(pause)
        finally:
            self.state, self._engine = "stopped", None

    async def _serve(self) -> NoReturn:
        """Load the slice and offer it until its worker dies or hangs: EngineError then says how."""
        self.state = "cutting"
        path, model = await to_thread.run_sync(
            slice_file, self.wanted, self._slices, from_thread.check_cancelled
        )
        self.state = "loading"
        spec = replace(self.wanted.room, path=path)
        try:
            self._ledger.promise(self, footprint(model, spec))
            async with load_slice(spec) as engine:
                if "/cpu/" not in engine.info.engine_class and spec.gpu_layers < 0:
                    # All of it lies on a GPU.
                    self._ledger.refund(self)
                ready_at = time.monotonic()
                self._engine, self.state, self.reason = engine, "ready", ""
                log.info("layers %s of %s are ready", self.wanted.layers, self.wanted.name)
                await _lost(engine)
                # Not offered any more while what is left of the worker is ended.
                self._engine, self.state, self.reason = None, "failed", engine.death
                if time.monotonic() - ready_at > HEALTHY_SECONDS:
                    self.failures = 0
                raise EngineError(engine.death)
        finally:
            self._ledger.refund(self)


async def _lost(engine: SliceProcess) -> None:
    """Return once the worker is dead, or hangs and is given up."""
    while not engine.died.is_set():
        with anyio.move_on_after(CHECK_SECONDS):
            await engine.died.wait()
        if engine.stuck_for > STUCK_SECONDS:
            engine.fail(f"the worker has owed an answer for more than {STUCK_SECONDS:g} s")


def slice_file(wanted: WantedSlice, slices: Path, between: Callable[[], None]) -> tuple[Path, ModelFile]:
    """The GGUF to load and its model: the source itself if it holds just these layers, else a slice cut from it once.

    `between` is called now and then during a cut, and may raise to give up. Raises what `cut` does.
    """
    source = describe(wanted.source)
    rules_of(source.architecture)
    if source.layers == wanted.layers:
        return wanted.source, source
    target = slices / wanted.model / f"{wanted.layers.start}-{wanted.layers.end}.gguf"
    with suppress(ConfigError, ContentError):
        found = describe(target)
        if (found.model, found.layers) == (wanted.model, wanted.layers):
            return target, found
    target.parent.mkdir(parents=True, exist_ok=True)
    # Left by a process that was killed at it.
    for stale in target.parent.glob(f".{target.name}.*.part"):
        stale.unlink()
    cut(wanted.source, wanted.layers, target, wanted.model, between)
    return target, describe(target)
