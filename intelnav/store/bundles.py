"""The parts in which a model is shared: `common`, `embed`, one per block, and `head`.

Within a file the tensors of a bundle stand back to back, each padded with zeros to the alignment, so that the bytes of
a bundle are the same in every slice and can be named by one hash.
"""

from dataclasses import dataclass

from intelnav.store.gguf import Tensor, padded
from intelnav.store.model_file import ModelFile


@dataclass(frozen=True, slots=True)
class Bundle:
    """Tensors that always travel together, in the order of the whole model's file; `size` includes the padding."""

    name: str
    tensors: tuple[Tensor, ...]
    size: int


def bundle_names(blocks: int) -> list[str]:
    """The names of all bundles of a model, in their order."""
    return ["common", "embed", *(f"blk.{block}" for block in range(blocks)), "head"]


def bundle_of(tensor: Tensor) -> str:
    """The name of the bundle that a tensor belongs to."""
    if tensor.block is not None:
        return f"blk.{tensor.block}"
    first = tensor.name.partition(".")[0]
    if first == "token_embd":
        return "embed"
    return "head" if first in ("output_norm", "output") else "common"


def bundles_of(model: ModelFile) -> list[Bundle]:
    """The bundles of a whole model in their order; `common` and `head` may be empty."""
    groups: dict[str, list[Tensor]] = {name: [] for name in bundle_names(model.blocks)}
    for tensor in model.header.tensors:
        groups[bundle_of(tensor)].append(tensor)
    alignment = model.header.alignment
    return [
        Bundle(name, tuple(tensors), sum(padded(tensor.size, alignment) for tensor in tensors))
        for name, tensors in groups.items()
    ]
