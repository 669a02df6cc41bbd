"""Tiny models with random weights: real GGUFs of each architecture that llama.cpp loads, tokenizes with and runs.

They are written with the `gguf` package, so that the store is tested against files that it did not write itself.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize
from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]

WIDTH = 64
HEADS = 4
KV_HEADS = 2
HEAD = WIDTH // HEADS
KV = KV_HEADS * HEAD
FF = 96
EXPERTS = 4
EXPERT_FF = 32
CONTEXT = 512
WINDOW = 8

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Shapes as numpy has them: (rows, values in a row).
QKV: Shapes = {"attn_q.weight": (WIDTH, WIDTH), "attn_k.weight": (KV, WIDTH), "attn_v.weight": (KV, WIDTH)}
QKV_BIAS: Shapes = {"attn_q.bias": (WIDTH,), "attn_k.bias": (KV,), "attn_v.bias": (KV,)}
FUSED_QKV: Shapes = {"attn_qkv.weight": (WIDTH + 2 * KV, WIDTH)}
ATTENTION_OUT: Shapes = {"attn_output.weight": (WIDTH, WIDTH)}
ATTENTION: Shapes = {"attn_norm.weight": (WIDTH,), **QKV, **ATTENTION_OUT}
HEAD_NORMS: Shapes = {"attn_q_norm.weight": (HEAD,), "attn_k_norm.weight": (HEAD,)}
GATED: Shapes = {"ffn_gate.weight": (FF, WIDTH), "ffn_up.weight": (FF, WIDTH), "ffn_down.weight": (WIDTH, FF)}
PLAIN: Shapes = {"ffn_up.weight": (FF, WIDTH), "ffn_down.weight": (WIDTH, FF)}
FFN_NORM: Shapes = {"ffn_norm.weight": (WIDTH,)}
NORM_BIASES: Shapes = {"attn_norm.bias": (WIDTH,), "ffn_norm.bias": (WIDTH,)}
POST_NORMS: Shapes = {"post_attention_norm.weight": (WIDTH,), "post_ffw_norm.weight": (WIDTH,)}
SHARED_EXPERT: Shapes = {
    "ffn_gate_inp_shexp.weight": (WIDTH,),
    "ffn_gate_shexp.weight": (FF, WIDTH),
    "ffn_up_shexp.weight": (FF, WIDTH),
    "ffn_down_shexp.weight": (WIDTH, FF),
}
DENSE = {**ATTENTION, **FFN_NORM, **GATED}


def _experts(width: int) -> Shapes:
    return {
        "ffn_gate_inp.weight": (EXPERTS, WIDTH),
        "ffn_gate_exps.weight": (EXPERTS, width, WIDTH),
        "ffn_up_exps.weight": (EXPERTS, width, WIDTH),
        "ffn_down_exps.weight": (EXPERTS, WIDTH, width),
    }


# The tensors of one block, by architecture.
BLOCK: dict[str, Shapes] = {
    "exaone": DENSE,
    "falcon": {
        "attn_norm.weight": (WIDTH,),
        "attn_norm.bias": (WIDTH,),
        **FUSED_QKV,
        **ATTENTION_OUT,
        **PLAIN,
    },
    "gemma": DENSE,
    "gemma2": DENSE | POST_NORMS,
    "gemma3": DENSE | POST_NORMS | HEAD_NORMS,
    "granite": DENSE,
    "internlm2": DENSE,
    "llama": DENSE,
    "olmo2": {
        **QKV,
        **ATTENTION_OUT,
        "attn_q_norm.weight": (WIDTH,),
        "attn_k_norm.weight": (KV,),
        **POST_NORMS,
        **GATED,
    },
    "olmoe": {
        **ATTENTION,
        **FFN_NORM,
        "attn_k.weight": (WIDTH, WIDTH),
        "attn_v.weight": (WIDTH, WIDTH),
        "attn_q_norm.weight": (WIDTH,),
        "attn_k_norm.weight": (WIDTH,),
        **_experts(FF),
    },
    "phi3": {
        "attn_norm.weight": (WIDTH,),
        **FUSED_QKV,
        **ATTENTION_OUT,
        **FFN_NORM,
        "ffn_up.weight": (2 * FF, WIDTH),
        "ffn_down.weight": (WIDTH, FF),
    },
    "qwen2": DENSE | QKV_BIAS,
    "qwen2moe": {**ATTENTION, **QKV_BIAS, **FFN_NORM, **_experts(EXPERT_FF), **SHARED_EXPERT},
    "qwen3": DENSE | HEAD_NORMS,
    "qwen3moe": {**ATTENTION, **HEAD_NORMS, **FFN_NORM, **_experts(EXPERT_FF)},
    "stablelm": DENSE | NORM_BIASES,
    "starcoder2": {
        **ATTENTION,
        **QKV_BIAS,
        "attn_output.bias": (WIDTH,),
        **FFN_NORM,
        **PLAIN,
        **NORM_BIASES,
        "ffn_up.bias": (FF,),
        "ffn_down.bias": (WIDTH,),
    },
}
OUTPUT_NORM_BIAS = ("falcon", "stablelm", "starcoder2")
OWN_HEAD = ("internlm2", "olmo2", "olmoe", "qwen2moe", "stablelm")
NO_HEAD = ("gemma", "gemma2")
BYTE_PAIR = ("qwen2", "qwen2moe", "qwen3", "qwen3moe", "starcoder2", "olmo2", "olmoe")
EXPERT_ARCHITECTURES = ("olmoe", "qwen2moe", "qwen3moe")


def tiny_model(
    path: Path,
    architecture: str = "llama",
    *,
    blocks: int = 6,
    seed: int = 0,
    tied: bool = False,
    experts: bool = False,
    rope_freqs: bool = False,
    rope_factors: bool = False,
    pattern: int | list[bool] | None = None,
    quantised: bool = False,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write a model of `blocks` layers to `path` and return the path.

    `tied` leaves out `output.weight`. `experts` makes a llama a mixture. `rope_freqs` and `rope_factors` (longrope) add
    those tensors. `pattern` is the sliding-window pattern in the metadata, else it is implicit. `quantised` stores
    matrices as Q5_0. `extra` adds or replaces metadata under `<architecture>.`, None there removes a key.
    """
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny {architecture}")
    metadata = _metadata(architecture, blocks, experts) | (extra or {})
    if pattern is not None:
        metadata["attention.sliding_window_pattern"] = pattern
    if rope_factors:
        metadata["rope.scaling.type"] = "longrope"
        metadata["rope.scaling.original_context_length"] = CONTEXT // 2
    for key, value in metadata.items():
        if value is not None:
            _add(writer, f"{architecture}.{key}", value)
    vocabulary = _byte_pair(writer) if architecture in BYTE_PAIR else _sentence_piece(writer)
    writer.add_chat_template(CHAT_TEMPLATE)

    block = BLOCK[architecture]
    if architecture == "llama" and experts:
        block = {**ATTENTION, **FFN_NORM, **_experts(FF)}
    shapes: Shapes = {"token_embd.weight": (vocabulary, WIDTH)}
    if rope_freqs:
        shapes["rope_freqs.weight"] = (HEAD // 2,)
    if rope_factors:
        shapes |= {"rope_factors_long.weight": (HEAD // 2,), "rope_factors_short.weight": (HEAD // 2,)}
    for index in range(blocks):
        shapes |= {f"blk.{index}.{name}": shape for name, shape in block.items()}
    shapes["output_norm.weight"] = (WIDTH,)
    if architecture in OUTPUT_NORM_BIAS:
        shapes["output_norm.bias"] = (WIDTH,)
    if architecture in OWN_HEAD or not (tied or architecture in NO_HEAD):
        shapes["output.weight"] = (vocabulary, WIDTH)
    for name, shape in shapes.items():
        values = _weights(random, name, shape)
        if quantised and len(shape) == 2:
            kind = gguf.GGMLQuantizationType.Q5_0
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _weights(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if name.startswith("rope"):
        values = random.uniform(1, 4, shape)
    elif "norm" in name and name.endswith(".weight"):
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = random.standard_normal(shape) * (1.5 / np.sqrt(shape[-1]))
    return values.astype(np.float32)


def _metadata(architecture: str, blocks: int, experts: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "block_count": blocks,
        "context_length": CONTEXT,
        "embedding_length": WIDTH,
        "feed_forward_length": FF,
        "attention.head_count": HEADS,
        "attention.head_count_kv": HEADS if architecture == "olmoe" else KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.layer_norm_epsilon": 1e-5,
        "rope.dimension_count": HEAD,
        "rope.freq_base": 10000.0,
    }
    if architecture.startswith("gemma"):
        metadata |= {"attention.key_length": HEAD, "attention.value_length": HEAD}
    if architecture in ("gemma2", "gemma3", "olmo2"):
        metadata["attention.sliding_window"] = WINDOW
    if architecture == "gemma2":
        metadata |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    if architecture == "gemma3":
        metadata["rope.freq_base"] = 1000000.0
    if architecture == "granite":
        metadata |= {
            "embedding_scale": 3.0,
            "residual_scale": 0.3,
            "logit_scale": 2.0,
            "attention.scale": 0.2,
        }
    if architecture == "stablelm":
        metadata["use_parallel_residual"] = False
    if experts or architecture in EXPERT_ARCHITECTURES:
        metadata |= {"expert_count": EXPERTS, "expert_used_count": 2}
    if architecture in ("qwen2moe", "qwen3moe"):
        metadata["expert_feed_forward_length"] = EXPERT_FF
    if architecture == "qwen2moe":
        metadata["expert_shared_feed_forward_length"] = FF
    return metadata


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _sentence_piece(writer: gguf.GGUFWriter) -> int:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [
        gguf.TokenType.UNKNOWN,
        gguf.TokenType.CONTROL,
        gguf.TokenType.CONTROL,
        *[gguf.TokenType.BYTE] * 256,
    ]
    pieces = ["▁", *"abcdefghijklmnopqrstuvwxyz", "th", "the", "▁the", "an", "in", "er", "é", "🦙"]
    tokens += [*pieces, *CONTROL]
    types += [gguf.TokenType.NORMAL] * len(pieces) + [gguf.TokenType.CONTROL] * len(CONTROL)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(tokens) - 259)])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return len(tokens)


def _byte_pair(writer: gguf.GGUFWriter) -> int:
    # GPT-2's printable stand-ins for bytes.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = (chr(256 + rank) for rank in range(256))
    letters = [chr(byte) if byte in printable else next(shifted) for byte in range(256)]
    merges = ["t h", "th e", "a n", "i n", "e r", "Ġ the"]
    tokens = [*letters, *(merge.replace(" ", "") for merge in merges), *CONTROL]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.NORMAL] * (len(tokens) - len(CONTROL)) + [gguf.TokenType.CONTROL] * len(CONTROL)
    )
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(CONTROL[0]))
    writer.add_eos_token_id(tokens.index(CONTROL[2]))
    return len(tokens)
