"""What is shown where the installed llama.cpp offers a GPU; elsewhere these tests are skipped, and say so."""

import json
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from intelnav.domain.errors import EngineError
from intelnav.domain.sampling import Sampling
from intelnav.engine.interface import SliceSpec
from intelnav.engine.process import load_slice
from tests.engine.generating import generate

pytestmark = pytest.mark.anyio

PROMPTS = ["The capital of France is", "Once upon a time, in a village by the sea, there lived"]
ON_GPU = SliceSpec(Path(), sessions=2, context=256, max_rows=32, threads=1)
ON_CPU = replace(ON_GPU, device="cpu")


@pytest.fixture(autouse=True, scope="module")
def gpu() -> str:
    """The backend of the first GPU."""
    probe = [sys.executable, "-P", "-m", "intelnav.engine.llama", "auto"]
    report = json.loads(subprocess.run(probe, check=True, capture_output=True, text=True).stdout)
    if not report["gpus"]:
        pytest.skip("the installed llama.cpp offers no GPU here")
    backend: str = report["gpus"][0]["backend"]
    return backend


async def answers(spec: SliceSpec, paths: list[Path]) -> tuple[str, list[list[int]]]:
    """What a chain of these files says, and the engine class of its first slice."""
    async with AsyncExitStack() as stack:
        chain = [await stack.enter_async_context(load_slice(replace(spec, path=path))) for path in paths]
        said = [await generate(chain, prompt, 32, Sampling()) for prompt in PROMPTS]
        return chain[0].info.engine_class, said


async def test_slices_on_a_gpu_say_what_the_whole_model_says_there(
    gpu: str, smollm2: Path, slices: list[Path]
) -> None:
    engine_class, said = await answers(ON_GPU, slices)
    assert f"/{gpu}/" in engine_class
    assert (engine_class, said) == await answers(ON_GPU, [smollm2])


async def test_no_layers_on_the_gpu_is_the_cpu(slices: list[Path]) -> None:
    assert await answers(replace(ON_GPU, gpu_layers=0), slices) == await answers(ON_CPU, slices)


async def test_some_layers_on_the_gpu_are_another_engine_class(gpu: str, slices: list[Path]) -> None:
    some, all_of_them = [(await answers(replace(ON_GPU, gpu_layers=n), slices))[0] for n in (2, -1)]
    assert f"/{gpu}/" in some
    assert some != all_of_them


async def test_what_does_not_fit_the_gpu_is_refused(smollm2: Path) -> None:
    with pytest.raises(EngineError, match=r"GiB on the GPU, where .* are free"):
        async with load_slice(replace(ON_GPU, path=smollm2, sessions=8192, context=8192)):
            pass
