import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import anyio
import psutil
import pytest

from intelnav.domain.errors import IntelNavError
from intelnav.domain.sampling import Sampling
from intelnav.engine import worker
from intelnav.engine.footprint import footprint
from intelnav.engine.interface import Forward, Output, SliceSpec
from intelnav.engine.link import FrameReader, pack_load, unpack_info, write_frame
from intelnav.engine.process import load_slice
from intelnav.store.model_file import describe
from tests.models import tiny_model

pytestmark = pytest.mark.anyio

ROOM = SliceSpec(Path(), sessions=8, context=64, max_rows=8, device="cpu", threads=1)


@pytest.mark.parametrize("spec", [ROOM, replace(ROOM, device="cuda", gpu_layers=0)])
def test_a_slice_for_the_cpu_leaves_gpus_alone(
    spec: SliceSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> NoReturn:
        raise AssertionError("to ask a GPU takes memory there")

    monkeypatch.setattr(worker, "gpus", asked)
    path = tiny_model(tmp_path / "tiny.gguf", "llama", blocks=2)
    ours, theirs = socket.socketpair()
    with ours:
        need = footprint(describe(path), spec)
        load = {"call": "load", **pack_load(replace(spec, path=path), need, 2)}
        theirs.sendall(write_frame(0, load))
        theirs.shutdown(socket.SHUT_WR)
        worker.Worker(ours).run()
    with theirs:
        ((_, fields, _),) = FrameReader().feed(theirs.recv(2**16))
    assert isinstance(fields, dict)
    assert "/cpu/" in unpack_info(fields).engine_class


async def test_forwards_that_wait_are_one_decode(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny.gguf", "llama", blocks=2)
    async with load_slice(replace(ROOM, path=path)) as engine:
        sequences = [await engine.open(Sampling()) for _ in range(8)]
        results: dict[int, Output | IntelNavError] = {}
        finished = anyio.Event()

        def submit(sequence: int, rows: int, position: int) -> None:
            def done(result: Output | IntelNavError) -> None:
                results[sequence] = result
                if len(results) == 8:
                    finished.set()

            engine.submit(Forward(sequence, position, 2, tokens=(5,) * rows, sample_from=0), done)

        process = psutil.Process(engine.pid)
        process.suspend()
        while process.status() != psutil.STATUS_STOPPED:
            os.sched_yield()
        for sequence in sequences:
            submit(sequence, rows=2 if sequence == 3 else 1, position=1 if sequence == 6 else 0)
        # The loop writes what was submitted at the end of its turn.
        await anyio.wait_all_tasks_blocked()
        process.resume()
        await finished.wait()
        # The seventh breaks a rule, the fourth has another shape; the others say that they took the same time.
        assert isinstance(results.pop(6), IntelNavError)
        odd = results.pop(3)
        assert isinstance(odd, Output)
        assert len(odd.tokens) == 2
        outputs = [result for result in results.values() if isinstance(result, Output)]
        assert len(outputs) == 6
        assert len({(output.tokens, output.micros) for output in outputs}) == 1
