"""What a hop costs beyond its layers, in microseconds for one token, and where it goes."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import numpy as np
from intelnav.engine.process import start_slice

from intelnav.domain.hidden import Dtype
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import Forward, SliceSpec
from intelnav.engine.tensor import decode as to_rows
from intelnav.engine.tensor import encode as to_state
from intelnav.store.cut import cut
from intelnav.store.embedded import embedded_model
from intelnav.wire.codec import decode, encode
from intelnav.wire.messages import ForwardHidden
from tests.bench.baseline import one_process
from tests.bench.loopback import half_trip
from tests.bench.results import show
from tests.bench.speed import DECODED, ROUNDS, STORY, THREADS, asked, chain
from tests.wire.pairs import connect

WIDTH = 576
MIDDLE = LayerRange(8, 15)
REPEATS = 2000
FORWARDS = 200


def measure() -> dict[str, Any]:
    """The total from paired runs, the parts from the real functions alone."""
    total, kept = _ring()
    parts = {
        "worker: pipe and queue": _worker_link(),
        "worker: f16 to f32 and back": _tensors(),
        "encode and decode": _codec(),
        "seal and unseal": _sealing() - _codec(),
        "loopback and event loop": half_trip(len(connect().left.send(_message()))),
    }
    figures = parts | {"caches, scheduling, the rest": total - sum(parts.values())}
    rows = [["overhead of a hop", total], *([f"  {name}", value] for name, value in figures.items())]
    show("Where a hop's time goes (µs a token)", ["", "µs"], [*rows, ["a stage keeps a token for", kept]])
    return {"total": total, "stage": kept, "parts": figures}


def _ring() -> tuple[float, float]:
    """Microseconds that a hop adds to one process's time for a token, and that a stage keeps a token on average."""
    overheads, kept = [], []
    with ExitStack() as stack:
        whole = stack.enter_context(one_process(embedded_model(), THREADS))
        running = stack.enter_context(chain())
        run = asked(running)
        run(STORY, 8)
        for _ in range(ROUNDS):
            alone, together = whole.run(STORY, DECODED), run(STORY, DECODED)
            stages = running.complete(STORY, max_tokens=8).chain
            overheads.append((together.decode - alone.decode) / (DECODED - 1) / len(stages))
            kept.append(sum(stage["milliseconds"] for stage in stages) / len(stages))
    return 1e6 * median(overheads), 1e3 * median(kept)


def _micros(call: Callable[[], object]) -> float:
    """Median microseconds of one call."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return median(times) / 1000


def _message() -> ForwardHidden:
    rows = np.random.default_rng(0).standard_normal((1, WIDTH)).astype(np.float32)
    return ForwardHidden(bytes(16), 100, 100, to_state(rows, Dtype.F16), None, 0, (3000, 3000))


def _tensors() -> float:
    state = _message().state
    return _micros(lambda: to_state(to_rows(state), Dtype.F16))


def _codec() -> float:
    message = _message()
    body = b"".join(encode(message))
    return _micros(lambda: encode(message)) + _micros(lambda: decode(body))


def _sealing() -> float:
    """A message through both ends of a channel: codec, frames and cipher."""
    message = _message()
    pair = connect()
    return _micros(lambda: pair.right.receive(pair.left.send(message)))


def _worker_link() -> float:
    """What a forward takes from call to result, less what the decode itself took."""

    async def measure(path: Path) -> float:
        spec = SliceSpec(path, sessions=1, context=512, threads=THREADS, device="cpu")
        async with start_slice(spec) as engine:
            sequence = await engine.open(None)
            times: list[float] = []
            for position in range(FORWARDS):
                forward = Forward(sequence, position, MIDDLE.end, hidden=_message().state, reply=Dtype.F16)
                start = time.perf_counter_ns()
                output = await engine.forward(forward)
                times.append((time.perf_counter_ns() - start) / 1000 - output.micros)
            return median(times)

    with TemporaryDirectory() as folder:
        path = Path(folder, "middle.gguf")
        cut(embedded_model(), MIDDLE, path, "bench")
        return anyio.run(measure, path, backend_options={"use_uvloop": True})
