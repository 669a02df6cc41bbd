"""Hidden states out of a graph that llama.cpp is computing, and into it."""

import ctypes

import numpy as np

from intelnav.domain.errors import EngineError
from intelnav.engine.llama.ggml import base, name_offset
from intelnav.engine.llama.native import Survey, TapStruct, address, library
from intelnav.engine.tensor import Rows

# Some architectures scale the hidden states that they are fed like a token's embedding; this names the product.
_SCALED_INPUT = b"inp_scaled"


class Tap:
    """Reads a layer's output while llama.cpp computes a graph, and ends the computation there.

    `fed` are the rows that hidden states are put into before a decode, None in a slice that is fed tokens. `callback`
    and `user_data` go into `llama_context_params`; both are addresses that last as long as the tap.
    """

    def __init__(self, width: int, max_rows: int, fed: Rows | None = None) -> None:
        """EngineError if the compiled part is missing."""
        self._rows: Rows = np.empty((max_rows, width), np.float32)
        self._row_bytes = 4 * width
        self._fed = fed
        self._met: list[bytes] = []
        self._survey = Survey(self._met.append)
        self.struct = TapStruct(
            name_offset=name_offset(),
            bytes_of=address(base.ggml_nbytes),
            get=address(base.ggml_backend_tensor_get),
            set=address(base.ggml_backend_tensor_set),
            captured=self._rows.ctypes.data,
            captured_capacity=self._rows.nbytes,
            fed=None if fed is None else fed.ctypes.data,
        )
        self.callback = address(library().intelnav_visit)
        self.user_data = ctypes.addressof(self.struct)

    def survey(self) -> None:
        """Before a first decode of one row: only note which names the graph has."""
        self._met.clear()
        self.struct.survey = address(self._survey)

    def check(self, layers: int) -> None:
        """After that decode: EngineError unless the output of each block was met exactly once."""
        self.struct.survey = None
        for layer in range(layers):
            if (count := self._met.count(_block_output(layer))) != 1:
                raise EngineError(
                    f"llama.cpp names the output of block {layer} {count} times, not once: "
                    "models of this architecture cannot be run in slices"
                )
        if self._fed is not None and _SCALED_INPUT in self._met:
            self.struct.replaced = _SCALED_INPUT

    def watch(self, block: int | None, rows: int) -> None:
        """Before a decode of `rows`: end it after `block` (of the slice), if given."""
        struct = self.struct
        struct.wanted = b"" if block is None else _block_output(block)
        struct.captured_size = struct.fed_size = 0
        struct.fed_capacity = rows * self._row_bytes

    def take(self, rows: int) -> Rows:
        """After the decode: the captured rows in the order of the batch; EngineError if some are missing.

        They are the tap's own, and stand until the next decode.
        """
        if self.struct.captured_size != rows * self._row_bytes:
            captured = self.struct.captured_size // self._row_bytes
            raise EngineError(f"{captured} of {rows} rows came out of the graph")
        return self._rows[:rows]


def _block_output(block: int) -> bytes:
    return f"l_out-{block}".encode()
