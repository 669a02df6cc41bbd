"""A hidden state on its way between two slices: a matrix of activations in a named encoding."""

from dataclasses import dataclass
from enum import StrEnum

from intelnav.domain.errors import Code, PeerError


class Dtype(StrEnum):
    """How activations are encoded on the wire; all little-endian, row-major."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    I8 = "i8"

    def row_bytes(self, width: int) -> int:
        """Bytes of one row of `width` values; `i8` rows carry one f32 scale each, in front of all bytes."""
        if self is Dtype.F32:
            return 4 * width
        return 4 + width if self is Dtype.I8 else 2 * width


@dataclass(frozen=True, slots=True)
class HiddenState:
    """`rows` positions of `width` (= n_embd) activations each. `payload` is never larger or smaller than that."""

    dtype: Dtype
    rows: int
    width: int
    payload: bytes | bytearray | memoryview

    def __post_init__(self) -> None:
        if (
            self.rows < 1
            or self.width < 1
            or len(self.payload) != self.rows * self.dtype.row_bytes(self.width)
        ):
            raise PeerError(
                Code.BAD_REQUEST,
                f"hidden state of {self.rows} x {self.width} {self.dtype} does not fit {len(self.payload)} bytes",
            )
