"""What a slice will take of a machine's memory, and whether it fits."""

from dataclasses import dataclass

from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceSpec
from intelnav.store.footprint import cache_bytes, weights_bytes
from intelnav.store.model_file import ModelFile


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a slice takes: its weights, the caches of all its sessions, and llama.cpp's buffers (an estimate)."""

    weights: int
    cache: int
    compute: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.compute

    def __str__(self) -> str:
        parts = f"weights {gib(self.weights)}, caches {gib(self.cache)}, buffers {gib(self.compute)}"
        return f"{gib(self.total)} GiB ({parts})"


def footprint(model: ModelFile, spec: SliceSpec, layers: LayerRange | None = None) -> Footprint:
    """What loading `model`, or a slice of it with `layers`, as `spec` says will take.

    Raises ContentError if its header does not tell.
    """
    layers = layers or model.layers
    vocabulary = max(
        tensor.shape[-1] for tensor in model.header.tensors if tensor.name == "token_embd.weight"
    )
    return Footprint(
        weights_bytes(model, layers),
        cache_bytes(model, layers, spec.context, spec.sessions),
        _compute_bytes(model.width, vocabulary, max(spec.max_rows, spec.sessions), spec.context),
    )


def gib(size: int) -> str:
    """A number of bytes in GiB, without the unit."""
    return f"{size / 2**30:.2f}"


def _compute_bytes(width: int, vocabulary: int, rows: int, context: int) -> int:
    """A generous estimate of llama.cpp's buffers for a decode of `rows` rows."""
    # Logits twice, once in the graph and once handed out; a mask of f16 and f32 cells; and some 24 vectors a row.
    return 4 * rows * (2 * vocabulary + 2 * context + 24 * width) + 16 * 2**20
