"""The compiled loop against the same in Python: it gives what Python gives, or leaves a request to it as it came."""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from intelnav.domain.errors import PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import Forward, Output, SliceInfo, SliceSpec
from intelnav.engine.link import pack_forward, unpack_forward, write_frame
from intelnav.engine.llama import LlamaSlice
from intelnav.engine.tensor import encode
from intelnav.store.cut import cut
from tests.engine.looping import looped, request, served
from tests.models import WIDTH, tiny_model

SAMPLINGS = (None, Sampling(), Sampling(temperature=0.8, seed=3), Sampling(repeat_penalty=1.3))
ROOM = SliceSpec(Path(), sessions=4, context=16, max_rows=8)


@dataclass
class Twins:
    """One slice, loaded twice: `first` answers by its loop and, like a worker, by Python what that leaves over."""

    first: LlamaSlice
    second: LlamaSlice

    def open(self) -> None:
        """Sequence 0 to 3, each with another sampling where there is a head."""
        for stage in (self.first, self.second):
            for sequence, sampling in enumerate(SAMPLINGS):
                stage.close(sequence)
                stage.open(sequence, sampling if stage.info.is_tail else None)

    def close(self, sequence: int) -> None:
        for stage in (self.first, self.second):
            stage.close(sequence)

    def compare(self, forward: Forward) -> bool:
        """Run a forward in both; whether the loop answered it."""
        # As it arrives, which for what no node would send is something else.
        forward = unpack_forward(*pack_forward(forward))
        output = looped(self.first, forward)
        (left,) = [output] if output is not None else self.first.forward([forward])
        (right,) = self.second.forward([forward])
        if isinstance(left, Output) and isinstance(right, Output):
            assert left.tokens == right.tokens
            assert contents(left.hidden) == contents(right.hidden)
        else:
            assert (type(left), str(left)) == (type(right), str(right))
        return output is not None


def contents(state: HiddenState | None) -> object:
    return None if state is None else (state.dtype, state.rows, state.width, bytes(state.payload))


def load(path: Path) -> Twins:
    return Twins(*(LlamaSlice(replace(ROOM, path=path), gpus=(), threads=1) for _ in range(2)))


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Twins]:
    """Front, middle and tail of a tiny model."""
    folder = tmp_path_factory.mktemp("twins")
    whole = tiny_model(folder / "whole.gguf", request.param)
    slices = []
    for start, end in pairwise((0, 2, 4, 6)):
        cut(whole, LayerRange(start, end), folder / f"{start}.gguf", "b3-" + "a" * 52)
        slices.append(load(folder / f"{start}.gguf"))
    return slices


def states(rows: int, seed: int, dtype: Dtype = Dtype.F32) -> HiddenState:
    values = np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)
    return encode(values, dtype)


def single(info: SliceInfo, position: int, sequence: int = 1) -> Forward:
    """A forward of the kind that is the loop's."""
    forward = Forward(sequence, position, info.layers.end)
    if info.is_front:
        forward = replace(forward, tokens=(7 + position,))
    else:
        forward = replace(forward, hidden=states(1, position, Dtype.F16))
    return replace(forward, sample_from=0) if info.is_tail else replace(forward, reply=Dtype.F16)


def values(seed: int, odd: float, width: int = WIDTH) -> NDArray[np.float32]:
    row = np.random.default_rng(seed).standard_normal((1, width)).astype(np.float32)
    row[0, 0] = odd
    return row


# One thing about a forward that the loop would take, changed to what it must not take, or may.
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "sequence": st.integers(-1, 4),
    "position": st.integers(0, 17),
    "stop": st.integers(0, 7),
    "truncate_to": st.integers(-2, 17),
    "sample_from": st.sampled_from([None, -1, 0, 1]),
    "reply": st.sampled_from([None, *Dtype]),
    "tokens": st.lists(st.integers(7, 90), max_size=9).map(tuple)
    | st.tuples(st.sampled_from([-(2**40), -1, 0, 90, 10**6, 2**31, 2**32 + 7])),
    "hidden": st.sampled_from(
        [
            None,
            HiddenState(Dtype.F32, 2, WIDTH // 2, bytes(4 * WIDTH)),
            HiddenState(Dtype.F32, 1, 2, bytes(8)),
        ]
    )
    | st.builds(states, st.integers(1, 9), st.integers(0, 9), st.sampled_from(Dtype))
    | st.builds(
        encode,
        st.builds(values, st.integers(0, 9), st.sampled_from([np.nan, np.inf, -np.inf, 3e18, 9e17])),
        st.just(Dtype.F32),
    )
    | st.builds(
        encode,
        st.builds(values, st.just(0), st.just(1), st.sampled_from([1, 2, 63, 65, 128])),
        st.just(Dtype.F32),
    ),
}


@st.composite
def changed(draw: st.DrawFn, forward: Forward) -> Forward:
    for field in draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=2)):
        forward = replace(forward, **{field: draw(CHANGES[field])})
        if field == "tokens":
            forward = replace(forward, hidden=None)
    return forward


@pytest.mark.parametrize("index", range(3))
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_whatever_comes_has_the_same_result(twins: list[Twins], index: int, data: st.DataObject) -> None:
    pair = twins[index]
    pair.open()
    states = pair.first._sequences.states
    closed = data.draw(st.sampled_from([None, 0, 3]))
    if closed is not None:
        pair.close(closed)
    for sequence in data.draw(st.lists(st.integers(0, 3), max_size=20)):
        fitting = single(pair.first.info, states[sequence].length, sequence)
        pair.compare(data.draw(changed(fitting)))
    # Both stand where they would had the loop done nothing.
    for first, second in zip(states, pair.second._sequences.states, strict=True):
        assert (first.length, first.stop, first.kind) == (second.length, second.stop, second.kind)


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.F16])
@pytest.mark.parametrize("index", range(3))
def test_tokens_one_by_one_are_the_loops(twins: list[Twins], index: int, dtype: Dtype) -> None:
    pair = twins[index]
    pair.open()
    for position in range(16):
        forward = single(pair.first.info, position)
        if forward.hidden is not None:
            forward = replace(forward, hidden=states(1, position, dtype))
        if forward.reply is not None:
            forward = replace(forward, reply=dtype)
        assert pair.compare(forward)
    assert not pair.compare(single(pair.first.info, 16))


def test_what_is_not_one_forward_of_one_row_is_left_to_python(twins: list[Twins]) -> None:
    for pair in twins:
        pair.open()
        info = pair.first.info
        forward = single(info, 0)
        whole = request(forward)
        for data in (whole + whole, whole[:-1], whole[:20], write_frame(1, {"call": "close"}), whole + b"x"):
            assert served(pair.first, data) == (b"", data)
        many = (
            replace(forward, tokens=(7, 8), sample_from=None)
            if info.is_front
            else replace(forward, hidden=states(2, 0))
        )
        assert not pair.compare(many)
        assert not pair.compare(replace(single(info, 1), position=1, truncate_to=1))
        assert served(pair.first, b"") == (b"", b"")


def test_every_sampling_gives_what_it_gives_in_python(twins: list[Twins]) -> None:
    tail = twins[2]
    tail.open()
    for position in range(12):
        taken = [tail.compare(single(tail.first.info, position, sequence)) for sequence in range(4)]
        assert taken == [sampling is not None for sampling in SAMPLINGS]
        tail.compare(replace(single(tail.first.info, position, 0), sample_from=None))


def test_other_encodings_are_left_to_python(twins: list[Twins]) -> None:
    middle = twins[1]
    for dtype in (Dtype.BF16, Dtype.I8):
        middle.open()
        assert not middle.compare(replace(single(middle.first.info, 0), hidden=states(1, 0, dtype)))
        assert not middle.compare(replace(single(middle.first.info, 1), reply=dtype))


def test_a_tail_may_stop_early_for_one_and_sample_for_another(twins: list[Twins]) -> None:
    pair = twins[2]
    pair.open()
    for position in range(3):
        assert pair.compare(single(pair.first.info, position))
        early = replace(single(pair.first.info, position, 0), stop=5, sample_from=None, reply=Dtype.F16)
        assert pair.compare(early)


def test_a_first_forward_is_fed_as_any(tmp_path: Path) -> None:
    # Of this architecture, llama.cpp scales what it is fed, which has to be put right.
    whole = tiny_model(tmp_path / "whole.gguf", "gemma2")
    cut(whole, LayerRange(2, 4), tmp_path / "slice.gguf", "b3-" + "a" * 52)
    pair = load(tmp_path / "slice.gguf")
    pair.open()
    assert pair.compare(single(pair.first.info, 0))


@pytest.mark.parametrize(("start", "end"), [(2, 4), (4, 6)])
def test_a_result_that_is_not_finite_is_refused_by_both(start: int, end: int, tmp_path: Path) -> None:
    whole = tiny_model(tmp_path / "whole.gguf")
    for tensor in gguf.GGUFReader(whole, "r+").tensors:
        if tensor.name == f"blk.{end - 1}.ffn_down.weight":
            tensor.data[:] = 3e38
    path = tmp_path / "slice.gguf"
    cut(whole, LayerRange(start, end), path, "b3-" + "a" * 52)
    pair = load(path)
    pair.open()
    forward = single(pair.first.info, 0)
    assert not pair.compare(forward)
    (refusal,) = pair.first.forward([replace(forward, truncate_to=0)])
    assert isinstance(refusal, PeerError)
    assert "not finite" in str(refusal)
