"""Keeps one slice loaded: cut from the model if need be, started, and started again when its worker dies."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import anyio
from anyio import to_thread

from intelnav.domain.errors import ConfigError, ContentError, EngineError
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceEngine, SliceSpec
from intelnav.engine.process import load_slice
from intelnav.store.cut import cut
from intelnav.store.model_file import describe

log = logging.getLogger(__name__)

State = Literal["pending", "stitching", "loading", "ready", "failed", "stopped"]

# Seconds between tries: doubled each time up to the cap, and forgotten after a healthy while.
FIRST_RETRY = 1.0
LAST_RETRY = 60.0
HEALTHY_SECONDS = 60.0


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
    """One wanted slice and what became of it; `run` keeps it loaded until it is cancelled."""

    def __init__(self, wanted: WantedSlice, slices: Path) -> None:
        self.wanted = wanted
        self.state: State = "pending"
        self.reason = ""
        self.failures = 0
        self._slices = slices
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
                loaded_at = None
                try:
                    self.state = "stitching"
                    path = await to_thread.run_sync(slice_file, self.wanted, self._slices)
                    self.state = "loading"
                    async with load_slice(replace(self.wanted.room, path=path)) as engine:
                        self._engine = engine
                        self.state, self.reason = "ready", ""
                        loaded_at = time.monotonic()
                        log.info("layers %s of %s are ready", self.wanted.layers, self.wanted.name)
                        await engine.died.wait()
                        raise EngineError(engine.death)
                except (ConfigError, ContentError, EngineError, OSError) as error:
                    if loaded_at is not None and time.monotonic() - loaded_at > HEALTHY_SECONDS:
                        self.failures = 0
                    self.failures += 1
                    self.state, self.reason = "failed", str(error)
                finally:
                    self._engine = None
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
            self.state = "stopped"


def slice_file(wanted: WantedSlice, slices: Path) -> Path:
    """The GGUF to load: the source itself if it holds just these layers, else a slice cut from it once."""
    if describe(wanted.source).layers == wanted.layers:
        return wanted.source
    target = slices / wanted.model / f"{wanted.layers.start}-{wanted.layers.end}.gguf"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        cut(wanted.source, wanted.layers, target, wanted.model)
    return target
