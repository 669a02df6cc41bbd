"""Actions one by one, on a real store and with real workers."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.lowlevel
import psutil
import pytest
from anyio.abc import TaskGroup

from intelnav.controller import execute as module
from intelnav.controller.execute import Executor
from intelnav.controller.kept import Kept
from intelnav.controller.shelf import Shelf
from intelnav.controller.state import (
    Action,
    Announce,
    Bring,
    Cancel,
    Drain,
    Forget,
    Load,
    ObservedSlice,
    Resume,
    SliceName,
    Unload,
    WantedSlice,
    Withdraw,
)
from intelnav.domain.errors import EngineError
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceEngine
from intelnav.engine.process import SliceProcess
from intelnav.store.manifest import manifest_of
from tests.controller.conftest import ROOM, Workers
from tests.hub import serving
from tests.models import tiny_model

pytestmark = pytest.mark.anyio

LAYERS = LayerRange(1, 3)
DEADLINE = 20


class Bench:
    """An executor, and what it told."""

    def __init__(self, shelf: Shelf, tasks: TaskGroup) -> None:
        self.shelf = shelf
        self.tasks = tasks
        self.announced = 0
        self.ended: list[tuple[SliceEngine, str]] = []
        self.doings: list[str | None] = []
        self._change = anyio.Event()
        self.executor = Executor(
            shelf,
            changed=self._changed,
            announced=self._announced,
            ending=lambda *what: self.ended.append(what),
        )

    def _changed(self) -> None:
        self.doings += [kept.doing for kept in self.executor.slices.values()]
        self._change.set()
        self._change = anyio.Event()

    def _announced(self) -> None:
        self.announced += 1

    def start(self, action: Action) -> Kept:
        self.executor.start(action, self.tasks)
        return self.executor.slices.get(action.name, Kept(action.name))

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(DEADLINE):
            while not condition():
                await self._change.wait()

    async def done(self, action: Action) -> Kept:
        """The slice once the action is over."""
        kept = self.start(action)
        await self.until(lambda: kept.doing is None)
        return kept

    async def loaded(self, name: SliceName) -> tuple[Kept, SliceProcess]:
        kept = await self.done(Bring(name))
        assert kept.failure is None
        self.start(Load(name, ROOM))
        await self.until(lambda: kept.doing is None)
        assert kept.engine is not None, kept.failure
        return kept, kept.engine


@pytest.fixture
async def bench(shelf: Shelf) -> AsyncIterator[Bench]:
    async with anyio.create_task_group() as tasks:
        yield Bench(shelf, tasks)
        tasks.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.05)


@pytest.fixture
def name(source: Path) -> SliceName:
    return SliceName(ModelRef("path", str(source)), LAYERS)


def seen(kept: Kept) -> ObservedSlice:
    return kept.observed(WantedSlice(kept.name, ROOM), 0.0)


def spoil(path: Path) -> None:
    """Change the last byte of a file that means something, where it lies: the end of a slice may be a hole."""
    place = len(path.read_bytes().rstrip(b"\0")) - 1
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\0")


def ended(worker: psutil.Process) -> bool:
    return not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


async def test_a_slice_is_brought_and_what_it_needs_is_known(
    bench: Bench, name: SliceName, source: Path
) -> None:
    kept = bench.start(Bring(name))
    assert seen(kept).doing == "finding"
    await bench.until(lambda: kept.doing is None)
    there = seen(kept)
    assert (there.here, there.loaded, there.failure) == (True, None, None)
    assert there.need is not None
    assert there.need > 0
    assert "stitching" in bench.doings
    assert (kept.called, kept.layers) == ("tiny llama", LAYERS)
    assert bench.shelf.wanted == {(manifest_of(source).cid, LAYERS)}


async def test_the_last_layer_is_found_wherever_it_is(bench: Bench, name: SliceName) -> None:
    last = SliceName(name.model, None)
    kept = bench.start(Bring(last))
    assert str(kept) == "layers (the last) of tiny"
    await bench.until(lambda: kept.doing is None)
    assert kept.layers == LayerRange(3, 4)


async def test_a_worker_is_started_and_ended_and_its_sessions_before(bench: Bench, name: SliceName) -> None:
    kept, engine = await bench.loaded(name)
    there = seen(kept)
    assert there.loaded is not None
    assert (there.loaded.room, there.loaded.in_use, there.doing) == (ROOM, 0, None)
    assert there.loaded.memory == there.need
    assert engine.info.layers == LAYERS
    await engine.open(None)
    loaded = seen(kept).loaded
    assert loaded is not None
    assert loaded.in_use == 1
    worker = psutil.Process(engine.pid)
    bench.start(Unload(name, "the grace is over"))
    assert bench.ended == [(engine, "the grace is over")]
    assert seen(kept).doing == "unloading"
    await bench.until(lambda: kept.doing is None)
    assert (seen(kept).loaded, seen(kept).failure, seen(kept).here) == (None, None, True)
    assert ended(worker)


async def test_what_is_only_noted_counts_at_once(bench: Bench, name: SliceName) -> None:
    kept, _ = await bench.loaded(name)
    bench.start(Announce(name))
    assert (seen(kept).announced, bench.announced) == (True, 1)
    bench.start(Drain(name))
    assert seen(kept).draining is not None
    bench.start(Resume(name))
    assert seen(kept).draining is None
    bench.start(Withdraw(name))
    assert (seen(kept).announced, bench.announced) == (False, 2)


async def test_a_fetch_is_cancelled_and_is_no_failure(bench: Bench, source: Path) -> None:
    with serving() as hub:
        asked, hold = anyio.Event(), anyio.Event()
        loop_token = anyio.lowlevel.current_token()

        def stall(_: object) -> None:
            anyio.from_thread.run_sync(asked.set, token=loop_token)
            anyio.from_thread.run(hold.wait, token=loop_token)

        hub.behaviours["/tiny.gguf"] = stall
        name = SliceName(ModelRef("url", hub.url("/tiny.gguf")), LAYERS)
        kept = bench.start(Bring(name))
        with anyio.fail_after(DEADLINE):
            await asked.wait()
        bench.start(Cancel(name))
        assert kept.doing == "cancelling"
        await bench.until(lambda: kept.doing is None)
        hold.set()
        assert (seen(kept).here, seen(kept).failure) == (False, None)


async def test_a_load_is_cancelled_with_its_worker(bench: Bench, name: SliceName, workers: Workers) -> None:
    kept = await bench.done(Bring(name))
    bench.start(Load(name, ROOM))
    worker = await first(workers)
    await bench.done(Cancel(name))
    assert (seen(kept).loaded, seen(kept).failure) == (None, None)
    assert ended(worker)


async def first(workers: Workers) -> psutil.Process:
    """The worker that is being started."""
    with anyio.fail_after(DEADLINE):
        while not (found := workers()):  # noqa: ASYNC110 - nobody tells of it
            await anyio.sleep(0.005)
    return found[0]


async def test_a_worker_that_is_killed_is_a_failure_that_says_how(bench: Bench, name: SliceName) -> None:
    kept, engine = await bench.loaded(name)
    os.kill(engine.pid, signal.SIGKILL)
    await bench.until(lambda: kept.failure is not None)
    assert seen(kept).loaded is None
    await bench.until(lambda: kept.doing is None)
    assert kept.failure is not None
    assert "SIGKILL" in kept.failure.reason
    assert seen(kept).here
    again = (await bench.done(Load(name, ROOM))).engine
    assert again is not None
    assert again.pid != engine.pid


async def test_a_worker_that_hangs_is_ended(
    bench: Bench, name: SliceName, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, engine = await bench.loaded(name)
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.3)
    worker = psutil.Process(engine.pid)
    worker.suspend()
    # It owes nothing yet.
    assert engine.stuck_for == 0
    with anyio.fail_after(DEADLINE), pytest.raises(EngineError, match=r"owed an answer for .* 0\.3 s"):
        await engine.open(None)
    await bench.until(lambda: kept.failure is not None and kept.doing is None)
    assert ended(worker)


async def test_a_worker_that_hangs_while_it_loads_is_ended(
    bench: Bench, name: SliceName, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STUCK_SECONDS", 1.0)
    kept = await bench.done(Bring(name))
    bench.start(Load(name, ROOM))
    worker = await first(workers)
    worker.suspend()
    await bench.until(lambda: kept.failure is not None)
    assert kept.failure is not None
    assert "did not load the slice within 1 s" in kept.failure.reason
    assert ended(worker)


async def test_failures_are_counted(bench: Bench, name: SliceName, source: Path) -> None:
    os.unlink(source)
    for count in (1, 2):
        kept = await bench.done(Bring(name))
        assert kept.failure is not None
        assert kept.failure.count == count
        assert "tiny.gguf" in kept.failure.reason


async def test_failures_are_forgotten_after_a_healthy_while(
    bench: Bench, name: SliceName, source: Path
) -> None:
    os.rename(source, f"{source}.away")
    kept = await bench.done(Bring(name))
    os.rename(f"{source}.away", source)
    await bench.done(Bring(name))
    await bench.done(Load(name, ROOM))
    assert kept.observed(None, kept.since + 59).failure is not None
    assert kept.observed(None, kept.since + 61).failure is None


@pytest.mark.parametrize("layers", [LAYERS, LayerRange(0, 4)])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_a_hostile_file_is_a_reason_and_no_crash(
    bench: Bench, source: Path, layers: LayerRange, number: float
) -> None:
    extra = {"attention.head_count": [number] * 4}
    hostile = tiny_model(source.with_name("hostile.gguf"), "llama", blocks=4, extra=extra)
    kept = await bench.done(Bring(SliceName(ModelRef("path", str(hostile)), layers)))
    assert kept.failure is not None
    assert "llama.attention.head_count must hold 4" in kept.failure.reason
    assert not seen(kept).here


async def test_a_slice_that_was_spoiled_on_disk_is_put_together_anew(bench: Bench, name: SliceName) -> None:
    kept = await bench.done(Bring(name))
    assert kept.file is not None
    good = kept.file.path.read_bytes()
    spoil(kept.file.path)
    kept = await bench.done(Bring(name))
    assert kept.failure is None
    assert kept.file is not None
    assert kept.file.path.read_bytes() == good


async def test_a_worker_whose_file_is_spoiled_serves_no_more(bench: Bench, name: SliceName) -> None:
    kept, engine = await bench.loaded(name)
    assert kept.file is not None
    spoil(kept.file.path)
    await bench.executor.look()
    assert "was damaged" in engine.death
    await bench.until(lambda: kept.failure is not None and kept.doing is None)
    assert (seen(kept).loaded, seen(kept).here) == (None, False)


async def test_a_worker_whose_file_a_check_finds_spoiled_serves_no_more(
    bench: Bench, name: SliceName, source: Path
) -> None:
    kept, engine = await bench.loaded(name)
    assert kept.file is not None
    assert kept.model is not None
    path, before = kept.file.path, kept.file.path.stat()
    good = path.read_bytes()
    spoil(path)
    # As a disk spoils it, which tells nobody.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await bench.executor.look()
    assert not engine.death
    assert len(bench.shelf.store.verify(kept.model.cid)) == 1
    await bench.executor.look()
    assert engine.death
    await bench.until(lambda: kept.failure is not None and kept.doing is None)
    kept = await bench.done(Bring(name))
    assert kept.file is not None
    assert kept.file.path.read_bytes() == good
    assert bench.shelf.store.fault_of(manifest_of(source).cid, LAYERS) is None


async def test_a_file_that_was_only_touched_is_hashed_and_stays(bench: Bench, name: SliceName) -> None:
    kept, engine = await bench.loaded(name)
    before = kept.file
    assert before is not None
    os.utime(before.path)
    await bench.executor.look()
    assert kept.engine is engine
    assert kept.file is not None
    assert kept.file != before
    after = kept.file
    await bench.executor.look()
    assert kept.file is after


async def test_a_file_that_is_gone_is_not_here_and_its_worker_goes_on(bench: Bench, name: SliceName) -> None:
    kept, engine = await bench.loaded(name)
    assert kept.file is not None
    kept.file.path.unlink()
    await bench.executor.look()
    assert not seen(kept).here
    assert kept.engine is engine
    assert await engine.open(None) == 0


async def test_a_users_file_that_holds_something_else_now_serves_no_more(bench: Bench, source: Path) -> None:
    whole = SliceName(ModelRef("path", str(source)), LayerRange(0, 4))
    kept, engine = await bench.loaded(whole)
    assert kept.file is not None
    assert kept.file.path == source
    spoil(source)
    await bench.executor.look()
    assert f"{source} was changed" in engine.death
    await bench.until(lambda: kept.engine is None and kept.doing is None)
    before = kept.model
    # It is another model now, and as such it is brought again.
    await bench.done(Bring(whole))
    assert before is not None
    assert kept.model is not None
    assert kept.model.cid != before.cid


async def test_what_is_forgotten_may_be_removed_unless_another_name_means_it(
    bench: Bench, name: SliceName, source: Path
) -> None:
    cid = manifest_of(source).cid
    other = SliceName(ModelRef("cid", cid), LAYERS)
    await bench.done(Bring(name))
    await bench.done(Bring(other))
    bench.start(Forget(name))
    assert name not in bench.executor.slices
    assert bench.shelf.wanted == {(cid, LAYERS)}
    bench.start(Forget(other))
    assert bench.shelf.wanted == set()


async def test_a_full_store_is_a_failure_until_there_is_room(bench: Bench, name: SliceName) -> None:
    bench.shelf.store.max_bytes = 1000
    kept = await bench.done(Bring(name))
    assert kept.failure is not None
    assert "do not fit" in kept.failure.reason
    bench.shelf.store.max_bytes = None
    await bench.done(Bring(name))
    assert seen(kept).here
