"""The loop over real stores and workers: what is desired becomes so, and stays so."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from intelnav.controller import execute, plan
from intelnav.controller import loop as module
from intelnav.controller.kept import Kept
from intelnav.controller.loop import Controller
from intelnav.controller.shelf import Shelf
from intelnav.controller.state import Desired, Room, SliceName, SliceView, WantedSlice
from intelnav.domain.errors import Code, EngineError, PeerError
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceEngine
from intelnav.engine.process import SliceProcess
from tests.controller.conftest import ROOM, Workers

pytestmark = pytest.mark.anyio

DEADLINE = 20


class Bench:
    """A controller, what it told, and what is announced."""

    def __init__(self, shelf: Shelf) -> None:
        self.told: list[tuple[SliceName, str]] = []
        self.ended: list[str] = []
        self.controller = Controller(shelf, announced=lambda: None, ending=self._end, told=self._hear)
        self._change = anyio.Event()

    def _end(self, engine: SliceEngine, reason: str) -> None:
        self.ended.append(reason)

    def _hear(self, kept: Kept, view: SliceView) -> None:
        self.told.append((kept.name, view.state))
        self._change.set()
        self._change = anyio.Event()

    def states(self, name: SliceName) -> list[str]:
        return [state for told, state in self.told if told == name]

    async def state(self, name: SliceName, state: str) -> SliceView:
        """What is said of a slice once it is there."""
        await self.until(lambda: name in self.controller.views and self.controller.views[name].state == state)
        return self.controller.views[name]

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(DEADLINE):
            while not condition():
                await self._change.wait()

    async def engine(self, name: SliceName) -> SliceProcess:
        await self.state(name, "ready")
        engine = self.controller.engine(name)
        assert isinstance(engine, SliceProcess)
        return engine

    async def other_engine(self, name: SliceName, engine: SliceProcess) -> SliceProcess:
        """The slice loaded anew, once the engine that it had is gone."""
        with anyio.fail_after(DEADLINE):
            await engine.died.wait()
        await self.until(lambda: self.controller.slices[name].engine not in (None, engine))
        return await self.engine(name)

    def want(self, *slices: WantedSlice, grace: float = 300.0) -> None:
        generation = self.controller.desired.generation + 1
        self.controller.want(Desired(generation, slices, grace))

    def waits(self, name: SliceName) -> bool:
        return "waits for memory" in self.controller.views[name].reason

    def announced(self) -> set[SliceName]:
        return {name for name, kept in self.controller.slices.items() if kept.announced}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries that follow one another at once."""
    monkeypatch.setattr(plan, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(execute, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.01)


@pytest.fixture
async def bench(shelf: Shelf) -> AsyncIterator[Bench]:
    async with running(shelf) as bench:
        yield bench


@asynccontextmanager
async def running(shelf: Shelf) -> AsyncIterator[Bench]:
    bench = Bench(shelf)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.controller.run)
        yield bench
        tasks.cancel_scope.cancel()


def wanted(source: Path, layers: str | None, room: Room = ROOM, *, hosted: bool = True) -> WantedSlice:
    parsed = LayerRange.parse(layers) if layers is not None else None
    return WantedSlice(SliceName(ModelRef("path", str(source)), parsed), room, hosted)


async def test_what_is_desired_becomes_ready_and_is_announced(bench: Bench, source: Path) -> None:
    front, middle = wanted(source, "0..1", hosted=False), wanted(source, "1..3")
    bench.want(front, middle)
    for slice in (front, middle):
        engine = await bench.engine(slice.name)
        assert engine.info.layers == slice.name.layers
        states = [state for state in bench.states(slice.name) if state not in ("pending", "importing")]
        assert states == ["fetching", "stitching", "loading", "ready"]
    assert bench.announced() == {middle.name}
    (ready, *_) = bench.controller.conditions[middle.name]
    assert (ready.type, ready.status, ready.observed_generation) == ("Ready", "True", 1)


async def test_a_slice_that_is_not_wanted_any_more_drains_and_its_neighbour_is_not_disturbed(
    bench: Bench, source: Path, workers: Workers
) -> None:
    goes, stays = wanted(source, "0..2"), wanted(source, "2..4")
    bench.want(goes, stays)
    engine, neighbour = await bench.engine(goes.name), await bench.engine(stays.name)
    sequence = await engine.open(None)
    bench.want(stays)
    await bench.state(goes.name, "draining")
    assert bench.announced() == {stays.name}
    with pytest.raises(PeerError, match="ended or loaded anew") as refusal:
        bench.controller.engine(goes.name)
    assert refusal.value.code == Code.DRAINING
    assert not engine.died.is_set()
    engine.close(sequence)
    await bench.until(
        lambda: goes.name not in bench.controller.slices and bench.states(goes.name)[-1] == "stopped"
    )
    assert bench.controller.engine(stays.name) is neighbour
    assert [process.pid for process in workers()] == [neighbour.pid]


async def test_a_wedged_session_does_not_outlive_the_grace(bench: Bench, source: Path) -> None:
    slice = wanted(source, "1..3")
    bench.want(slice)
    engine = await bench.engine(slice.name)
    await engine.open(None)
    bench.want(grace=0.2)
    await bench.state(slice.name, "stopped")
    assert engine.died.is_set()
    assert len(bench.ended) == 1
    assert "0.2 s of grace" in bench.ended[0]
    with anyio.fail_after(DEADLINE):
        await bench.controller.emptied()


async def test_a_slice_that_is_wanted_again_while_it_drains_goes_on(bench: Bench, source: Path) -> None:
    slice = wanted(source, "1..3")
    bench.want(slice)
    engine = await bench.engine(slice.name)
    await engine.open(None)
    bench.want()
    await bench.state(slice.name, "draining")
    bench.want(slice)
    assert await bench.engine(slice.name) is engine
    assert bench.announced() == {slice.name}


async def test_other_settings_load_a_slice_anew(bench: Bench, source: Path) -> None:
    slice = wanted(source, "1..3")
    bench.want(slice)
    engine = await bench.engine(slice.name)
    bench.want(replace(slice, room=replace(ROOM, sessions=3)))
    await bench.state(slice.name, "draining")
    again = await bench.other_engine(slice.name, engine)
    assert again.info.sessions == 3


async def test_a_worker_that_dies_is_replaced_and_not_announced_meanwhile(bench: Bench, source: Path) -> None:
    slice = wanted(source, "1..3")
    bench.want(slice)
    engine = await bench.engine(slice.name)
    os.kill(engine.pid, signal.SIGKILL)
    await bench.other_engine(slice.name, engine)
    assert bench.controller.views[slice.name].failures == 1
    assert bench.announced() == {slice.name}


async def test_what_cannot_be_loaded_says_why_and_is_tried_again(
    bench: Bench, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = f"{source}.away"
    os.rename(source, away)
    slice = wanted(source, "1..3")
    bench.want(slice)
    with pytest.raises(EngineError, match=r"layers 1\.\.3 of .* are pending"):
        bench.controller.engine(slice.name)
    await bench.until(lambda: bench.states(slice.name).count("failed") > 2)
    with pytest.raises(EngineError, match=r"tiny\.gguf"):
        bench.controller.engine(slice.name)
    os.rename(away, source)
    await bench.engine(slice.name)


async def test_a_slice_that_is_spoiled_on_disk_is_made_anew(bench: Bench, source: Path) -> None:
    slice = wanted(source, "1..3")
    bench.want(slice)
    engine = await bench.engine(slice.name)
    file = bench.controller.slices[slice.name].file
    assert file is not None
    good = overwrite(file.path)
    await bench.other_engine(slice.name, engine)
    assert read(file.path) == good


def overwrite(path: Path) -> bytes:
    """Spoil a file; returns what was in it."""
    good = path.read_bytes()
    path.write_bytes(good.rstrip(b"\0")[:-4] + b"\0" * (len(good) - len(good.rstrip(b"\0")) + 4))
    return good


def read(path: Path) -> bytes:
    return path.read_bytes()


async def test_a_slice_beside_others_that_fill_the_machine_waits(
    bench: Bench, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = wanted(source, "0..2"), wanted(source, "2..4")
    memory = [1]
    monkeypatch.setattr(module, "machine_memory", lambda: memory[-1])
    bench.want(first)
    # Alone it always fits: its worker judges that.
    await bench.engine(first.name)
    bench.want(first, second)
    await bench.until(lambda: "pending" in bench.states(second.name)[-1:] and bench.waits(second.name))
    # The machine got more.
    memory.append(2**40)
    await bench.engine(second.name)


async def test_a_slice_comes_back_without_its_source(bench: Bench, source: Path) -> None:
    slice = wanted(source, "1..3")
    bench.want(slice)
    await bench.engine(slice.name)
    cid = bench.controller.cid(slice.name)
    bench.want()
    with anyio.fail_after(DEADLINE):
        await bench.state(slice.name, "stopped")
        await bench.controller.emptied()
    os.unlink(source)
    by_cid = replace(slice, name=SliceName(ModelRef("cid", cid), slice.name.layers))
    bench.want(by_cid)
    await bench.engine(by_cid.name)


async def test_all_workers_end_with_the_loop(shelf: Shelf, source: Path, workers: Workers) -> None:
    slices: Sequence[WantedSlice] = [wanted(source, "0..2"), wanted(source, None)]
    async with running(shelf) as bench:
        bench.want(*slices)
        for slice in slices:
            await bench.engine(slice.name)
        assert len(workers()) == 2
    assert workers() == []
