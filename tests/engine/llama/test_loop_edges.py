"""The compiled loop around a decode that computes what a test says."""

import ctypes
from collections.abc import Callable
from dataclasses import replace

import llama_cpp.llama_cpp as llama
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intelnav.domain.hidden import Dtype
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import Forward, Output, SliceInfo
from intelnav.engine.llama.loop import Loop
from intelnav.engine.llama.native import address
from intelnav.engine.llama.slice import MAX_ENERGY
from intelnav.engine.llama.tap import Tap
from intelnav.engine.sequences import Sequences, SequenceState
from intelnav.engine.tensor import decode, encode
from tests.engine.looping import looped

Decode = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, llama.llama_batch)
Logits = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
Cut = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32)


class Staged:
    """A loop around a decode that computes what a test says: a row of hidden states, or logits."""

    def __init__(
        self, *, width: int = 1, vocabulary: int = 1, tail: bool = False, sampling: Sampling | None = None
    ) -> None:
        layers = LayerRange(4, 6) if tail else LayerRange(2, 4)
        self.info = SliceInfo(layers, 6, "llama", width, vocabulary, 64, 1, 8, frozenset(), "class", 0)
        self.status = 0
        self.gives = np.zeros(vocabulary if tail else width, np.float32)
        self.cuts: list[tuple[int, int, int]] = []
        self.picks: Callable[[], int] = lambda: 0
        self._fed = np.zeros((1, width), np.float32)
        self._tap = Tap(width, 1, self._fed)
        self._sequences = Sequences(self.info)
        self._sequences.open(0, sampling or Sampling() if tail else None)
        one = (ctypes.c_int32 * 1)()
        batch = llama.llama_batch()
        batch.embd = self._fed.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        batch.pos, batch.logits = (ctypes.c_int32 * 1)(), (ctypes.c_int8 * 1)()
        batch.seq_id = (ctypes.POINTER(ctypes.c_int32) * 1)(ctypes.cast(one, ctypes.POINTER(ctypes.c_int32)))
        self._kept = one, batch
        self._functions = Decode(self._decode), Logits(lambda *_: self.gives.ctypes.data), Cut(self._cut)
        self._loop = Loop(self.info, 0, batch, self._tap, self._sequences, self._pick, max_energy=MAX_ENERGY)
        struct = self._loop._struct
        struct.decode, struct.logits, struct.cut = map(address, self._functions)

    @property
    def fed(self) -> NDArray[np.float32]:
        """What was put in for the last decode."""
        row: NDArray[np.float32] = self._fed[0]
        return row

    def run(self, values: NDArray[np.float32], dtype: Dtype = Dtype.F32) -> Output | None:
        """One forward of these hidden states, at the start of the sequence."""
        self._sequences.states[0].length = 0
        forward = Forward(0, 0, self.info.layers.end, hidden=encode(values[None], dtype))
        return looped(
            self,
            replace(forward, sample_from=0) if self.info.is_tail else replace(forward, reply=dtype),
        )

    def serve(self, descriptor: int) -> bytes:
        return self._loop.serve(descriptor)

    def _decode(self, _context: int, batch: llama.llama_batch) -> int:
        assert (batch.n_tokens, batch.pos[0], batch.seq_id[0][0], batch.logits[0]) == (1, 0, 0, 1)
        if not self.info.is_tail:
            assert self._tap.struct.wanted == b"l_out-1"
            ctypes.memmove(self._tap.struct.captured, self.gives.ctypes.data, self.gives.nbytes)
            self._tap.struct.captured_size = self.gives.nbytes
        return self.status

    def _pick(self, sequence: int, position: int) -> int:
        assert (sequence, position) == (0, 0)
        return self.picks()

    def _cut(self, _memory: int, sequence: int, start: int, end: int) -> bool:
        self.cuts.append((sequence, start, end))
        return True


singles = st.floats(width=32)


@given(
    st.lists(st.sampled_from([0.5, 1.0, -1.0]) | st.floats(-1e6, 1e6, width=32), min_size=1, max_size=70),
    st.none() | st.tuples(st.integers(0, 69), st.sampled_from([np.nan, np.inf, -np.inf])),
)
def test_the_first_of_the_likeliest_tokens_is_taken(
    logits: list[float], odd: tuple[int, float] | None
) -> None:
    if odd is not None:
        logits[odd[0] % len(logits)] = odd[1]
    staged = Staged(vocabulary=len(logits), tail=True)
    staged.gives[:] = logits
    output = staged.run(np.ones(1, np.float32))
    best = int(staged.gives.argmax())
    assert (output and output.tokens) == ((best,) if np.isfinite(staged.gives[best]) else None)


def sound(row: NDArray[np.float32]) -> bool:
    """Whether it may pass, by the same sum as in the loop."""
    wide = row.astype(np.float64)
    return bool(np.vdot(wide, wide) <= MAX_ENERGY)


@given(st.lists(st.one_of(singles, st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=20))
def test_hidden_states_are_converted_as_in_python(values: list[float]) -> None:
    given = np.array(values, np.float32)
    staged = Staged(width=len(given))
    for dtype in (Dtype.F32, Dtype.F16):
        with np.errstate(all="ignore"):
            staged.gives[:] = given
            output = staged.run(np.ones(len(given), np.float32), dtype)
            assert (output is not None) == sound(given)
            if output is not None:
                assert output.hidden is not None
                expected = encode(given[None], dtype)
                assert (output.hidden.dtype, output.hidden.rows, output.hidden.width) == (
                    dtype,
                    1,
                    len(given),
                )
                assert bytes(output.hidden.payload) == bytes(expected.payload)
            staged.gives[:] = 1
            output = staged.run(given, dtype)
            arrived = decode(encode(given[None], dtype))[0]
            assert (output is not None) == sound(arrived)
            if output is not None:
                assert staged.fed.tobytes() == arrived.tobytes()


@pytest.mark.parametrize("sequence", [-1, 1, 2**40])
def test_beside_the_sequences_nothing_is_read(sequence: int) -> None:
    staged = Staged()
    states = (SequenceState * 3)()
    for state in states:
        state.start(None)
    staged._loop._struct.sequences = ctypes.addressof(states[1])
    forward = Forward(sequence, 0, 4, hidden=encode(np.ones((1, 1), np.float32), Dtype.F32), reply=Dtype.F32)
    assert looped(staged, forward) is None
    assert looped(staged, replace(forward, sequence=0)) is not None


def test_a_row_that_did_not_come_out_is_no_result() -> None:
    staged = Staged(width=2)
    staged.gives = np.zeros(1, np.float32)
    assert staged.run(np.ones(2, np.float32)) is None


def test_what_cannot_be_sampled_is_left_to_python() -> None:
    staged = Staged(tail=True, vocabulary=5, sampling=Sampling(temperature=0.8))

    def broken() -> int:
        raise OSError

    for picks, tokens in ((lambda: 0, (0,)), (lambda: 4, (4,)), (lambda: 5, None), (broken, None)):
        staged.picks = picks
        output = staged.run(np.ones(1, np.float32))
        assert (output and output.tokens) == tokens
    assert staged.cuts == [(0, 0, -1)] * 2


def test_a_socket_that_fails_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        Staged().serve(-1)


def test_a_decode_that_fails_leaves_the_cache_as_it_was() -> None:
    staged = Staged()
    staged.status = 1
    assert staged.run(np.ones(1, np.float32)) is None
    assert staged.cuts == [(0, 0, -1)]
    staged.status = 0
    assert staged.run(np.ones(1, np.float32)) is not None
    assert len(staged.cuts) == 1
