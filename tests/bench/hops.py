"""What a hop costs beyond its layers, in microseconds for one token, and where it goes."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import Any

import numpy as np

from intelnav.domain.hidden import Dtype
from intelnav.engine import tensor
from intelnav.store.embedded import embedded_model
from intelnav.wire.codec import decode, encode
from intelnav.wire.messages import ForwardHidden
from tests.bench.baseline import one_process
from tests.bench.loopback import half_trip
from tests.bench.results import show
from tests.bench.slices import slice_overheads
from tests.bench.speed import DECODED, ROUNDS, STORY, THREADS, WARM_UP, asked, chain
from tests.wire.pairs import connect

WIDTH = 576
REPEATS = 2000


def measure() -> dict[str, Any]:
    """The total from paired runs, the parts from the real functions alone."""
    total, kept = _ring()
    message = _message()
    around, reading = slice_overheads(message.state)
    codec = _codec(message)
    parts = {
        "to the worker and back": around,
        "reading activations out of the graph": reading,
        "encoding and decoding messages": codec,
        "sealing and unsealing them": _sealed_codec(message) - codec,
        "loopback and event loop": half_trip(len(connect().left.send(message))),
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
        for _ in range(ROUNDS):
            whole.run(STORY, WARM_UP)
            alone = whole.run(STORY, DECODED)
            run(STORY, WARM_UP)
            together = run(STORY, DECODED)
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
    return ForwardHidden(bytes(16), 100, 100, tensor.encode(rows, Dtype.F16), None, 0, (3000, 3000))


def _codec(message: ForwardHidden) -> float:
    body = b"".join(encode(message))
    return _micros(lambda: encode(message)) + _micros(lambda: decode(body))


def _sealed_codec(message: ForwardHidden) -> float:
    """A message through both ends of a channel: codec, frames and cipher."""
    pair = connect()
    return _micros(lambda: pair.right.receive(pair.left.send(message)))
