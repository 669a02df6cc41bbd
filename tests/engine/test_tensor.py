import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.engine.tensor import Rows, decode, encode

finite_rows = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@given(finite_rows, st.sampled_from(Dtype))
def test_every_encoding_is_finite_and_stable(rows: Rows, dtype: Dtype) -> None:
    state = encode(rows, dtype)
    assert (state.rows, state.width) == rows.shape
    once = decode(state)
    assert once.dtype == np.float32
    assert np.isfinite(once).all()
    if dtype is not Dtype.I8:
        assert np.array_equal(decode(encode(once, dtype)), once)


@given(finite_rows, st.sampled_from(Dtype))
def test_a_known_energy_changes_nothing(rows: Rows, dtype: Dtype) -> None:
    energy = float(np.vdot(rows, rows))
    assert bytes(encode(rows, dtype, energy).payload) == bytes(encode(rows, dtype).payload)


@given(finite_rows)
def test_f32_is_the_rows_themselves(rows: Rows) -> None:
    state = encode(rows, Dtype.F32)
    assert bytes(state.payload) == b"".join(struct.pack("<f", value) for value in rows.flat)
    assert np.array_equal(decode(state), rows)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.0, 1.0),
        (65504.0, 65504.0),
        (65520.0, 65504.0),
        (-1e30, -65504.0),
        (2**-24, 2**-24),
        (0.1, 0.0999755859375),
    ],
)
def test_f16_saturates(value: float, expected: float) -> None:
    assert decode(encode(np.full((1, 2), value, np.float32), Dtype.F16)).tolist() == [[expected] * 2]


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x3F800000, 0x3F80),
        (0x3F808000, 0x3F80),  # A tie goes to the even neighbour, below
        (0x3F818000, 0x3F82),  # and above.
        (0x3F808001, 0x3F81),
        (0xBF807FFF, 0xBF80),
        (0x7F7FFFFF, 0x7F7F),
        (0xFF7FFFFF, 0xFF7F),
        (0x80000000, 0x8000),
    ],
)
def test_bf16_rounds_to_the_nearest_and_saturates(bits: int, expected: int) -> None:
    rows = np.array([[bits]], np.uint32).view(np.float32)
    assert bytes(encode(rows, Dtype.BF16).payload) == expected.to_bytes(2, "little")


@given(arrays(np.float32, (3, 8), elements=st.floats(-1e6, 1e6, width=32)))
def test_i8_is_within_half_a_step_of_each_row(rows: Rows) -> None:
    steps = np.abs(rows).max(axis=1, keepdims=True) / 127
    error = np.abs(decode(encode(rows, Dtype.I8)) - rows)
    assert (error <= steps * 0.5001 + 1e-30).all()


def test_i8_has_all_scales_in_front_of_the_values() -> None:
    rows = np.array([[127, -127], [0, 0], [254, 2]], np.float32)
    payload = bytes(encode(rows, Dtype.I8).payload)
    assert payload == struct.pack("<3f6b", 1, 0, 2, 127, -127, 0, 0, 127, 1)


def test_what_a_peer_sends_is_not_trusted_to_be_finite() -> None:
    infinite = HiddenState(Dtype.I8, 1, 1, struct.pack("<fb", float("inf"), 1))
    assert decode(infinite).tolist() == [[float("inf")]]
