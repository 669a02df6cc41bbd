"""Which architectures can be cut, and what in their metadata counts layers.

llama.cpp decides some things by a layer's index or by the number of layers. A slice has its own indices and its own
number, so each such thing needs a rule here. An architecture is on the list when tests/engine/test_architectures.py
proves that a chain of slices computes what the whole model does; no other is ever guessed at.
"""

import struct
from dataclasses import dataclass

from intelnav.domain.errors import ContentError
from intelnav.domain.slice import LayerRange
from intelnav.store.gguf import Header, Value, ValueType

WINDOW = "attention.sliding_window"
PATTERN = "attention.sliding_window_pattern"
ROPE_BASE = "rope.freq_base"
# What llama.cpp takes if the key is missing.
DEFAULT_ROPE_BASE = Value(ValueType.F32, struct.pack("<f", 10000))
# A window that no context fills; llama.cpp multiplies it by the number of sessions in 32 bits.
ENDLESS = 1 << 20

# Arrays with one element per layer, without the architecture's name in front.
_PER_LAYER = frozenset(
    {
        "attention.head_count",
        "attention.head_count_kv",
        PATTERN,
        "expert_feed_forward_length",
        "expert_used_count",
        "feed_forward_length",
    }
)
# Numbers that mean a layer's index or a count of layers, and for which no rule exists yet.
_REFUSED = frozenset(
    {
        "attention.key_length_swa",
        "attention.shared_kv_layers",
        "attention.value_length_swa",
        "deepstack_mapping",
        "full_attention_interval",
        "interleave_moe_layer_step",
        "leading_dense_block_count",
        "moe_every_n_layers",
        "n_deepstack_layers",
        "nextn_predict_layers",
        "rope.dimension_count_swa",
    }
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """The rules of one architecture.

    `window_period`: every n-th layer has full attention and the others a sliding window, unless the metadata say
    else; 0 if there are no windows. `window_by_default`: windows need no metadata key to be on.
    `own_head`: the loader insists on `output.weight`; otherwise it takes `token_embd.weight` as the head.
    `front_keys`: metadata that act on embeddings alone, but that llama.cpp applies to whatever is fed in.
    `odd_blocks`: a model of just so many blocks scales its attention by another rule.
    """

    name: str
    window_period: int = 0
    window_by_default: bool = False
    own_head: bool = False
    front_keys: frozenset[str] = frozenset()
    odd_blocks: int = 0


# Not olmo2: large activations overflow its values in the f16 cache, and what a session leaves there spoils the next.
ARCHITECTURES = {
    rules.name: rules
    for rules in (
        Architecture("exaone"),
        Architecture("falcon"),
        Architecture("gemma"),
        Architecture("gemma2", window_period=2, window_by_default=True, odd_blocks=46),
        Architecture("gemma3", window_period=6, odd_blocks=62),
        Architecture("granite", front_keys=frozenset({"embedding_scale"})),
        Architecture("internlm2", own_head=True),
        Architecture("llama"),
        Architecture("olmoe", own_head=True),
        Architecture("phi3"),
        Architecture("qwen2"),
        Architecture("qwen2moe", own_head=True),
        Architecture("qwen3"),
        Architecture("qwen3moe"),
        Architecture("stablelm", own_head=True),
        Architecture("starcoder2"),
    )
}


def rules_of(architecture: str) -> Architecture:
    """The rules for an architecture; ContentError if it is not supported."""
    rules = ARCHITECTURES.get(architecture)
    if rules is None:
        raise ContentError(
            f"models of the architecture {architecture[:40]!r} cannot be cut; supported are {', '.join(ARCHITECTURES)}"
        )
    return rules


def slice_hyperparameters(
    header: Header, architecture: str, blocks: int, layers: LayerRange
) -> dict[str, Value]:
    """The `<architecture>.*` keys for a slice with `layers` of a model with `blocks`.

    Raises ContentError for an unsupported architecture, and for a model with something that no rule covers.
    """
    rules = rules_of(architecture)
    prefix = f"{architecture}."
    own = {
        key.removeprefix(prefix): value for key, value in header.metadata.items() if key.startswith(prefix)
    }
    for name in sorted(_REFUSED & set(own)):
        if any(own[name].items):
            raise ContentError(f"this model cannot be cut: {prefix}{name} depends on layer numbers")
    kept: dict[str, Value] = {}
    for name, value in own.items():
        if layers.start > 0 and name in rules.front_keys:
            continue
        if name in _PER_LAYER and value.type is ValueType.ARRAY:
            numbers = header.per_layer(prefix + name, blocks)
            value = Value.array(value.element, numbers[layers.start : layers.end])
        kept[name] = value
    _check_attention_scale(rules, header, blocks, len(layers))
    kept |= _windows(rules, header, own, blocks, layers)
    kept["block_count"] = Value.integer(len(layers))
    return {prefix + name: value for name, value in kept.items()}


def _windows(
    rules: Architecture, header: Header, own: dict[str, Value], blocks: int, layers: LayerRange
) -> dict[str, Value]:
    """The keys that say which layers of the slice have a sliding window; none if no layer of the model has one."""
    size = own.get(WINDOW)
    if not rules.window_period or not (any(size.items) if size else rules.window_by_default):
        return {}
    key = f"{rules.name}.{PATTERN}"
    if PATTERN in own and own[PATTERN].type is ValueType.ARRAY:
        windowed = list(map(bool, header.per_layer(key, blocks)))
    else:
        period = header.integer(key, rules.window_period)
        windowed = [period == 0 or layer % period < period - 1 for layer in range(blocks)]
    held = windowed[layers.start : layers.end]
    if any(held):
        return {PATTERN: Value.array(ValueType.BOOL, held)}
    # llama.cpp aborts if windows are on and no layer has one.
    if not rules.window_by_default:
        return {WINDOW: Value.integer(0)}
    # Where they cannot be off, a window without an end does the same, if it rotates as full attention does.
    return {
        PATTERN: Value.array(ValueType.BOOL, [True] * len(held)),
        WINDOW: Value.integer(ENDLESS),
        f"{ROPE_BASE}_swa": own.get(ROPE_BASE, DEFAULT_ROPE_BASE),
    }


def _check_attention_scale(rules: Architecture, header: Header, blocks: int, held: int) -> None:
    """llama.cpp knows the 27B Gemmas by their block count and scales their attention by width / heads."""
    if (blocks == rules.odd_blocks) == (held == rules.odd_blocks):
        return
    width = header.integer(f"{rules.name}.embedding_length")
    heads = header.per_layer(f"{rules.name}.attention.head_count", blocks)
    by_width = width // max(heads[0], 1)
    if header.integer(f"{rules.name}.attention.key_length", by_width) != by_width:
        raise ContentError(
            f"this {rules.name} cannot be cut to {held} of its {blocks} blocks: llama.cpp chooses the attention scale "
            f"by whether there are {rules.odd_blocks}"
        )
