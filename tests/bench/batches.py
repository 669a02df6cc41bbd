"""Whether a row's numbers depend on what else is in its batch: eight sequences at once against each alone."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intelnav.domain.hidden import Dtype
from intelnav.engine import tensor
from intelnav.engine.interface import Forward, Output, SliceSpec
from intelnav.engine.llama import LlamaSlice
from intelnav.engine.tensor import Rows
from intelnav.store.embedded import embedded_model
from tests.bench.results import show
from tests.models import tiny_model

SEQUENCES = 8
STEPS = 32


def measure() -> dict[str, Any]:
    """For each model: the share of hidden states that are equal bit for bit, and how far the others are off."""
    with TemporaryDirectory() as folder:
        models = {
            f"tiny {architecture}, {'Q5_0' if quantised else 'F32'}": tiny_model(
                Path(folder, f"{architecture}-{quantised}.gguf"), architecture, quantised=quantised
            )
            for architecture in ("gemma3", "qwen2")
            for quantised in (False, True)
        }
        figures = {
            name: _dependence(path) for name, path in {"SmolLM2, Q4_1": embedded_model(), **models}.items()
        }
    show(
        f"Hidden states of {SEQUENCES} sequences at once, against each alone ({STEPS} tokens)",
        ["model", "equal", "largest difference ÷ largest value"],
        [[name, *values.values()] for name, values in figures.items()],
    )
    return figures


def _dependence(path: Path) -> dict[str, float]:
    loaded = LlamaSlice(SliceSpec(path, SEQUENCES, context=256, max_rows=32), gpus=(), threads=1)
    tokens = np.random.default_rng(0).integers(0, loaded.info.vocabulary, (STEPS, SEQUENCES))
    together = _decode(loaded, tokens, [list(range(SEQUENCES))])
    alone = _decode(loaded, tokens, [[sequence] for sequence in range(SEQUENCES)])
    equal = (together == alone).all(axis=-1)
    return {
        "equal_rows": float(equal.mean()),
        "largest_difference": float(np.abs(together - alone).max() / np.abs(alone).max()),
    }


def _decode(loaded: LlamaSlice, tokens: NDArray[np.int64], groups: list[list[int]]) -> Rows:
    """Steps x sequences x width: what leaves the last layer but one, with each of `groups` as one decode."""
    states = np.empty((*tokens.shape, loaded.info.width), np.float32)
    for sequence in range(SEQUENCES):
        loaded.open(sequence, None)
    for step, row in enumerate(tokens):
        for group in groups:
            forwards = [
                Forward(n, step, loaded.info.blocks - 1, tokens=(int(row[n]),), reply=Dtype.F32)
                for n in group
            ]
            for sequence, output in zip(group, loaded.forward(forwards), strict=True):
                if not isinstance(output, Output) or output.hidden is None:
                    raise SystemExit(f"a forward failed: {output}")
                states[step, sequence] = tensor.decode(output.hidden)
    for sequence in range(SEQUENCES):
        loaded.close(sequence)
    return states
