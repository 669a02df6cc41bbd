"""How far answers agree: over rounded hidden states with the whole model, in a batch with alone."""

from itertools import takewhile
from statistics import mean
from typing import Any

from intelnav.store.embedded import embedded_model
from tests.bench import batches
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
    """For each encoding: how many answers are equal, and how long the others stay equal; then `batches`."""
    with one_process(embedded_model(), THREADS) as whole:
        expected = [whole.run(prompt, COUNT).tokens for prompt in PROMPTS]
    figures = {}
    for dtype in DTYPES:
        with chain(dtype) as running:
            run = asked(running)
            answers = [run(prompt, COUNT).tokens for prompt in PROMPTS]
        equal = [_common(ours, theirs) for ours, theirs in zip(answers, expected, strict=True)]
        whole_answers = sum(ours == theirs for ours, theirs in zip(answers, expected, strict=True))
        figures[dtype] = {
            "equal_answers": whole_answers,
            "mean_tokens_until_difference": mean(equal),
            # Each answer that differs gave one differing token after its equal ones.
            "equal_per_token": sum(equal) / (sum(equal) + len(PROMPTS) - whole_answers),
        }
    mean_length = mean(map(len, expected))
    show(
        f"Agreement with the whole model: {len(PROMPTS)} greedy answers of {mean_length:.0f} tokens on average",
        ["wire", "equal answers", "tokens before the first difference", "equal per token"],
        [[dtype, *values.values()] for dtype, values in figures.items()],
    )
    return {
        "prompts": len(PROMPTS),
        "mean_tokens": mean_length,
        "dtypes": figures,
        "batches": batches.measure(),
    }


def _common(ours: list[int], theirs: list[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
