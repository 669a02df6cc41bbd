"""The parts in which a model is shared: `common`, `embed`, one per block, and `head`.

Within a file the tensors of a bundle stand back to back, each padded with zeros to the alignment, so that the bytes of
a bundle are the same in every slice and can be named by one hash.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.gguf import Tensor, padded
from intelnav.store.model_file import ModelFile

HEAD = "output.weight"


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


def wanted_bundles(bundles: Sequence[Bundle], layers: LayerRange) -> list[Bundle]:
    """Those of a whole model's bundles that a slice with `layers` takes, in their order.

    Raises ContentError for layers that the model does not have.
    """
    blocks = len(bundles) - len(bundle_names(0))
    if layers.end > blocks:
        raise ContentError(f"layers {layers} cannot be cut from a model of {blocks} layers")
    tied = all(tensor.name != HEAD for tensor in bundles[-1].tensors)
    wanted = {"common"} | {f"blk.{layer}" for layer in range(layers.start, layers.end)}
    if layers.start == 0 or (layers.end == blocks and tied):
        wanted.add("embed")
    if layers.end == blocks:
        wanted.add("head")
    return [bundle for bundle in bundles if bundle.name in wanted]


def slice_bundles(model: ModelFile, layers: LayerRange) -> list[Bundle]:
    """What a slice with `layers` takes of a whole model, in the order of its file."""
    return wanted_bundles(bundles_of(model), layers)
