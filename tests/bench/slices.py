"""What our worker adds to one forward of a middle slice."""

import ctypes
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import anyio
import llama_cpp

from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.slice import LayerRange
from intelnav.engine import tensor
from intelnav.engine.interface import Forward, SliceSpec
from intelnav.engine.process import load_slice
from intelnav.store.cut import cut
from intelnav.store.embedded import embedded_model
from intelnav.store.manifest import manifest_of

LAYERS = LayerRange(8, 15)
CONTEXT = 512
FORWARDS = 300

_silent = llama_cpp.llama_log_callback(lambda _level, _text, _user: None)


def slice_overheads(state: HiddenState) -> tuple[float, float]:
    """Microseconds of one row: the way to the worker and back, and what reading out its layers' output costs.

    The second is a difference to llama.cpp alone on the same file, which computes an (empty) head besides.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "middle.gguf")
        cut(embedded_model(), LAYERS, path, manifest_of(embedded_model()).cid)
        return anyio.run(_measure, path, state, backend_options={"use_uvloop": True})


async def _measure(path: Path, state: HiddenState) -> tuple[float, float]:
    plain = _Plain(path, state)
    spec = SliceSpec(path, sessions=1, context=CONTEXT, threads=1, device="cpu")
    around: list[float] = []
    reading: list[float] = []
    async with load_slice(spec) as engine:
        sequence = await engine.open(None)
        for position in range(FORWARDS):
            forward = Forward(sequence, position, LAYERS.end, hidden=state, reply=Dtype.F16)
            start = time.perf_counter_ns()
            output = await engine.forward(forward)
            around.append((time.perf_counter_ns() - start) / 1000 - output.micros)
            # In turn, so that both have the same neighbours on the machine.
            reading.append(output.micros - plain.micros(position))
    return median(around), median(reading)


class _Plain:
    """The slice in llama.cpp alone."""

    def __init__(self, path: Path, state: HiddenState) -> None:
        llama_cpp.llama_log_set(_silent, None)
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = False
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = CONTEXT
        settings.n_threads = settings.n_threads_batch = 1
        self._context = llama_cpp.llama_init_from_model(model, settings)
        self._batch = llama_cpp.llama_batch_init(1, state.width, 1)
        self._batch.n_tokens = self._batch.n_seq_id[0] = self._batch.logits[0] = 1
        self._batch.seq_id[0][0] = 0
        rows = tensor.decode(state)
        ctypes.memmove(self._batch.embd, rows.ctypes.data, rows.nbytes)

    def micros(self, position: int) -> float:
        """What a decode of the row takes."""
        self._batch.pos[0] = position
        start = time.perf_counter_ns()
        if llama_cpp.llama_decode(self._context, self._batch) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(self._context)
        return (time.perf_counter_ns() - start) / 1000
