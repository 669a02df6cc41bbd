"""How much memory a range of layers will take, known from the header before anything is loaded."""

from intelnav.domain.slice import LayerRange
from intelnav.store.bundles import slice_bundles
from intelnav.store.gguf import padded
from intelnav.store.model_file import ModelFile

# llama.cpp rounds the cells of a session's cache up to this.
CELLS = 256
F16 = 2


def weights_bytes(model: ModelFile, layers: LayerRange) -> int:
    """Bytes of the tensors that a slice with `layers` of a whole model takes; of a slice, all that it holds."""
    if model.is_whole:
        return sum(bundle.size for bundle in slice_bundles(model, layers))
    return sum(tensor.size for tensor in model.header.tensors)


def cache_bytes(model: ModelFile, layers: LayerRange, context: int, sessions: int) -> int:
    """Bytes of the key and value cache of `layers` (f16) for `sessions` sequences of `context` tokens each.

    An upper bound where layers have a sliding window. Raises ContentError if the header does not tell how wide it is.
    """
    prefix, header = f"{model.architecture}.attention", model.header
    heads = header.per_layer(f"{prefix}.head_count", len(model.layers))
    kv_key = f"{prefix}.head_count_kv"
    kv_heads = header.per_layer(kv_key, len(model.layers)) if kv_key in header.metadata else heads
    by_width = model.width // max(heads[0], 1)
    key = header.integer(f"{prefix}.key_length", by_width)
    value = header.integer(f"{prefix}.value_length", by_width)
    first = model.layers.start
    cells = sessions * padded(context, CELLS)
    return F16 * (key + value) * sum(kv_heads[layers.start - first : layers.end - first]) * cells
