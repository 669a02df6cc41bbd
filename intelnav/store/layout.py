"""Which bytes a slice consists of: a GGUF of its own that an unmodified llama.cpp loads.

Blocks are renumbered from 0, whatever counts layers is adapted (`architectures`), tensors that belong to no block go
into every slice. The loader wants an embedding and a final norm even where nothing uses them: those are made up, as
small as it takes them, and lie behind everything that comes from the model. The bundles lie back to back in their
order, and a front slice has the tokenizer's entries together at the end of its metadata: so both can be handed on as
byte ranges of the slice. The layout is the same whether the model is known from its file or from its manifest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.architectures import Architecture, rules_of, slice_hyperparameters
from intelnav.store.bundles import HEAD, slice_bundles
from intelnav.store.gguf import Header, Tensor, Value, encode_header, padded
from intelnav.store.gguf_reader import alignment_of, parse_entries, parse_header
from intelnav.store.manifest import TOKENIZER, Manifest
from intelnav.store.model_file import BLOCKS_KEY, END_KEY, MODEL_KEY, START_KEY, ModelFile, model_file
from intelnav.store.tensor_types import TensorType, tensor_bytes

EMBEDDING = "token_embd.weight"
NORM = "output_norm."
# With these beside it, llama.cpp aborts on a head that poses as the embedding.
HEAD_SCALES = ("output.scale", "output.input_scale")
# Rows of a made-up embedding in a slice that has no vocabulary.
DUMMY_VOCABULARY = 32


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of the slice; `source` is where its bytes lie in the model, None if it is made up as zeros.

    The tensor's `offset` counts from the start of the slice's file.
    """

    tensor: Tensor
    source: int | None


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """A slice's file: the bytes of its header, where each bundle lies as (name, offset, bytes), and its size in bytes.

    `parts` are its tensors. Whatever is neither header nor bundle is zeros.
    """

    header: bytes
    bundles: tuple[tuple[str, int, int], ...]
    parts: tuple[Part, ...]
    size: int


def model_of(manifest: Manifest, metadata: bytes, tokenizer: bytes | None) -> ModelFile:
    """The whole model that a manifest describes, known without its file; offsets are those of bundles back to back.

    `metadata` and `tokenizer` are the contents of the blobs of these names, whose hashes the caller has checked.
    Without the tokenizer only slices that do not start at layer 0 can be planned. Raises ContentError if they are
    unsound or contradict the manifest.
    """
    entries = parse_entries(metadata)
    vocabulary = parse_entries(tokenizer or b"")
    if any(key.startswith(TOKENIZER) for key in entries) or not all(
        key.startswith(TOKENIZER) for key in vocabulary
    ):
        raise ContentError("the manifest's metadata and tokenizer are not split by their keys")
    tensors: list[Tensor] = []
    start = 0
    for entry in manifest.bundles:
        tensors += [replace(tensor, offset=start + tensor.offset) for tensor in entry.bundle.tensors]
        start += entry.bundle.size
    header = Header(
        entries | vocabulary, tuple(tensors), alignment_of(entries, len(metadata)), 0, len(metadata)
    )
    model = model_file(header)
    said = (manifest.name, manifest.architecture, manifest.blocks, manifest.alignment)
    if (model.name, model.architecture, model.blocks, header.alignment) != said:
        raise ContentError(
            "name, architecture, blocks or alignment of the manifest are not those of its metadata"
        )
    if not model.is_whole or model.model is not None:
        raise ContentError("the manifest's metadata are those of a slice")
    return model


def plan_slice(whole: ModelFile, layers: LayerRange, model: str) -> SlicePlan:
    """The file of the slice with `layers` of a whole model, labelled with the CID `model`.

    Raises ContentError if the model cannot be cut so.
    """
    header, parts = _plan(whole, layers, model)
    at = len(header)
    bundles = []
    for bundle in slice_bundles(whole, layers):
        bundles.append((bundle.name, at, bundle.size))
        at += bundle.size
    last = parts[-1].tensor
    placed = tuple(
        replace(part, tensor=replace(part.tensor, offset=len(header) + part.tensor.offset)) for part in parts
    )
    size = len(header) + last.offset + padded(last.size, whole.header.alignment)
    # Bounds that the model just keeps may be passed by what was added.
    parse_header(header, size)
    return SlicePlan(header, tuple(bundles), placed, size)


def _plan(whole: ModelFile, layers: LayerRange, model: str) -> tuple[bytes, list[Part]]:
    """The slice's header, and its tensors with offsets into the slice's data."""
    if not whole.is_whole:
        raise ContentError(
            f"this is itself a slice, {whole.layers} of {whole.blocks} layers; cut the whole model"
        )
    rules = rules_of(whole.architecture)
    taken = [tensor for bundle in slice_bundles(whole, layers) for tensor in bundle.tensors]
    parts = [Part(replace(tensor, name=_slice_name(tensor, layers)), tensor.offset) for tensor in taken]
    vocabulary = _vocabulary(whole) if layers.start == 0 or layers.end == whole.blocks else DUMMY_VOCABULARY
    parts = _with_ends(parts, rules, whole, vocabulary)
    placed = list(_placed(parts, whole.header.alignment))
    metadata = _metadata(whole, layers, model, vocabulary)
    return encode_header(metadata, (part.tensor for part in placed), whole.header.alignment), placed


def _slice_name(tensor: Tensor, layers: LayerRange) -> str:
    block = tensor.block
    return tensor.name if block is None else f"blk.{block - layers.start}.{tensor.name.split('.', 2)[2]}"


def _vocabulary(whole: ModelFile) -> int:
    return next(tensor.shape[1] for tensor in whole.header.tensors if tensor.name == EMBEDDING)


def _with_ends(parts: list[Part], rules: Architecture, whole: ModelFile, vocabulary: int) -> list[Part]:
    """Add what the loader insists on and the slice does not have."""
    table = (whole.width, vocabulary)
    names = {part.tensor.name for part in parts}
    made: list[Part] = []
    if EMBEDDING not in names:
        if HEAD in names and not rules.own_head and names.isdisjoint(HEAD_SCALES):
            # A model without output.weight uses its embedding as the head: here the head poses as the embedding.
            parts = [
                replace(part, tensor=replace(part.tensor, name=EMBEDDING))
                if part.tensor.name == HEAD
                else part
                for part in parts
            ]
        else:
            made.append(_made_up(EMBEDDING, table))
    norms = [tensor for tensor in whole.header.tensors if tensor.name.startswith(NORM)]
    made += [Part(tensor, None) for tensor in norms if tensor.name not in names]
    if rules.own_head and HEAD not in names:
        made.append(_made_up(HEAD, table))
    return parts + made


def _made_up(name: str, shape: tuple[int, ...]) -> Part:
    size = tensor_bytes(TensorType.Q4_0, shape)
    return Part(Tensor(name, shape, TensorType.Q4_0, 0, size), None)


def _placed(parts: list[Part], alignment: int) -> Iterator[Part]:
    offset = 0
    for part in parts:
        yield replace(part, tensor=replace(part.tensor, offset=offset))
        offset += padded(part.tensor.size, alignment)


def _metadata(whole: ModelFile, layers: LayerRange, model: str, vocabulary: int) -> dict[str, Value]:
    architecture, metadata = whole.architecture, whole.header.metadata
    apart = (f"{architecture}.", TOKENIZER)
    kept = {key: value for key, value in metadata.items() if not key.startswith(apart)}
    kept |= slice_hyperparameters(whole.header, architecture, whole.blocks, layers)
    kept[MODEL_KEY] = Value.text(model)
    kept[START_KEY] = Value.integer(layers.start)
    kept[END_KEY] = Value.integer(layers.end)
    kept[BLOCKS_KEY] = Value.integer(whole.blocks)
    if layers.start == 0:
        return kept | {key: value for key, value in metadata.items() if key.startswith(TOKENIZER)}
    kept[f"{architecture}.vocab_size"] = Value.integer(vocabulary)
    kept["tokenizer.ggml.model"] = Value.text("no_vocab")
    return kept
