"""The compiled part of a slice (`native/`), and the structs that it shares with Python."""

import ctypes
from ctypes import c_bool, c_char, c_char_p, c_double, c_int64, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from intelnav.domain.errors import EngineError
from intelnav.engine.sequences import SequenceState

Survey = ctypes.CFUNCTYPE(None, c_char_p)
Pick = ctypes.CFUNCTYPE(c_int64, c_int64, c_int64)

_LIBRARY = Path(__file__).with_name("libnative.so")


class TapStruct(ctypes.Structure):
    """`struct tap`."""

    _fields_ = (
        ("name_offset", c_uint64),
        *((name, c_void_p) for name in ("bytes_of", "get", "set", "survey")),
        ("wanted", c_char * 64),
        ("captured", c_void_p),
        ("captured_size", c_uint64),
        ("captured_capacity", c_uint64),
        ("replaced", c_char * 64),
        ("fed", c_void_p),
        ("fed_size", c_uint64),
        ("fed_capacity", c_uint64),
    )


class SliceStruct(ctypes.Structure):
    """`struct slice`."""

    _fields_ = (
        *((name, c_void_p) for name in ("watch", "context", "memory", "input")),
        *((name, c_void_p) for name in ("decode", "logits", "cut", "to_halves", "from_halves", "sequences")),
        *((name, c_int64) for name in ("sequence_count", "context_length", "layer_start", "layer_end")),
        *((name, c_int64) for name in ("blocks", "width", "vocabulary")),
        ("max_energy", c_double),
        ("pick", c_void_p),
    )


_SHARED = llama.llama_batch, TapStruct, SliceStruct, SequenceState


def address(function: Any) -> int:
    """Where a function of a library, or one made with `ctypes.CFUNCTYPE`, begins."""
    return ctypes.cast(function, c_void_p).value or 0


def library() -> ctypes.CDLL:
    """The compiled part. EngineError if it is missing, or not the one that belongs here."""
    try:
        found = ctypes.CDLL(str(_LIBRARY))
        found.intelnav_visit.argtypes = [c_void_p, c_bool, c_void_p]
        found.intelnav_visit.restype = c_bool
        found.intelnav_serve.argtypes = [c_void_p, ctypes.c_int, c_void_p, c_int64, c_void_p]
        found.intelnav_serve.restype = c_int64
        sizes = (c_uint64 * len(_SHARED)).in_dll(found, "intelnav_sizes")
    except (OSError, AttributeError, ValueError) as error:
        raise EngineError(f"a part of IntelNav is missing or broken ({error}): install it again") from None
    if list(sizes) != [ctypes.sizeof(shared) for shared in _SHARED]:
        raise EngineError(
            "a part of IntelNav is of another version, or for another llama.cpp: install it again"
        )
    return found
