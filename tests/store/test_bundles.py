from pathlib import Path

import pytest

from intelnav.store.bundles import bundle_names, bundle_of, bundles_of
from intelnav.store.gguf import Tensor, padded
from intelnav.store.model_file import describe
from intelnav.store.tensor_types import TensorType


@pytest.mark.parametrize(
    ("tensor", "bundle"),
    [
        ("rope_freqs.weight", "common"),
        ("rope_factors_long.weight", "common"),
        ("token_embd.weight", "embed"),
        ("blk.3.attn_q.weight", "blk.3"),
        ("output_norm.weight", "head"),
        ("output_norm.bias", "head"),
        ("output.weight", "head"),
    ],
)
def test_every_tensor_has_its_bundle(tensor: str, bundle: str) -> None:
    assert bundle_of(Tensor(tensor, (1,), TensorType.F32, 0, 4)) == bundle


def test_bundles_hold_each_tensor_of_a_model_once(tiny: Path) -> None:
    model = describe(tiny)
    bundles = bundles_of(model)
    assert [bundle.name for bundle in bundles] == bundle_names(6)
    found = [tensor for bundle in bundles for tensor in bundle.tensors]
    assert sorted(found, key=lambda tensor: tensor.offset) == list(model.header.tensors)
    for bundle in bundles:
        assert bundle.size == sum(padded(tensor.size, 32) for tensor in bundle.tensors)
