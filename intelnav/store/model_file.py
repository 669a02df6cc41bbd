"""What a GGUF on disk holds, learnt from its header alone."""

from dataclasses import dataclass
from pathlib import Path

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.cid import is_cid
from intelnav.store.gguf import Header
from intelnav.store.gguf_reader import read_header

# What `cut` adds to a slice; a GGUF without these keys is a whole model.
MODEL_KEY = "intelnav.model"
START_KEY = "intelnav.layer_start"
END_KEY = "intelnav.layer_end"
BLOCKS_KEY = "intelnav.block_count"

# llama.cpp's LLAMA_MAX_LAYERS.
MAX_BLOCKS = 512
MAX_NAME = 128
MAX_VOCABULARY = 1 << 24


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A whole model or a slice of one.

    `blocks` counts the layers of the whole model, `layers` says which of them the file holds, `width` is n_embd,
    `context` the trained context length in tokens. `model` is the CID of the whole model, known only for a slice.
    """

    header: Header
    name: str
    architecture: str
    blocks: int
    layers: LayerRange
    width: int
    context: int
    has_tokenizer: bool
    model: str | None

    @property
    def is_whole(self) -> bool:
        """Whether no layer is missing."""
        return len(self.layers) == self.blocks

    def can_give(self, layers: LayerRange) -> bool:
        """Whether a slice with `layers` can be had from this file; a slice gives nothing but itself."""
        return layers == self.layers or (self.is_whole and self.layers.covers(layers))


def describe(path: Path) -> ModelFile:
    """Read the header of the GGUF at `path`; nothing is hashed.

    Raises ConfigError if there is no readable file, ContentError if it is no sound GGUF of a language model.
    """
    header = read_header(path)
    try:
        return model_file(header)
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from None


def model_file(header: Header) -> ModelFile:
    """What a header says about its model; ContentError without a path if it is no sound one."""
    architecture = header.text("general.architecture")
    if not 1 <= len(architecture) <= MAX_NAME:
        raise ContentError(f"general.architecture has {len(architecture)} characters")
    if not architecture.isprintable():
        raise ContentError(f"general.architecture {architecture!r} has characters that cannot be printed")
    held = header.integer(f"{architecture}.block_count")
    if not 1 <= held <= MAX_BLOCKS:
        raise ContentError(f"{architecture}.block_count is {held}, 1 to {MAX_BLOCKS} are possible")
    found = {tensor.block for tensor in header.tensors} - {None}
    if found != set(range(held)):
        raise ContentError(
            f"{architecture}.block_count is {held}, but the tensors are not those of blocks 0 to {held - 1}"
        )
    width = header.integer(f"{architecture}.embedding_length")
    embedding = next((tensor for tensor in header.tensors if tensor.name == "token_embd.weight"), None)
    if embedding is None or embedding.shape[0] != width:
        raise ContentError(f"there is no tensor token_embd.weight with rows of {width} values")
    if len(embedding.shape) != 2 or embedding.shape[1] > MAX_VOCABULARY:
        raise ContentError(
            f"token_embd.weight of shape {embedding.shape} is no table of at most {MAX_VOCABULARY} rows"
        )
    blocks = header.integer(BLOCKS_KEY, held)
    start, end = header.integer(START_KEY, 0), header.integer(END_KEY, held)
    if end - start != held or end > blocks or blocks > MAX_BLOCKS:
        raise ContentError(
            f"layers {start}..{end} of {blocks} do not agree with the {held} blocks in the file"
        )
    model = header.text(MODEL_KEY) if MODEL_KEY in header.metadata else None
    if model is not None and not is_cid(model):
        raise ContentError(f"{MODEL_KEY} is no model id")
    return ModelFile(
        header=header,
        name=_printable(header.text("general.name", "")[:MAX_NAME]).strip() or "unnamed",
        architecture=architecture,
        blocks=blocks,
        layers=LayerRange(start, end),
        width=width,
        context=header.integer(f"{architecture}.context_length"),
        has_tokenizer="tokenizer.ggml.tokens" in header.metadata,
        model=model,
    )


def _printable(text: str) -> str:
    """`text` fit for a terminal: names come from files that anyone may have written."""
    return "".join(char if char.isprintable() else " " for char in text)
