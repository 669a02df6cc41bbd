"""How far greedy answers over rounded hidden states agree with those of the whole model."""

from statistics import mean
from typing import Any

from intelnav.store.embedded import embedded_model
from tests.bench.baseline import one_process
from tests.bench.results import show
from tests.bench.speed import THREADS, asked, chain

DTYPES = ("f32", "f16", "bf16", "i8")
COUNT = 128
PROMPTS = (
    "Once upon a time, in a village by the sea, there lived",
    "The three laws of thermodynamics can be explained as follows. First,",
    "def quicksort(numbers):\n",
    "The history of the Roman Empire begins with",
    "Dear Sir or Madam,\n\nI am writing to you because",
    "A good recipe for a winter soup needs",
)


def measure() -> dict[str, Any]:
    """For each encoding: how many answers are equal, and how long the others stay equal."""
    with one_process(embedded_model(), THREADS) as whole:
        expected = [whole.run(prompt, COUNT).tokens for prompt in PROMPTS]
    figures = {}
    for dtype in DTYPES:
        with chain(dtype) as running:
            run = asked(running)
            equal = [
                _common(run(p, COUNT).tokens, tokens) for p, tokens in zip(PROMPTS, expected, strict=True)
            ]
        figures[dtype] = {
            "equal_answers": sum(length == COUNT for length in equal),
            "mean_tokens_until_difference": mean(equal),
        }
    show(
        f"Agreement with the whole model ({len(PROMPTS)} greedy answers of {COUNT} tokens)",
        ["wire", "equal answers", "mean tokens up to the first difference"],
        [[dtype, *values.values()] for dtype, values in figures.items()],
    )
    return {"prompts": len(PROMPTS), "tokens": COUNT, "dtypes": figures}


def _common(ours: list[int], theirs: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), len(ours))
