"""The compiled loop that answers what nearly every token is; see `native/loop.cpp`."""

import ctypes
import os
from collections.abc import Callable

import llama_cpp.llama_cpp as llama

from intelnav.engine.interface import SliceInfo
from intelnav.engine.link import OUTPUT_HEAD, READ_BYTES
from intelnav.engine.llama import native
from intelnav.engine.llama.ggml import base
from intelnav.engine.llama.native import address
from intelnav.engine.llama.tap import Tap
from intelnav.engine.sequences import Sequences

# The largest token, as a reply has it.
_TOKEN_BYTES = 8
# Says that there is no token.
_ABSENT = -1
_WORD = 8


class Loop:
    """Runs forwards of one row between a socket and a loaded slice, whose parts are given.

    `batch` feeds rows of `tap`'s width; `sequences` says which forward may run, and learns of those that did.
    """

    def __init__(
        self,
        info: SliceInfo,
        context: int,
        batch: llama.llama_batch,
        tap: Tap,
        sequences: Sequences,
        pick: Callable[[int, int], int],
        *,
        max_energy: float,
    ) -> None:
        """`pick` samples for a sequence at a position, from the last decode's only row."""

        def picked(sequence: int, position: int) -> int:
            try:
                return pick(sequence, position)
            except Exception:  # noqa: BLE001 # none can pass through C
                # It comes again when Python does the same.
                return _ABSENT

        # Whatever the struct points to lives as long as the loop.
        self._parts = batch, tap, sequences, native.Pick(picked)
        self._struct = native.SliceStruct(
            watch=tap.user_data,
            context=context,
            memory=ctypes.cast(llama.llama_get_memory(context), ctypes.c_void_p),
            input=ctypes.addressof(batch),
            decode=address(llama.llama_decode),
            logits=address(llama.llama_get_logits_ith),
            cut=address(llama.llama_memory_seq_rm),
            to_halves=address(base.ggml_fp32_to_fp16_row),
            from_halves=address(base.ggml_fp16_to_fp32_row),
            sequences=ctypes.addressof(sequences.states),
            sequence_count=info.sessions,
            context_length=info.context,
            layer_start=info.layers.start,
            layer_end=info.layers.end,
            blocks=info.blocks,
            width=info.width,
            vocabulary=info.vocabulary,
            max_energy=max_energy,
            pick=address(self._parts[-1]),
        )
        self._serve = native.library().intelnav_serve
        # Of words, so that the structs in them are aligned.
        self._received = (ctypes.c_uint64 * (READ_BYTES // _WORD))()
        self._reply = (ctypes.c_uint64 * ((OUTPUT_HEAD + max(4 * info.width, _TOKEN_BYTES)) // _WORD + 1))()

    def serve(self, socket: int) -> bytes:
        """Answer forwards until something else came, which is returned; no bytes once the other side has hung up.

        Raises OSError for a socket that fails.
        """
        size = self._serve(ctypes.addressof(self._struct), socket, self._received, READ_BYTES, self._reply)
        if size < 0:
            raise OSError(-size, os.strerror(-size))
        return ctypes.string_at(self._received, size)
