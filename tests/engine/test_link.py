from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.errors import Code, ConfigError, EngineError, IntelNavError, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import Footprint
from intelnav.engine.interface import Forward, Output, SliceInfo, SliceSpec
from intelnav.engine.link import (
    Frame,
    FrameReader,
    Payload,
    pack_error,
    pack_forward,
    pack_info,
    pack_load,
    pack_output,
    unpack_error,
    unpack_forward,
    unpack_info,
    unpack_load,
    unpack_output,
    write_frame,
)

STATE = HiddenState(Dtype.F16, 2, 3, bytes(range(12)))


def through_a_frame(fields: Any, payload: Payload = b"") -> tuple[Any, ...]:
    ((number, *arrived),) = FrameReader().feed(write_frame(7, fields, payload))
    assert number == 7
    return tuple(arrived)


fields = st.one_of(st.binary(max_size=20), st.dictionaries(st.text(max_size=5), st.integers(), max_size=3))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), fields, st.binary(max_size=40))), st.data())
def test_frames_survive_any_chunking(frames: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(write_frame(*frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=9)))
    reader = FrameReader()
    received = [
        (number, fields, bytes(payload))
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for number, fields, payload in reader.feed(stream[start:end])
    ]
    assert received == frames


@pytest.mark.parametrize(
    "forward",
    [
        Forward(0, 0, 8, tokens=(1, 2, 3), reply=Dtype.I8),
        Forward(7, 41, 30, hidden=STATE, truncate_to=41, sample_from=1),
    ],
)
def test_a_forward_arrives_as_it_was(forward: Forward) -> None:
    assert unpack_forward(*through_a_frame(*pack_forward(forward))) == forward


@pytest.mark.parametrize("output", [Output(STATE, (), 812), Output(None, (5, 6), 3), Output()])
def test_an_output_arrives_as_it_was(output: Output) -> None:
    assert unpack_output(*through_a_frame(*pack_output(output))) == output


def test_what_is_to_be_loaded_arrives_as_it_was() -> None:
    wanted = SliceSpec(Path("a.gguf"), 3, 100, 10, "cuda", 5, 2), Footprint(1, 2, 3), 7
    fields, _ = through_a_frame(pack_load(*wanted))
    assert unpack_load(fields) == wanted


def test_what_was_loaded_arrives_as_it_was() -> None:
    info = SliceInfo(LayerRange(0, 8), 30, "llama", 576, 49152, 4096, 8, 128, frozenset({2, 0}), "class", 9)
    fields, _ = through_a_frame(pack_info(info))
    assert unpack_info(fields) == info


@pytest.mark.parametrize(
    "error", [PeerError(Code.TOO_LONG, "too long"), ConfigError("no gpu"), EngineError("it broke")]
)
def test_an_error_arrives_with_its_class_code_and_reason(error: IntelNavError) -> None:
    fields, _ = through_a_frame(pack_error(error))
    arrived = unpack_error(fields)
    assert (type(arrived), arrived.code, str(arrived)) == (type(error), error.code, str(error))
