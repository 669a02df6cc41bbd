"""Keepers of a tiny model, with real workers."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import pytest
from httpx import AsyncClient

from intelnav.controller import keeper as module
from intelnav.controller.keeper import SliceKeeper, WantedSlice
from intelnav.controller.ledger import MemoryLedger
from intelnav.controller.shelf import Shelf
from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError, ContentError, EngineError
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import Footprint
from intelnav.engine.interface import SliceSpec
from intelnav.engine.process import SliceProcess
from intelnav.store.blobs import Store
from intelnav.store.catalog import shipped_catalog
from intelnav.store.cut import cut
from intelnav.store.manifest import manifest_of
from tests.models import tiny_model

pytestmark = pytest.mark.anyio

LAYERS = LayerRange(1, 3)
DEADLINE = 20


class Nobody:
    """No peer gives out anything."""

    async def chunk_servers(self, model: str) -> Sequence[Address]:
        return []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model of four blocks."""
    return tiny_model(tmp_path / "tiny.gguf", "llama", blocks=4)


@pytest.fixture
def wanted(source: Path) -> WantedSlice:
    """Its middle."""
    return wanting(source, LAYERS)


@pytest.fixture
def gone(source: Path, wanted: WantedSlice) -> WantedSlice:
    """A slice of a file that is no longer there."""
    source.unlink()
    return wanted


def wanting(source: Path, layers: LayerRange | None) -> WantedSlice:
    room = SliceSpec(Path(), sessions=2, context=64, max_rows=8, device="cpu", threads=1)
    return WantedSlice(ModelRef("path", str(source)), "tiny", layers, room)


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    with Store.open(tmp_path / "store", None) as store:
        async with AsyncClient() as client:
            yield Shelf(store, shipped_catalog(), Nobody(), client, None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries that follow one another at once."""
    monkeypatch.setattr(module, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.05)


@asynccontextmanager
async def running(wanted: WantedSlice, shelf: Shelf) -> AsyncIterator[SliceKeeper]:
    kept = SliceKeeper(wanted, shelf, MemoryLedger.of_machine(), lambda: None)
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


async def file_of(wanted: WantedSlice, shelf: Shelf) -> Path:
    model = await shelf.find(wanted.model)
    assert wanted.layers is not None
    return await shelf.put(model, wanted.layers, lambda _doing, _progress: None)


async def test_a_slice_is_put_together_once(wanted: WantedSlice, shelf: Shelf) -> None:
    path = await file_of(wanted, shelf)
    first = path.stat()
    assert await file_of(wanted, shelf) == path
    assert path.stat().st_ino == first.st_ino


async def test_a_file_with_just_these_layers_is_loaded_in_place(
    tmp_path: Path, source: Path, wanted: WantedSlice, shelf: Shelf
) -> None:
    assert await file_of(wanting(source, LayerRange(0, 4)), shelf) == source
    piece = tmp_path / "piece.gguf"
    cut(source, LAYERS, piece, manifest_of(source).cid)
    assert await file_of(wanting(piece, LAYERS), shelf) == piece
    assert (await shelf.find(wanting(piece, LAYERS).model)).cid == manifest_of(source).cid
    with pytest.raises(ConfigError, match=r"just layers 1\.\.3"):
        await file_of(wanting(piece, LayerRange(1, 2)), shelf)


async def test_a_slice_from_the_store_is_the_one_that_is_cut_from_the_file(
    tmp_path: Path, source: Path, wanted: WantedSlice, shelf: Shelf
) -> None:
    cut(source, LAYERS, tmp_path / "cut.gguf", manifest_of(source).cid)
    assert (await file_of(wanted, shelf)).read_bytes() == (tmp_path / "cut.gguf").read_bytes()


@pytest.mark.parametrize("layers", [LayerRange(0, 3), LayerRange(0, 2)])
async def test_an_architecture_that_is_not_proven_is_refused_whole_and_cut(
    tmp_path: Path, shelf: Shelf, layers: LayerRange
) -> None:
    source = tiny_model(tmp_path / "olmo2.gguf", "olmo2", blocks=3)
    with pytest.raises(ContentError, match="'olmo2'"):
        await file_of(wanting(source, layers), shelf)


async def test_the_last_layer_is_found_wherever_it_is(source: Path, shelf: Shelf) -> None:
    async with running(wanting(source, None), shelf) as kept:
        assert str(kept) == "layers (the last) of tiny"
        engine = await ready(kept)
        assert engine.info.layers == LayerRange(3, 4)
        assert kept.cid() == manifest_of(source).cid


async def test_a_slice_is_loaded_and_ends_with_its_keeper(wanted: WantedSlice, shelf: Shelf) -> None:
    async with running(wanted, shelf) as kept:
        with pytest.raises(EngineError, match=r"layers 1\.\.3 of tiny are pending"):
            kept.engine()
        engine = await ready(kept)
        assert engine.info.layers == LAYERS
        worker = psutil.Process(engine.pid)
    assert not worker.is_running()
    with pytest.raises(EngineError, match="are stopped"):
        kept.engine()


async def test_a_worker_that_is_killed_is_started_again(
    wanted: WantedSlice, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY", 0.2)
    async with running(wanted, shelf) as kept:
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
    wanted: WantedSlice, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.3)
    async with running(wanted, shelf) as kept:
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
    gone: WantedSlice, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LAST_RETRY", 0.03)
    async with running(gone, shelf) as kept:
        await until(lambda: kept.failures > 3)
        assert kept.state in ("failed", "pending")
        assert "tiny.gguf" in kept.reason
    pauses = [record.args[1] for record in caplog.records if isinstance(record.args, tuple)]
    assert pauses[:4] == [0.01, 0.02, 0.03, 0.03]


async def test_failures_are_forgotten_after_a_healthy_while(
    wanted: WantedSlice, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEALTHY_SECONDS", 0)
    async with running(wanted, shelf) as kept:
        for _ in range(2):
            engine = await ready(kept)
            os.kill(engine.pid, signal.SIGKILL)
            await engine.died.wait()
            await until(lambda: kept.failures == 1 and kept.state != "ready")


@pytest.mark.parametrize("layers", [LAYERS, LayerRange(0, 4)])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_a_hostile_file_is_a_reason_and_no_crash(
    source: Path, shelf: Shelf, layers: LayerRange, number: float
) -> None:
    extra = {"attention.head_count": [number] * 4}
    source = tiny_model(source.with_name("hostile.gguf"), "llama", blocks=4, extra=extra)
    async with running(wanting(source, layers), shelf) as kept:
        await until(lambda: kept.failures > 0)
        assert "llama.attention.head_count must hold 4" in kept.reason


async def test_a_slice_beside_others_that_fill_the_machine_waits(wanted: WantedSlice, shelf: Shelf) -> None:
    ledger = MemoryLedger(2**30)
    ledger.promise("another", Footprint(2**30, 0, 0))
    kept = SliceKeeper(wanted, shelf, ledger, lambda: None)
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
