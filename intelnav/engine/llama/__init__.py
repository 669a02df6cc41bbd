"""A slice in an unmodified llama.cpp. No other room imports llama_cpp, or reaches its libraries."""

from intelnav.engine.llama.ggml import gpus
from intelnav.engine.llama.slice import LlamaSlice

__all__ = ["LlamaSlice", "gpus"]
