"""Hidden states out of a graph that llama.cpp is computing, and into it."""

import ctypes
import sys
from ctypes import POINTER, c_bool, c_size_t, c_uint64, string_at
from pathlib import Path

import numpy as np

from intelnav.domain.errors import EngineError
from intelnav.engine.llama.ggml import base, name_offset
from intelnav.engine.tensor import Rows

# The last argument, user data, is left out: who is called may leave it unread.
_Meet = ctypes.CFUNCTYPE(c_bool, c_size_t, c_bool)

# Some architectures scale the hidden states that they are fed like a token's embedding; this names the product.
_SCALED_INPUT = b"inp_scaled"


_LIBRARY = Path(__file__).with_name("libtap.so")


class _Watch(ctypes.Structure):
    """What `tap.cpp` is told: whom to call, where a tensor has its name, and the first eight bytes of those awaited."""

    _fields_ = (
        ("meet", _Meet),
        ("name_offset", c_uint64),
        ("count", c_uint64),
        ("prefixes", POINTER(c_uint64)),
    )


class Tap:
    """Reads a layer's output while llama.cpp computes a graph, and ends the computation there.

    `callback` and `user_data` go into `llama_context_params`; both are addresses that last as long as the tap.
    """

    def __init__(self, width: int, max_rows: int) -> None:
        """EngineError if the compiled part is missing."""
        self._rows: Rows = np.empty((max_rows, width), np.float32)
        self._address = self._rows.ctypes.data
        self._row_bytes = 4 * width
        self._captured = self._fed_rows = 0
        self._wanted = b""
        self._fed: Rows | None = None
        self._asks: tuple[int | None, bool] | None = None
        self._scales_input = False
        self._met: list[bytes] | None = None
        self._offset = name_offset()
        self._watched = _Watch(_Meet(self._meet), self._offset)
        self.callback = _visit()
        self.user_data = ctypes.addressof(self._watched)

    def survey(self, layers: int) -> None:
        """Before a first decode of one row: only note which block outputs the graph has."""
        self._met, self._asks = [], None
        self._watch([*map(_block_output, range(layers)), _SCALED_INPUT])

    def check(self, layers: int) -> None:
        """After that decode: EngineError unless the output of each block was met exactly once."""
        met, self._met = self._met or [], None
        for layer in range(layers):
            if (count := met.count(_block_output(layer))) != 1:
                raise EngineError(
                    f"llama.cpp names the output of block {layer} {count} times, not once: "
                    "models of this architecture cannot be run in slices"
                )
        self._scales_input = _SCALED_INPUT in met

    def watch(self, block: int | None, fed: Rows | None) -> None:
        """Before a decode: end it after `block` (of the slice), if given; `fed` are the hidden states put in."""
        self._fed = fed if self._scales_input else None
        self._captured = self._fed_rows = 0
        asks = block, self._fed is not None
        if asks == self._asks:
            return
        self._asks = asks
        self._wanted = b"" if block is None else _block_output(block)
        self._watch(([self._wanted] if self._wanted else []) + ([] if self._fed is None else [_SCALED_INPUT]))

    def take(self, rows: int) -> Rows:
        """After the decode: the captured rows in the order of the batch; EngineError if some are missing.

        They are the tap's own, and stand until the next decode.
        """
        if self._captured != rows:
            raise EngineError(f"{self._captured} of {rows} rows came out of the graph")
        return self._rows[:rows]

    def _watch(self, names: list[bytes]) -> None:
        prefixes = {int.from_bytes(name.ljust(8, b"\0")[:8], sys.byteorder) for name in names}
        self._watched.prefixes = (c_uint64 * len(prefixes))(*prefixes)
        self._watched.count = len(prefixes)

    def _meet(self, tensor: int, ask: bool) -> bool:
        """Called twice for a tensor that is wanted: whether it is, and then, with False, once it is computed."""
        name = string_at(tensor + self._offset)
        if self._met is not None:
            self._met.append(name)
            return False
        if name == self._wanted:
            if not ask:
                self._capture(tensor)
            return ask
        if name == _SCALED_INPUT and self._fed is not None:
            if not ask:
                self._feed(tensor, self._fed)
            return True
        return False

    def _capture(self, tensor: int) -> None:
        """Append what one micro-batch gave: a decode comes here once for each of them."""
        rows = base.ggml_nbytes(tensor) // self._row_bytes
        if self._captured + rows <= len(self._rows):
            start = self._address + self._captured * self._row_bytes
            base.ggml_backend_tensor_get(tensor, start, 0, rows * self._row_bytes)
        self._captured += rows

    def _feed(self, tensor: int, fed: Rows) -> None:
        rows = base.ggml_nbytes(tensor) // self._row_bytes
        if self._fed_rows + rows <= len(fed):
            start = fed.ctypes.data + self._fed_rows * self._row_bytes
            base.ggml_backend_tensor_set(tensor, start, 0, rows * self._row_bytes)
        self._fed_rows += rows


def _visit() -> int:
    """The address of the function in `tap.cpp`."""
    try:
        visit = ctypes.CDLL(str(_LIBRARY)).intelnav_visit
    except OSError as error:
        raise EngineError(f"a part of IntelNav is missing or broken ({error}): install it again") from None
    return ctypes.cast(visit, ctypes.c_void_p).value or 0


def _block_output(block: int) -> bytes:
    return f"l_out-{block}".encode()
