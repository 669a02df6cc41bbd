"""Keepers of a tiny model, with real workers."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
import pytest
from anyio import from_thread, to_thread

from intelnav.controller import keeper as module
from intelnav.controller.keeper import SliceKeeper, WantedSlice, slice_file
from intelnav.controller.ledger import MemoryLedger
from intelnav.domain.errors import ContentError, EngineError
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import Footprint
from intelnav.engine.interface import SliceSpec
from intelnav.engine.process import SliceProcess
from tests.models import tiny_model

pytestmark = pytest.mark.anyio

CID = "b3-" + "a" * 52
LAYERS = LayerRange(1, 3)
DEADLINE = 20


@pytest.fixture
def wanted(tmp_path: Path) -> WantedSlice:
    """The middle of a model of four blocks."""
    source = tiny_model(tmp_path / "tiny.gguf", "llama", blocks=4)
    room = SliceSpec(source, sessions=2, context=64, max_rows=8, device="cpu", threads=1)
    return WantedSlice(CID, "tiny", source, LAYERS, room)


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    return tmp_path / "slices"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries that follow one another at once."""
    monkeypatch.setattr(module, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.05)


@asynccontextmanager
async def running(wanted: WantedSlice, slices: Path) -> AsyncIterator[SliceKeeper]:
    kept = SliceKeeper(wanted, slices, MemoryLedger.of_machine())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kept.run)
        try:
            yield kept
        finally:
            tasks.cancel_scope.cancel()
    assert kept.state == "stopped"


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(DEADLINE):
        while not condition():  # noqa: ASYNC110 - a keeper tells nobody of its state
            await anyio.sleep(0.005)


async def ready(kept: SliceKeeper) -> SliceProcess:
    await until(lambda: kept.state == "ready")
    engine = kept.engine()
    assert isinstance(engine, SliceProcess)
    return engine


def file_of(wanted: WantedSlice, slices: Path) -> Path:
    return slice_file(wanted, slices, lambda: None)[0]


def test_a_slice_is_cut_once(wanted: WantedSlice, slices: Path) -> None:
    path = file_of(wanted, slices)
    assert path == slices / CID / "1-3.gguf"
    first = path.stat()
    assert file_of(wanted, slices) == path
    assert path.stat().st_ino == first.st_ino


def test_a_file_with_just_these_layers_is_loaded_in_place(wanted: WantedSlice, slices: Path) -> None:
    assert file_of(replace(wanted, layers=LayerRange(0, 4)), slices) == wanted.source
    piece = file_of(wanted, slices)
    assert file_of(replace(wanted, source=piece), slices) == piece


@pytest.mark.parametrize("layers", [LayerRange(0, 3), LayerRange(0, 2)])
def test_an_architecture_that_is_not_proven_is_refused_whole_and_cut(
    tmp_path: Path, wanted: WantedSlice, slices: Path, layers: LayerRange
) -> None:
    source = tiny_model(tmp_path / "olmo2.gguf", "olmo2", blocks=3)
    with pytest.raises(ContentError, match="'olmo2'"):
        file_of(replace(wanted, source=source, layers=layers), slices)


@pytest.mark.parametrize("spoil", ["other layers", "another model", "nonsense"])
def test_a_cut_that_is_not_what_its_name_says_is_made_again(
    wanted: WantedSlice, slices: Path, spoil: str
) -> None:
    path = file_of(wanted, slices)
    good = path.read_bytes()
    match spoil:
        case "other layers":
            path.write_bytes(file_of(replace(wanted, layers=LayerRange(2, 4)), slices).read_bytes())
        case "another model":
            path.write_bytes(good.replace(CID.encode(), b"b3-" + b"b" * 52))
        case "nonsense":
            path.write_bytes(good[:100])
    assert file_of(wanted, slices) == path
    assert path.read_bytes() == good


def test_what_a_killed_process_left_of_a_cut_is_removed(wanted: WantedSlice, slices: Path) -> None:
    folder = slices / CID
    folder.mkdir(parents=True)
    (folder / ".1-3.gguf.4711.part").write_bytes(b"half")
    (folder / ".0-3.gguf.4711.part").write_bytes(b"of another keeper")
    file_of(wanted, slices)
    assert {path.name for path in folder.iterdir()} == {"1-3.gguf", ".0-3.gguf.4711.part"}


async def test_a_cut_is_given_up_when_the_node_stops(wanted: WantedSlice, slices: Path) -> None:
    cutting, stopped = anyio.Event(), anyio.Event()

    def cut() -> None:
        def between() -> None:
            from_thread.run_sync(cutting.set)
            from_thread.run(stopped.wait)
            from_thread.check_cancelled()

        slice_file(wanted, slices, between)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_thread.run_sync, cut)
        with anyio.fail_after(DEADLINE):
            await cutting.wait()
        tasks.cancel_scope.cancel()
        stopped.set()
    assert list((slices / CID).iterdir()) == []


async def test_a_slice_is_loaded_and_ends_with_its_keeper(wanted: WantedSlice, slices: Path) -> None:
    async with running(wanted, slices) as kept:
        with pytest.raises(EngineError, match=r"layers 1\.\.3 of tiny are pending"):
            kept.engine()
        engine = await ready(kept)
        assert engine.info.layers == LAYERS
        worker = psutil.Process(engine.pid)
    assert not worker.is_running()
    with pytest.raises(EngineError, match="are stopped"):
        kept.engine()


async def test_a_worker_that_is_killed_is_started_again(
    wanted: WantedSlice, slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY", 0.2)
    async with running(wanted, slices) as kept:
        engine = await ready(kept)
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: kept.state == "failed")
        assert "SIGKILL" in kept.reason
        with pytest.raises(EngineError, match=r"are failed: the worker ended with signal SIGKILL"):
            kept.engine()
        again = await ready(kept)
        assert again.pid != engine.pid
        assert (kept.reason, kept.failures) == ("", 1)


async def test_a_worker_that_hangs_is_replaced(
    wanted: WantedSlice, slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.3)
    async with running(wanted, slices) as kept:
        engine = await ready(kept)
        worker = psutil.Process(engine.pid)
        worker.suspend()
        # It owes nothing yet.
        assert engine.stuck_for == 0
        with anyio.fail_after(DEADLINE), pytest.raises(EngineError, match=r"owed an answer for .* 0\.3 s"):
            await engine.open(None)
        await until(lambda: kept.failures == 1)
        again = await ready(kept)
        assert again.pid != engine.pid
        assert not worker.is_running()
        assert await again.open(None) == 0


async def test_pauses_between_tries_grow_and_are_capped(
    wanted: WantedSlice, slices: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LAST_RETRY", 0.03)
    wanted.source.unlink()
    async with running(wanted, slices) as kept:
        await until(lambda: kept.failures > 3)
        assert kept.state in ("failed", "cutting")
        assert "tiny.gguf" in kept.reason
    pauses = [record.args[2] for record in caplog.records if isinstance(record.args, tuple)]
    assert pauses[:4] == [0.01, 0.02, 0.03, 0.03]


async def test_failures_are_forgotten_after_a_healthy_while(
    wanted: WantedSlice, slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEALTHY_SECONDS", 0)
    async with running(wanted, slices) as kept:
        for _ in range(2):
            engine = await ready(kept)
            os.kill(engine.pid, signal.SIGKILL)
            await engine.died.wait()
            await until(lambda: kept.failures == 1 and kept.state != "ready")


@pytest.mark.parametrize("layers", [LAYERS, LayerRange(0, 4)])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_a_hostile_file_is_a_reason_and_no_crash(
    wanted: WantedSlice, slices: Path, layers: LayerRange, number: float
) -> None:
    extra = {"attention.head_count": [number] * 4}
    source = tiny_model(wanted.source.with_name("hostile.gguf"), "llama", blocks=4, extra=extra)
    async with running(replace(wanted, source=source, layers=layers), slices) as kept:
        await until(lambda: kept.failures > 0)
        assert "llama.attention.head_count must hold 4" in kept.reason


async def test_a_slice_beside_others_that_fill_the_machine_waits(wanted: WantedSlice, slices: Path) -> None:
    ledger = MemoryLedger(2**30)
    ledger.promise("another", Footprint(2**30, 0, 0))
    kept = SliceKeeper(wanted, slices, ledger)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kept.run)
        await until(lambda: kept.failures > 0)
        assert "this node's other slices" in kept.reason
        ledger.refund("another")
        await ready(kept)
        with pytest.raises(EngineError, match="beside"):
            ledger.promise("another", Footprint(2**30, 0, 0))
        tasks.cancel_scope.cancel()
    ledger.promise("another", Footprint(2**30, 0, 0))
