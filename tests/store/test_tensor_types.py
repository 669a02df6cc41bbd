import gguf
import pytest

from intelnav.domain.errors import ContentError
from intelnav.store.tensor_types import BLOCKS, TensorType, tensor_bytes


def test_the_table_is_that_of_the_gguf_package() -> None:
    theirs = {kind.name: (int(kind), gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    assert {kind.name: (int(kind), BLOCKS[kind]) for kind in TensorType} == theirs


def test_the_size_of_a_tensor_is_its_blocks() -> None:
    assert tensor_bytes(TensorType.Q4_1, (576, 3)) == 576 // 32 * 20 * 3
    assert tensor_bytes(TensorType.F32, (7,)) == 28


def test_a_row_that_is_no_whole_number_of_blocks_is_refused() -> None:
    with pytest.raises(ContentError, match="rows of 100 values do not divide into Q4_K blocks of 256"):
        tensor_bytes(TensorType.Q4_K, (100, 2))
