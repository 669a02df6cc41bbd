from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.architectures import rules_of, slice_hyperparameters
from intelnav.store.model_file import describe
from tests.models import WINDOW, tiny_model


def cut_keys(path: Path, layers: str) -> dict[str, Sequence[int | float | bool]]:
    model = describe(path)
    keys = slice_hyperparameters(model.header, model.architecture, model.blocks, LayerRange.parse(layers))
    assert all(key.startswith(f"{model.architecture}.") for key in keys)
    return {key.partition(".")[2]: value.items for key, value in keys.items()}


def test_another_architecture_is_refused_by_name() -> None:
    with pytest.raises(ContentError, match=r"'mamba' cannot be cut; supported are exaone, .*llama"):
        rules_of("mamba")


def test_the_block_count_is_that_of_the_slice(tiny: Path) -> None:
    assert cut_keys(tiny, "1..5")["block_count"] == [4]


def test_arrays_with_one_element_per_layer_are_cut(tmp_path: Path) -> None:
    extra = {"attention.head_count_kv": [2, 1, 2, 1, 2, 1], "feed_forward_length": [1, 2, 3, 4, 5, 6]}
    path = tiny_model(tmp_path / "m.gguf", extra=extra)
    keys = cut_keys(path, "1..4")
    assert keys["attention.head_count_kv"] == [1, 2, 1]
    assert keys["feed_forward_length"] == [2, 3, 4]
    assert keys["attention.head_count"] == [4]


def test_an_array_for_another_number_of_layers_is_refused(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", extra={"feed_forward_length": [1, 2, 3]})
    with pytest.raises(ContentError, match=r"llama\.feed_forward_length must hold 6 whole numbers"):
        cut_keys(path, "0..2")


@pytest.mark.parametrize(
    ("architecture", "pattern", "layers", "windowed"),
    [
        ("gemma2", None, "1..4", [False, True, False]),
        ("gemma3", None, "4..8", [True, False, True, True]),
        ("gemma3", 3, "2..5", [False, True, True]),
        ("gemma3", 0, "0..3", [True, True, True]),
        ("gemma3", [False, True, True, False, False, True, True, False], "1..5", [True, True, False, False]),
    ],
)
def test_an_implicit_pattern_is_written_out(
    tmp_path: Path, architecture: str, pattern: Any, layers: str, windowed: list[bool]
) -> None:
    keys = cut_keys(tiny_model(tmp_path / "m.gguf", architecture, blocks=8, pattern=pattern), layers)
    assert keys["attention.sliding_window_pattern"] == windowed
    assert keys["attention.sliding_window"] == [WINDOW]


def test_a_slice_without_windows_turns_them_off(tmp_path: Path) -> None:
    keys = cut_keys(tiny_model(tmp_path / "m.gguf", "gemma3", blocks=8), "5..6")
    assert keys["attention.sliding_window"] == [0]


def test_where_windows_cannot_be_off_they_have_no_end(tmp_path: Path) -> None:
    keys = cut_keys(tiny_model(tmp_path / "m.gguf", "gemma2"), "3..4")
    assert keys["attention.sliding_window"] == [1 << 20]
    assert keys["attention.sliding_window_pattern"] == [True]
    assert keys["rope.freq_base_swa"] == keys["rope.freq_base"]


def test_only_a_front_slice_scales_embeddings(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf", "granite")
    assert cut_keys(path, "0..2")["embedding_scale"] == [3.0]
    assert "embedding_scale" not in cut_keys(path, "2..6")


@pytest.mark.parametrize(
    "key", ["leading_dense_block_count", "nextn_predict_layers", "full_attention_interval"]
)
def test_what_counts_layers_without_a_rule_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ContentError, match=rf"llama\.{key} depends on layer numbers"):
        cut_keys(tiny_model(tmp_path / "m.gguf", extra={key: 1}), "0..2")
    assert key in cut_keys(tiny_model(tmp_path / "n.gguf", extra={key: 0}), "0..2")


@pytest.mark.parametrize("pattern", [float("nan"), "3", [0.5] * 6])
def test_a_pattern_that_is_no_whole_number_is_refused(tmp_path: Path, pattern: Any) -> None:
    with pytest.raises(ContentError, match=r"gemma3\.attention\.sliding_window_pattern.* must hold"):
        cut_keys(tiny_model(tmp_path / "m.gguf", "gemma3", pattern=pattern), "0..2")


@pytest.mark.parametrize(("architecture", "blocks"), [("gemma2", 46), ("gemma3", 62)])
def test_a_model_whose_attention_scale_hangs_on_its_block_count_is_refused(
    tmp_path: Path, architecture: str, blocks: int
) -> None:
    extra = {"attention.key_length": 32, "attention.value_length": 32}
    odd = tiny_model(tmp_path / "odd.gguf", architecture, blocks=blocks, extra=extra)
    with pytest.raises(
        ContentError, match=f"llama.cpp chooses the attention scale by whether there are {blocks}"
    ):
        cut_keys(odd, "0..4")
    longer = tiny_model(tmp_path / "longer.gguf", architecture, blocks=blocks + 2, extra=extra)
    with pytest.raises(ContentError, match=f"cannot be cut to {blocks} of its {blocks + 2} blocks"):
        cut_keys(longer, f"0..{blocks}")
    assert cut_keys(longer, "0..4")["block_count"] == [4]
