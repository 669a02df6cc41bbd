"""How what a hop costs grows with the model, and weighs less: the chain against one process for larger models.

The larger models have random weights, since what they say does not matter here; metadata and vocabulary are those of
the embedded model.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from intelnav.store.embedded import embedded_model
from tests.bench.baseline import one_process
from tests.bench.results import show
from tests.bench.speed import CUTS, STORY, THREADS, WARM_UP, System, asked
from tests.sandbox import sandbox

COUNT = 48
ROUNDS = 5
STAGES = 4
VOCABULARY = 49_152
HEAD = 64
# Values, their scale and their least value: what a block of the encoding holds.
Q4_1 = np.dtype([("scale", "<f2"), ("least", "<f2"), ("nibbles", "u1", 16)])
BLOCK = 32


@dataclass(frozen=True)
class Shape:
    """The sizes of a model: of its hidden states, of what is between, of keys and values, and how many layers."""

    name: str
    width: int
    between: int
    kv_heads: int
    layers: int
    cuts: str


SHAPES = (
    Shape("SmolLM2-135M's", 576, 1536, 3, 30, CUTS),
    Shape("SmolLM2-360M's", 960, 2560, 5, 32, "8,16,24"),
    Shape("Llama-3.2-1B's", 2048, 8192, 8, 16, "4,8,12"),
)


def measure() -> dict[str, Any]:
    """Decoded tokens per second, and how long a hop takes; medians of paired rounds."""
    figures = {shape.name: _measure(shape) for shape in SHAPES}
    rows = [[name, *values.values()] for name, values in figures.items()]
    heads = [
        "a model of this shape",
        "MB",
        "one process, tok/s",
        "chain, tok/s",
        "chain ÷ one process",
        "µs a hop",
    ]
    show(f"Larger models ({COUNT} greedy tokens, {THREADS} thread a stage)", heads, rows)
    return figures


def _measure(shape: Shape) -> dict[str, float]:
    with TemporaryDirectory(prefix="intelnav-bench-") as folder, ExitStack() as stack:
        model = write_model(Path(folder, "model.gguf"), shape)
        systems: tuple[System, System] = (
            stack.enter_context(one_process(model, THREADS)).run,
            asked(stack.enter_context(sandbox(Path(folder, "swarm"), shape.cuts, dtype="f16", model=model))),
        )
        pairs = []
        for _ in range(ROUNDS):
            pair = []
            for run in systems:
                run(STORY, WARM_UP)
                pair.append(run(STORY, COUNT).decode_rate)
            pairs.append(pair)
        size = model.stat().st_size
    return {
        "megabytes": size / 1e6,
        "one_process": median(one for one, _ in pairs),
        "chain": median(chain for _, chain in pairs),
        "chain_to_one_process": median(chain / one for one, chain in pairs),
        "hop_micros": median((1 / chain - 1 / one) * 1e6 / STAGES for one, chain in pairs),
    }


def write_model(path: Path, shape: Shape) -> Path:
    """A GGUF of this shape with random weights of small size, in the encoding of the embedded model."""
    writer = gguf.GGUFWriter(path, "llama")
    changed = {
        "llama.block_count": shape.layers,
        "llama.embedding_length": shape.width,
        "llama.feed_forward_length": shape.between,
        "llama.attention.head_count": shape.width // HEAD,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.rope.dimension_count": HEAD,
    }
    for name, field in gguf.GGUFReader(embedded_model()).fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kinds = [*field.types, None]
            writer.add_key_value(name, changed.get(name, field.contents()), kinds[0], sub_type=kinds[1])
    random = np.random.default_rng(0)
    for name, rows, columns in _tensors(shape):
        if rows:
            data = _quantised(random, rows, columns)
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
        else:
            writer.add_tensor(name, np.ones(columns, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(shape: Shape) -> list[tuple[str, int, int]]:
    """Names, rows and columns; a norm has no rows."""
    width, keys = shape.width, shape.kv_heads * HEAD
    tensors = [("token_embd.weight", VOCABULARY, width), ("output_norm.weight", 0, width)]
    for layer in range(shape.layers):
        block = {
            "attn_norm": (0, width),
            "attn_q": (width, width),
            "attn_k": (keys, width),
            "attn_v": (keys, width),
            "attn_output": (width, width),
            "ffn_norm": (0, width),
            "ffn_gate": (shape.between, width),
            "ffn_up": (shape.between, width),
            "ffn_down": (width, shape.between),
        }
        tensors += [(f"blk.{layer}.{name}.weight", *sizes) for name, sizes in block.items()]
    return tensors


def _quantised(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.uint8]:
    """Values between -0.05 and 0.05."""
    blocks = np.zeros(rows * columns // BLOCK, Q4_1)
    blocks["scale"], blocks["least"] = 0.1 / 15, -0.05
    blocks["nibbles"] = random.integers(0, 256, blocks["nibbles"].shape, np.uint8)
    return blocks.view(np.uint8).reshape(rows, -1)
