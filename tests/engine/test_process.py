import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from intelnav.domain.errors import Code, ConfigError, ContentError, EngineError, IntelNavError, PeerError
from intelnav.domain.sampling import Sampling
from intelnav.engine.interface import Forward, Output, SliceSpec
from intelnav.engine.process import SliceProcess, load_slice
from tests.engine.generating import generate
from tests.models import tiny_model

pytestmark = pytest.mark.anyio

ROOM = SliceSpec(Path(), sessions=8, context=256, max_rows=32, device="cpu", threads=1)
PROMPTS = [
    "Once upon a time",
    "The capital of France is",
    "def main():",
    "2, 4, 6, 8,",
    "Dear",
    "I",
    "A B C D",
    "Q:",
]


@pytest.fixture
def tiny(tmp_path: Path) -> SliceSpec:
    """A whole model that loads at once."""
    return replace(ROOM, path=tiny_model(tmp_path / "tiny.gguf", "llama", blocks=2))


@pytest.fixture
async def engine(tiny: SliceSpec) -> AsyncIterator[SliceProcess]:
    async with load_slice(tiny) as engine:
        yield engine


@pytest.fixture
async def chain(slices: list[Path]) -> AsyncIterator[list[SliceProcess]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(load_slice(replace(ROOM, path=path))) for path in slices]


async def test_eight_sessions_at_once_get_what_each_gets_alone(chain: list[SliceProcess]) -> None:
    samplings = [Sampling(), Sampling(seed=3, temperature=0.8, top_k=40)] * 4
    alone = [await generate(chain, *each) for each in zip(PROMPTS, [12] * 8, samplings, strict=True)]
    together = await asyncio.gather(
        *(generate(chain, *each) for each in zip(PROMPTS, [12] * 8, samplings, strict=True))
    )
    assert together == alone
    assert len({tuple(answer) for answer in alone}) == 8


async def test_sequences_are_given_out_lowest_first_and_come_back(engine: SliceProcess) -> None:
    assert [await engine.open(None) for _ in range(8)] == list(range(8))
    with pytest.raises(PeerError, match="all 8 sessions") as refusal:
        await engine.open(None)
    assert refusal.value.code == Code.BUSY
    engine.close(5)
    engine.close(2)
    engine.close(2)
    assert [await engine.open(Sampling()), await engine.open(None)] == [2, 5]
    assert (await engine.forward(Forward(2, 0, 2, tokens=(7, 8), sample_from=0))).tokens


async def test_calls_of_one_sequence_run_in_the_order_in_which_they_were_made(engine: SliceProcess) -> None:
    sequence = await engine.open(Sampling())
    forwards = [Forward(sequence, at, 2, tokens=(at + 5,), sample_from=0) for at in range(40)]
    outputs = await asyncio.gather(*map(engine.forward, forwards))
    assert all(len(output.tokens) == 1 for output in outputs)


async def test_a_bad_call_fails_alone(engine: SliceProcess) -> None:
    sequence = await engine.open(Sampling())
    calls: list[Awaitable[Any]] = [
        engine.forward(Forward(sequence, 0, 2, tokens=(1,) * 33)),
        engine.forward(Forward(sequence, 3, 2, tokens=(1,))),
        engine.forward(Forward(sequence, 0, 2, tokens=(2**31,))),
        engine.forward(Forward(sequence + 1, 0, 2, tokens=(1,))),
        engine.tokenize("\ud800", special=True),
    ]
    good = engine.forward(Forward(sequence, 0, 2, tokens=(1, 2), sample_from=1))
    *refused, output = await asyncio.gather(*calls, good, return_exceptions=True)
    assert [type(each) for each in refused] == [PeerError] * 5
    assert isinstance(output, Output)
    assert len(output.tokens) == 1


async def test_a_cancelled_call_leaves_the_link_in_order(engine: SliceProcess) -> None:
    sequence = await engine.open(Sampling())
    # Held, so that no answer is there before the cancellation is.
    worker = psutil.Process(engine.pid)
    worker.suspend()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await engine.forward(Forward(sequence, 0, 2, tokens=(1, 2, 3), sample_from=0))
    worker.resume()
    output = await engine.forward(Forward(sequence, 0, 2, tokens=(1, 2, 3), truncate_to=0, sample_from=2))
    assert len(output.tokens) == 1
    worker.suspend()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await engine.open(None)
    assert engine.in_use == 1
    worker.resume()


async def test_a_submitted_forward_reports_its_end(engine: SliceProcess) -> None:
    sequence = await engine.open(Sampling())
    ended, results = anyio.Event(), list[Output | IntelNavError]()

    def done(result: Output | IntelNavError) -> None:
        results.append(result)
        if len(results) == 3:
            ended.set()

    engine.submit(Forward(sequence, 0, 2, tokens=(1, 2)), done)
    engine.submit(Forward(sequence, 7, 2, tokens=(3,)), done)
    engine.submit(Forward(sequence, 2, 2, tokens=(3,), sample_from=0), done)
    assert results == []
    await ended.wait()
    assert [type(result) for result in results] == [Output, PeerError, Output]
    os.kill(engine.pid, signal.SIGKILL)
    await engine.died.wait()
    results.clear()
    ended = anyio.Event()
    for _ in range(3):
        engine.submit(Forward(sequence, 3, 2, tokens=(1,)), done)
    assert results == []
    await ended.wait()
    assert [type(result) for result in results] == [EngineError] * 3


async def test_the_text_side(engine: SliceProcess) -> None:
    tokens = await engine.tokenize("<|im_start|>hi", special=True)
    assert b"".join(map(engine.piece, tokens)).strip() == b"hi"
    prompt = await engine.render([{"role": "user", "content": "hi"}])
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("how", "name"),
    [
        (signal.SIGKILL, "SIGKILL"),
        (signal.SIGABRT, "SIGABRT"),
        (signal.SIGRTMIN + 1, str(signal.SIGRTMIN + 1)),
    ],
)
async def test_a_worker_that_dies_fails_every_call_at_once(engine: SliceProcess, how: int, name: str) -> None:
    sequence = await engine.open(Sampling())
    # Stopped, it cannot answer before it is killed.
    os.kill(engine.pid, signal.SIGSTOP)
    calls = [
        engine.forward(Forward(sequence, 0, 2, tokens=(1,))),
        engine.tokenize("a", False),
        engine.open(None),
    ]
    pending = asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    os.kill(engine.pid, how)
    os.kill(engine.pid, signal.SIGCONT)
    errors = await pending
    assert [type(error) for error in errors] == [EngineError] * 3
    assert f"signal {name}" in str(errors[0])
    await engine.died.wait()
    assert engine.death == str(errors[0])
    with pytest.raises(EngineError, match=name):
        await engine.open(None)
    engine.close(sequence)


async def test_a_worker_is_stuck_for_as_long_as_it_owes_an_answer(engine: SliceProcess) -> None:
    assert engine.stuck_for == 0
    os.kill(engine.pid, signal.SIGSTOP)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.open, None)
        await anyio.wait_all_tasks_blocked()
        first = engine.stuck_for
        assert first > 0
        # Another call is no progress.
        tasks.start_soon(engine.open, None)
        await anyio.wait_all_tasks_blocked()
        assert engine.stuck_for > first
        os.kill(engine.pid, signal.SIGCONT)
    assert engine.stuck_for == 0


async def test_a_worker_that_is_given_up_keeps_the_first_reason(tiny: SliceSpec) -> None:
    async with load_slice(tiny) as engine:
        engine.fail("it hangs")
        assert engine.died.is_set()
        with pytest.raises(EngineError, match="it hangs"):
            await engine.open(None)
    assert engine.death == "it hangs"


async def test_a_worker_ends_with_its_context(tiny: SliceSpec) -> None:
    async with load_slice(tiny) as engine:
        worker = psutil.Process(engine.pid)
        assert worker.is_running()
    assert not worker.is_running()
    with pytest.raises(EngineError):
        await engine.tokenize("a", False)


async def test_signals_for_the_node_do_not_end_its_worker(engine: SliceProcess) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(engine.pid, number)
    assert os.getpgid(engine.pid) != os.getpgid(0)
    assert await engine.tokenize("a", False)


PARENT = """
import asyncio, sys
from pathlib import Path
from intelnav.engine.interface import SliceSpec
from intelnav.engine.process import load_slice

async def main():
    async with load_slice(SliceSpec(Path(sys.argv[1]), sessions=1, context=64, max_rows=8)) as engine:
        print(engine.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_worker_dies_with_its_parent(tiny: SliceSpec) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tiny.path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    worker.wait(timeout=10)


async def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.gguf"):
        async with load_slice(replace(ROOM, path=tmp_path / "none.gguf")):
            pass


async def test_a_file_that_is_no_model_never_reaches_llama_cpp(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ContentError, match=r"bad\.gguf"):
        async with load_slice(replace(ROOM, path=path)):
            pass


async def test_a_model_that_llama_cpp_refuses_says_why(tiny: SliceSpec) -> None:
    tiny.path.write_bytes(tiny.path.read_bytes().replace(b"ffn_up", b"ffn_no"))
    with pytest.raises(EngineError, match=r"tiny\.gguf.*ffn_up"):
        async with load_slice(tiny):
            pass


async def test_a_device_that_is_not_there_is_a_config_error(tiny: SliceSpec) -> None:
    with pytest.raises(ConfigError, match=r"metal is not there"):
        async with load_slice(replace(tiny, device="metal")):
            pass


async def test_a_slice_that_cannot_fit_is_refused_before_it_is_loaded(tiny: SliceSpec) -> None:
    with pytest.raises(EngineError, match=r"the slice needs [\d.]+ GiB \(weights 0\.00, caches [\d.]+"):
        async with load_slice(replace(tiny, context=10**9)):
            pass


async def test_what_it_takes_is_known_and_not_exceeded(slices: list[Path]) -> None:
    async with load_slice(replace(ROOM, path=slices[1])) as engine:
        used = psutil.Process(engine.pid).memory_info().rss
        # A middle slice is allowed 150 MB besides its weights and caches; the node itself needs its share of them.
        assert used < engine.info.memory + 60e6
