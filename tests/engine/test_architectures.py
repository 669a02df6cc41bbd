"""The proof behind store/architectures.py: slices one after another compute what the whole model does, bit for bit."""

from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import Forward, Output, SliceSpec
from intelnav.engine.llama import LlamaSlice
from intelnav.store.architectures import ARCHITECTURES, Architecture
from intelnav.store.cut import cut
from tests.engine.looping import looped
from tests.models import WINDOW, tiny_model
from tests.reference import PlainLlama, Rows, logits_of

CID = "b3-" + "a" * 52
CONTEXT = 64
# Three windows long, so that a layer with a window differs from one without.
PREFILL = 3 * WINDOW
STEPS = 5


@dataclass(frozen=True)
class Variant:
    """A kind of model; `options` are those of `tiny_model`."""

    architecture: str
    blocks: int = 6
    options: dict[str, Any] = field(default_factory=dict)


VARIANTS = {
    "exaone": Variant("exaone"),
    "falcon": Variant("falcon"),
    "gemma": Variant("gemma"),
    "gemma2": Variant("gemma2"),
    "gemma2 with its pattern in the metadata": Variant("gemma2", options={"pattern": 3}),
    "gemma3": Variant("gemma3", blocks=8),
    "gemma3 tied": Variant("gemma3", options={"tied": True, "pattern": 2}),
    "gemma3 with an irregular pattern": Variant(
        "gemma3", options={"pattern": [True, False, False, True, True, False]}
    ),
    "gemma3 without windows": Variant(
        "gemma3", blocks=4, options={"extra": {"attention.sliding_window": None}}
    ),
    "granite": Variant("granite"),
    "internlm2": Variant("internlm2"),
    "llama untied": Variant("llama"),
    "llama tied": Variant("llama", options={"tied": True}),
    "llama with rope_freqs": Variant("llama", options={"rope_freqs": True}),
    "llama with experts": Variant("llama", options={"experts": True}),
    "llama quantised": Variant("llama", options={"quantised": True}),
    "llama quantised and tied": Variant("llama", options={"quantised": True, "tied": True}),
    "llama with arrays": Variant(
        "llama",
        blocks=3,
        options={"extra": {"attention.head_count_kv": [2, 2, 2], "feed_forward_length": [96] * 3}},
    ),
    "olmoe": Variant("olmoe"),
    "phi3": Variant("phi3"),
    "phi3 with rope factors": Variant("phi3", options={"rope_factors": True}),
    "qwen2": Variant("qwen2"),
    "qwen2 tied": Variant("qwen2", options={"tied": True}),
    "qwen2moe": Variant("qwen2moe"),
    "qwen3": Variant("qwen3"),
    "qwen3 tied": Variant("qwen3", options={"tied": True}),
    "qwen3moe": Variant("qwen3moe"),
    "stablelm": Variant("stablelm"),
    "starcoder2": Variant("starcoder2"),
}


class Chain:
    """The slices of one model, each cut and loaded once."""

    def __init__(self, source: Path, blocks: int) -> None:
        self._source = source
        self._blocks = blocks
        self._slices: dict[LayerRange, LlamaSlice] = {}

    def close(self) -> None:
        """Free what a worker process would give back by ending."""
        for loaded in self._slices.values():
            llama_cpp.llama_free(loaded._context)
            llama_cpp.llama_model_free(loaded._model.handle)

    def run(self, cuts: tuple[int, ...], tokens: list[int]) -> list[Rows]:
        """The logits of a prefill and of each step after it, computed by the slices between `cuts`."""
        stages = [self._slice(LayerRange(start, end)) for start, end in pairwise((0, *cuts, self._blocks))]
        for stage in stages:
            stage.open(0, Sampling() if stage.info.is_tail else None)
        outputs = [self._forward(stages, tokens[:PREFILL], 0)]
        outputs += [self._forward(stages, [token], at) for at, token in enumerate(tokens[PREFILL:], PREFILL)]
        for stage in stages:
            stage.close(0)
        return outputs

    def _forward(self, stages: list[LlamaSlice], tokens: list[int], position: int) -> Rows:
        hidden: HiddenState | None = None
        for stage in stages:
            forward = Forward(
                sequence=0,
                position=position,
                stop=stage.info.layers.end,
                tokens=() if hidden else tuple(tokens),
                hidden=hidden,
                sample_from=0 if stage.info.is_tail else None,
                reply=None if stage.info.is_tail else Dtype.F32,
            )
            # As in a worker: single tokens are the compiled loop's.
            output = looped(stage, forward) if len(tokens) == 1 else stage.forward([forward])[0]
            assert isinstance(output, Output), output
            hidden = output.hidden
        tail = stages[-1]
        # A slice gives away tokens; the logits that they come from are compared.
        return logits_of(tail._context, len(tokens), tail.info.vocabulary)

    def _slice(self, layers: LayerRange) -> LlamaSlice:
        if layers not in self._slices:
            path = self._source.with_name(f"{layers}.gguf")
            cut(self._source, layers, path, CID)
            spec = SliceSpec(path, sessions=1, context=CONTEXT, max_rows=PREFILL, device="cpu")
            self._slices[layers] = LlamaSlice(spec, gpus=(), threads=1)
        return self._slices[layers]


def reference(source: Path, tokens: list[int]) -> list[Rows]:
    """What the whole model gives for a prefill and the steps after it."""
    whole = PlainLlama(source, CONTEXT)
    outputs = [whole.forward(tokens[:PREFILL], 0)]
    outputs += [whole.forward([token], at) for at, token in enumerate(tokens[PREFILL:], PREFILL)]
    whole.close()
    return outputs


def make(variant: Variant, folder: Path) -> tuple[Path, list[int]]:
    source = tiny_model(folder / "whole.gguf", variant.architecture, blocks=variant.blocks, **variant.options)
    tokens = np.random.default_rng(7).integers(5, 250, PREFILL + STEPS).tolist()
    return source, tokens


def equal(ours: list[Rows], theirs: list[Rows]) -> bool:
    return all(np.array_equal(left, right) for left, right in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_chain_of_slices_is_the_whole_model(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    source, tokens = make(variant, tmp_path)
    expected = reference(source, tokens)
    assert expected[0].std() > 0.1
    chain = Chain(source, variant.blocks)
    boundaries = range(1, variant.blocks)
    for cuts in [*combinations(boundaries, 1), *combinations(boundaries, 2)]:
        assert equal(chain.run(cuts, tokens), expected), f"cut at {cuts}"
    chain.close()


def test_every_supported_architecture_is_proven() -> None:
    assert {variant.architecture for variant in VARIANTS.values()} == set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("rules", "cuts"),
    [
        (Architecture("gemma3"), (1,)),
        (Architecture("granite"), (2,)),
    ],
)
def test_without_its_rule_a_slice_computes_something_else(
    rules: Architecture, cuts: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, rules.name, rules)
    source, tokens = make(Variant(rules.name), tmp_path)
    chain = Chain(source, 6)
    assert not equal(chain.run(cuts, tokens), reference(source, tokens))
    chain.close()
