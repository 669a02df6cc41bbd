"""Activations between their wire encoding and the float32 rows that llama.cpp computes with."""

from math import inf

import numpy as np
from numpy.typing import NDArray

from intelnav.domain.hidden import Dtype, HiddenState

Rows = NDArray[np.float32]

# Made once: numpy reads the name of a type anew each time.
_F32, _F16, _U16 = np.dtype("<f4"), np.dtype("<f2"), np.dtype("<u2")

_F16_MAX = 65504.0
# The largest finite bfloat16. Like f16, it saturates: an infinity would be refused by the next hop.
_BF16_MAX = 3.3895313892515355e38


def decode(state: HiddenState, out: Rows | None = None) -> Rows:
    """The activations as rows x width float32: in `out`, or in new memory."""
    shape = (state.rows, state.width)
    rows = np.empty(shape, np.float32) if out is None else out
    match state.dtype:
        case Dtype.F32:
            rows[:] = np.ndarray(shape, _F32, state.payload)
        case Dtype.F16:
            rows[:] = np.ndarray(shape, _F16, state.payload)
        case Dtype.BF16:
            high = np.ndarray(shape, _U16, state.payload)
            np.left_shift(high, 16, out=rows.view(np.uint32), dtype=np.uint32)
        case Dtype.I8:
            scales = np.ndarray(state.rows, _F32, state.payload)
            values = np.ndarray(shape, np.int8, state.payload, 4 * state.rows)
            np.multiply(values, scales[:, None], out=rows)
    return rows


def encode(rows: Rows, dtype: Dtype, energy: float = inf) -> HiddenState:
    """Finite float32 rows in the encoding `dtype`, in memory of its own.

    `energy` is the sum of their squares, if it is known: a small one tells that nothing can overflow.
    """
    match dtype:
        case Dtype.F32:
            payload = rows.astype(_F32, order="C").data.cast("B")
        case Dtype.F16:
            payload = _saturated(rows, _F16_MAX, energy).astype(_F16).data.cast("B")
        case Dtype.BF16:
            bits = _saturated(rows, _BF16_MAX, energy).view(np.uint32)
            # Half of the part that is cut off is added first, a little less if the kept part is even.
            payload = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(_U16).data.cast("B")
        case Dtype.I8:
            scales = np.abs(rows).max(axis=1) / np.float32(127)
            divisors = np.where(scales > 0, scales, np.float32(1))
            values = np.rint(rows / divisors[:, None]).clip(-127, 127).astype(np.int8)
            payload = memoryview(scales.astype(_F32).tobytes() + values.tobytes())
    return HiddenState(dtype, len(rows), rows.shape[1], payload)


def _saturated(rows: Rows, limit: float, energy: float) -> Rows:
    """`rows` within plus and minus `limit`; two ufuncs, since `clip` is a detour through Python."""
    # Half is more than a float32 sum can be wrong by.
    if energy < limit * limit / 2:
        return rows
    capped: Rows = np.minimum(rows, np.float32(limit))
    return np.maximum(capped, np.float32(-limit), out=capped)
