"""Activations between their wire encoding and the float32 rows that llama.cpp computes with."""

from math import inf

import numpy as np
from numpy.typing import NDArray

from intelnav.domain.hidden import Dtype, HiddenState

Rows = NDArray[np.float32]

# Made or looked up once: numpy reads the name of a type anew each time, and Python 3.11 runs code for a member's name.
_SINGLE, _HALF, _UPPER_HALF = np.dtype("<f4"), np.dtype("<f2"), np.dtype("<u2")
_F32, _F16, _BF16 = Dtype.F32, Dtype.F16, Dtype.BF16

_F16_MAX = 65504.0
# The largest finite bfloat16. Like f16, it saturates: an infinity would be refused by the next hop.
_BF16_MAX = 3.3895313892515355e38


def decode(state: HiddenState, out: Rows | None = None) -> Rows:
    """The activations as rows x width float32: in `out`, or in new memory."""
    shape, dtype = (state.rows, state.width), state.dtype
    rows = np.empty(shape, np.float32) if out is None else out
    if dtype is _F16:
        rows[:] = np.ndarray(shape, _HALF, state.payload)
    elif dtype is _F32:
        rows[:] = np.ndarray(shape, _SINGLE, state.payload)
    elif dtype is _BF16:
        high = np.ndarray(shape, _UPPER_HALF, state.payload)
        np.left_shift(high, 16, out=rows.view(np.uint32), dtype=np.uint32)
    else:
        scales = np.ndarray(state.rows, _SINGLE, state.payload)
        values = np.ndarray(shape, np.int8, state.payload, 4 * state.rows)
        np.multiply(values, scales[:, None], out=rows)
    return rows


def encode(rows: Rows, dtype: Dtype, energy: float = inf) -> HiddenState:
    """Finite float32 rows in the encoding `dtype`, in memory of its own.

    `energy` is the sum of their squares, if it is known: a small one tells that nothing can overflow.
    """
    if dtype is _F16:
        payload = _saturated(rows, _F16_MAX, energy).astype(_HALF).data.cast("B")
    elif dtype is _F32:
        payload = rows.astype(_SINGLE, order="C").data.cast("B")
    elif dtype is _BF16:
        bits = _saturated(rows, _BF16_MAX, energy).view(np.uint32)
        # Half of the part that is cut off is added first, a little less if the kept part is even.
        payload = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(_UPPER_HALF).data.cast("B")
    else:
        scales = np.abs(rows).max(axis=1) / np.float32(127)
        divisors = np.where(scales > 0, scales, np.float32(1))
        values = np.rint(rows / divisors[:, None]).clip(-127, 127).astype(np.int8)
        payload = memoryview(scales.astype(_SINGLE).tobytes() + values.tobytes())
    return HiddenState(dtype, len(rows), rows.shape[1], payload)


def _saturated(rows: Rows, limit: float, energy: float) -> Rows:
    """`rows` within plus and minus `limit`; two ufuncs, since `clip` is a detour through Python."""
    # Half is more than a float32 sum can be wrong by.
    if energy < limit * limit / 2:
        return rows
    capped: Rows = np.minimum(rows, np.float32(limit))
    return np.maximum(capped, np.float32(-limit), out=capped)
