"""A hidden state on its way between two slices: a matrix of activations in a named encoding."""

from dataclasses import dataclass
from enum import StrEnum

from intelnav.domain.errors import Code, PeerError


class Dtype(StrEnum):
    """How activations are encoded on the wire; all little-endian, row-major."""

    F32 = "f32", 4
    F16 = "f16", 2
    BF16 = "bf16", 2
    # One f32 scale for each row, in front of all bytes.
    I8 = "i8", 1, 4

    value_bytes: int
    scale_bytes: int

    def __new__(cls, text: str, value_bytes: int, scale_bytes: int = 0) -> "Dtype":
        """A member with its text, bytes for each value, and bytes for each row besides."""
        dtype = str.__new__(cls, text)
        dtype._value_ = text
        dtype.value_bytes = value_bytes
        dtype.scale_bytes = scale_bytes
        return dtype

    def row_bytes(self, width: int) -> int:
        """Bytes of one row of `width` values."""
        return self.scale_bytes + self.value_bytes * width


@dataclass(slots=True, init=False)
class HiddenState:
    """`rows` positions of `width` (= n_embd) activations each. `payload` is never larger or smaller than that."""

    dtype: Dtype
    rows: int
    width: int
    payload: bytes | bytearray | memoryview

    def __init__(self, dtype: Dtype, rows: int, width: int, payload: bytes | bytearray | memoryview) -> None:
        """Raises PeerError if the payload is not as large as the shape says."""
        if rows < 1 or width < 1 or len(payload) != rows * dtype.row_bytes(width):
            raise PeerError(
                Code.BAD_REQUEST,
                f"hidden state of {rows} x {width} {dtype} does not fit {len(payload)} bytes",
            )
        self.dtype = dtype
        self.rows = rows
        self.width = width
        self.payload = payload
