"""Cutting a slice out of a model: a GGUF of its own that an unmodified llama.cpp loads.

Blocks are renumbered from 0, whatever counts layers is adapted (`architectures`), tensors that belong to no block go
into every slice. The loader wants an embedding and a final norm even where nothing uses them: those are made up, as
small as it takes them, and lie behind everything that comes from the model.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.architectures import Architecture, rules_of, slice_hyperparameters
from intelnav.store.bundles import Bundle, bundles_of
from intelnav.store.gguf import Tensor, Value, encode_header, padded
from intelnav.store.model_file import BLOCKS_KEY, END_KEY, MODEL_KEY, START_KEY, ModelFile, describe
from intelnav.store.tensor_types import TensorType, tensor_bytes

CHUNK = 1024 * 1024
EMBEDDING = "token_embd.weight"
HEAD = "output.weight"
NORM = "output_norm."
# With these beside it, llama.cpp aborts on a head that poses as the embedding.
HEAD_SCALES = ("output.scale", "output.input_scale")
# Rows of a made-up embedding in a slice that has no vocabulary.
DUMMY_VOCABULARY = 32


@dataclass(frozen=True, slots=True)
class _Part:
    """A tensor of the slice; `source` is where its bytes lie in the model, None if it is made up as zeros."""

    tensor: Tensor
    source: int | None


def cut(
    source: Path, layers: LayerRange, target: Path, model: str, between: Callable[[], None] = lambda: None
) -> None:
    """Write the slice of the whole model at `source` that holds `layers` to `target`, in one step.

    `model` is the CID that the slice is labelled with. `between` is called after each chunk, and may raise to give
    up. Raises ContentError if the model cannot be cut so, and OSError if `target` cannot be written. Whatever is
    raised, `target` is as it was.
    """
    whole = describe(source)
    try:
        header, parts = _plan(whole, layers, model)
    except ContentError as error:
        raise ContentError(f"{source}: {error}") from None
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with source.open("rb") as read, temporary.open("wb") as written:
            written.write(header)
            for part in parts:
                if part.source is not None:
                    written.seek(len(header) + part.tensor.offset)
                    for chunk in _chunks(read.fileno(), part.source, part.tensor.size):
                        written.write(chunk)
                        between()
            # What is made up stays a hole in the file, and costs no disk.
            last = parts[-1].tensor
            written.truncate(len(header) + last.offset + padded(last.size, whole.header.alignment))
            written.flush()
            os.fsync(written.fileno())
        temporary.replace(target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def slice_bundles(model: ModelFile, layers: LayerRange) -> list[Bundle]:
    """What a slice with `layers` takes of a whole model, in the order of its file."""
    tied = all(tensor.name != HEAD for tensor in model.header.tensors)
    wanted = {"common"} | {f"blk.{layer}" for layer in range(layers.start, layers.end)}
    if layers.start == 0 or (layers.end == model.blocks and tied):
        wanted.add("embed")
    if layers.end == model.blocks:
        wanted.add("head")
    return [bundle for bundle in bundles_of(model) if bundle.name in wanted]


def _plan(whole: ModelFile, layers: LayerRange, model: str) -> tuple[bytes, list[_Part]]:
    """The slice's header, and its tensors with offsets into the slice's data."""
    if not whole.is_whole:
        raise ContentError(
            f"this is itself a slice, {whole.layers} of {whole.blocks} layers; cut the whole model"
        )
    if layers.end > whole.blocks:
        raise ContentError(f"layers {layers} cannot be cut from a model of {whole.blocks} layers")
    rules = rules_of(whole.architecture)
    taken = [tensor for bundle in slice_bundles(whole, layers) for tensor in bundle.tensors]
    parts = [_Part(replace(tensor, name=_slice_name(tensor, layers)), tensor.offset) for tensor in taken]
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


def _with_ends(parts: list[_Part], rules: Architecture, whole: ModelFile, vocabulary: int) -> list[_Part]:
    """Add what the loader insists on and the slice does not have."""
    table = (whole.width, vocabulary)
    names = {part.tensor.name for part in parts}
    made: list[_Part] = []
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
    made += [_Part(tensor, None) for tensor in norms if tensor.name not in names]
    if rules.own_head and HEAD not in names:
        made.append(_made_up(HEAD, table))
    return parts + made


def _made_up(name: str, shape: tuple[int, ...]) -> _Part:
    size = tensor_bytes(TensorType.Q4_0, shape)
    return _Part(Tensor(name, shape, TensorType.Q4_0, 0, size), None)


def _placed(parts: list[_Part], alignment: int) -> Iterator[_Part]:
    offset = 0
    for part in parts:
        yield replace(part, tensor=replace(part.tensor, offset=offset))
        offset += padded(part.tensor.size, alignment)


def _metadata(whole: ModelFile, layers: LayerRange, model: str, vocabulary: int) -> dict[str, Value]:
    architecture, metadata = whole.architecture, whole.header.metadata
    kept = {key: value for key, value in metadata.items() if not key.startswith(f"{architecture}.")}
    kept |= slice_hyperparameters(whole.header, architecture, whole.blocks, layers)
    if layers.start > 0:
        kept = {key: value for key, value in kept.items() if not key.startswith("tokenizer.")}
        kept["tokenizer.ggml.model"] = Value.text("no_vocab")
        kept[f"{architecture}.vocab_size"] = Value.integer(vocabulary)
    kept[MODEL_KEY] = Value.text(model)
    kept[START_KEY] = Value.integer(layers.start)
    kept[END_KEY] = Value.integer(layers.end)
    kept[BLOCKS_KEY] = Value.integer(whole.blocks)
    return kept


def _chunks(file: int, offset: int, size: int) -> Iterator[bytes]:
    end = offset + size
    while offset < end:
        chunk = os.pread(file, min(CHUNK, end - offset), offset)
        if not chunk:
            raise ContentError(f"the model's file became shorter while it was cut: byte {offset} is gone")
        yield chunk
        offset += len(chunk)
