"""On the real model, whose numbers do not depend on what else is in a batch: equal here means bit for bit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from intelnav.domain.errors import Code, EngineError, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import Forward, Output, SliceSpec
from intelnav.engine.llama import LlamaSlice
from intelnav.engine.tensor import decode, encode
from intelnav.store.cut import cut
from tests.models import tiny_model
from tests.reference import PlainLlama, logits_of

PROMPT = "The capital of France is Paris, and the capital of Italy is"
WIDTH = 576


def load(path: Path) -> LlamaSlice:
    return LlamaSlice(SliceSpec(path, sessions=8, context=256, max_rows=32), gpus=(), threads=1)


@pytest.fixture(scope="module")
def loaded(slices: list[Path]) -> list[LlamaSlice]:
    return [load(path) for path in slices]


@pytest.fixture
def chain(loaded: list[LlamaSlice]) -> list[LlamaSlice]:
    """Front, two middles and tail, with no sequence open."""
    for stage in loaded:
        for sequence in range(stage.info.sessions):
            stage.close(sequence)
    return loaded


@pytest.fixture
def middle(chain: list[LlamaSlice]) -> LlamaSlice:
    return chain[1]


@pytest.fixture
def tail(chain: list[LlamaSlice]) -> LlamaSlice:
    return chain[-1]


def states(rows: int, seed: int = 0) -> HiddenState:
    values = np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)
    return encode(values, Dtype.F32)


def one(stage: LlamaSlice, forward: Forward) -> Output:
    (result,) = stage.forward([forward])
    assert isinstance(result, Output), result
    return result


def refused(stage: LlamaSlice, forward: Forward) -> PeerError:
    (result,) = stage.forward([forward])
    assert isinstance(result, PeerError)
    return result


def through(stage: LlamaSlice, sequence: int, position: int, state: HiddenState) -> Forward:
    """A forward that a middle or tail slice takes to its end."""
    forward = Forward(sequence, position, stage.info.layers.end, hidden=state)
    return replace(forward, sample_from=0) if stage.info.is_tail else replace(forward, reply=Dtype.F32)


def run(chain: Sequence[LlamaSlice], tokens: Sequence[int], position: int) -> Output:
    """Tokens through all slices, sequence 3; the tail samples at every row."""
    output = one(
        chain[0], Forward(3, position, chain[0].info.layers.end, tokens=tuple(tokens), reply=Dtype.F32)
    )
    for stage in chain[1:]:
        assert output.hidden is not None
        output = one(stage, through(stage, 3, position, output.hidden))
    return output


def open_all(chain: Sequence[LlamaSlice], sampling: Sampling, sequence: int = 3) -> None:
    for stage in chain:
        stage.open(sequence, sampling if stage.info.is_tail else None)


def test_a_chain_computes_the_logits_of_the_whole_model(chain: list[LlamaSlice], smollm2: Path) -> None:
    whole = PlainLlama(smollm2, 256)
    open_all(chain, Sampling())
    tokens, position = whole.tokenize(PROMPT), 0
    for _ in range(8):
        expected = whole.forward(tokens, position)
        sampled = run(chain, tokens, position).tokens
        logits = logits_of(chain[-1]._context, len(tokens), chain[-1].info.vocabulary)
        assert np.array_equal(logits, expected)
        assert list(sampled) == expected.argmax(axis=1).tolist()
        position += len(tokens)
        tokens = [sampled[-1]]
    whole.close()


def test_what_a_slice_says_of_itself(chain: list[LlamaSlice]) -> None:
    assert [str(stage.info.layers) for stage in chain] == ["0..8", "8..15", "15..22", "22..30"]
    assert [stage.info.end_tokens for stage in chain] == [{0, 2, 4}, set(), set(), set()]
    assert {(s.info.blocks, s.info.width, s.info.context, s.info.max_rows) for s in chain} == {
        (30, WIDTH, 256, 32)
    }
    assert len({stage.info.engine_class for stage in chain}) == 1


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("sequences", [range(8), [6, 0, 3, 2, 7, 5]])
def test_sequences_decoded_together_get_what_each_gets_alone(
    chain: list[LlamaSlice], rows: int, sequences: Sequence[int]
) -> None:
    for stage in chain[1:]:
        inputs = {
            sequence: [states(rows, 10 * sequence + step) for step in range(3)] for sequence in sequences
        }
        alone = {}
        for sequence in sequences:
            stage.open(sequence, Sampling() if stage.info.is_tail else None)
            steps = enumerate(inputs[sequence])
            alone[sequence] = [
                one(stage, through(stage, sequence, step * rows, state)) for step, state in steps
            ]
            stage.close(sequence)
        for sequence in sequences:
            stage.open(sequence, Sampling() if stage.info.is_tail else None)
        for step in range(3):
            together = stage.forward(
                [through(stage, sequence, step * rows, inputs[sequence][step]) for sequence in sequences]
            )
            for sequence, output in zip(sequences, together, strict=True):
                assert isinstance(output, Output)
                assert same(output, alone[sequence][step])


def same(one: Output, other: Output) -> bool:
    if one.hidden is None or other.hidden is None:
        return one.tokens == other.tokens and one.hidden is other.hidden
    return bytes(one.hidden.payload) == bytes(other.hidden.payload)


def test_a_prompt_in_parts_is_the_prompt_at_once(middle: LlamaSlice) -> None:
    state = decode(states(12))
    middle.open(0, None)
    whole = one(middle, through(middle, 0, 0, encode(state, Dtype.F32)))
    middle.open(1, None)
    parts = [one(middle, through(middle, 1, at, encode(state[at : at + 4], Dtype.F32))) for at in (0, 4, 8)]
    assert whole.hidden is not None
    assert b"".join(bytes(part.hidden.payload) for part in parts if part.hidden) == bytes(
        whole.hidden.payload
    )


def test_after_a_truncation_the_cache_is_as_it_was_then(middle: LlamaSlice) -> None:
    middle.open(0, None)
    one(middle, through(middle, 0, 0, states(8)))
    expected = one(middle, through(middle, 0, 8, states(3, seed=1)))
    one(middle, through(middle, 0, 11, states(9, seed=2)))
    again = one(middle, replace(through(middle, 0, 8, states(3, seed=1)), truncate_to=8))
    assert same(again, expected)


def test_a_sequence_leaves_nothing_to_the_next(middle: LlamaSlice) -> None:
    middle.open(0, None)
    expected = one(middle, through(middle, 0, 0, states(5)))
    one(middle, through(middle, 0, 5, states(5, seed=1)))
    middle.close(0)
    middle.open(0, None)
    assert same(one(middle, through(middle, 0, 0, states(5))), expected)


def test_a_wider_slice_stops_where_it_is_told(tail: LlamaSlice, smollm2: Path, tmp_path: Path) -> None:
    cut(smollm2, LayerRange(22, 29), tmp_path / "narrow.gguf", "b3-" + "a" * 52)
    narrow = load(tmp_path / "narrow.gguf")
    narrow.open(0, None)
    tail.open(0, None)
    for position in range(3):
        state = states(1, seed=position)
        early = Forward(0, position, 29, hidden=state, reply=Dtype.F32)
        assert same(one(tail, early), one(narrow, through(narrow, 0, position, state)))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=5, temperature=0.9),
        Sampling(seed=5, temperature=1.2, top_k=20, top_p=0.9, min_p=0.01, repeat_penalty=1.3),
        Sampling(repeat_penalty=1.5),
    ],
)
def test_tokens_depend_on_seed_position_and_logits_alone(chain: list[LlamaSlice], sampling: Sampling) -> None:
    tail = chain[-1]
    inputs = [states(1, seed) for seed in range(20)]
    tail.open(0, sampling)
    first = [one(tail, through(tail, 0, at, state)).tokens[0] for at, state in enumerate(inputs)]
    # Rolled back, as after a speculation that failed.
    retry = replace(through(tail, 0, 12, inputs[12]), truncate_to=12)
    again = [one(tail, retry).tokens[0]]
    again += [one(tail, through(tail, 0, at, inputs[at])).tokens[0] for at in range(13, 20)]
    assert again == first[12:]
    # In another sequence, several rows at a time, as after a hop was replaced.
    tail.open(4, sampling)
    for start in (0, 10):
        rows = np.concatenate([decode(state) for state in inputs[start : start + 10]])
        assert (
            list(one(tail, through(tail, 4, start, encode(rows, Dtype.F32))).tokens)
            == first[start : start + 10]
        )


def test_each_sampling_setting_has_an_effect(tail: LlamaSlice) -> None:
    plain = Sampling(seed=5, temperature=2.0)
    answers = set()
    settings = [plain, replace(plain, seed=6), replace(plain, top_k=2), replace(plain, top_p=0.6)]
    settings += [replace(plain, min_p=0.3), replace(plain, temperature=0.0), Sampling(repeat_penalty=5.0)]
    for sampling in settings:
        tail.open(0, sampling)
        tokens = [one(tail, through(tail, 0, at, states(1, at % 2))).tokens[0] for at in range(8)]
        tail.close(0)
        answers.add(tuple(tokens))
    assert len(answers) == len(settings)


@pytest.mark.parametrize(
    "bad",
    [float("nan"), float("inf"), -float("inf"), 3e38],
)
def test_numbers_that_are_not_finite_harm_nobody(middle: LlamaSlice, bad: float) -> None:
    middle.open(0, None)
    middle.open(1, None)
    expected = one(middle, through(middle, 0, 0, states(2)))
    one(middle, through(middle, 0, 2, states(2, seed=1)))
    values = decode(states(2)).copy()
    values[1, 7] = bad
    good = replace(through(middle, 0, 0, states(2)), truncate_to=0)
    refusal, output = middle.forward([through(middle, 1, 0, encode(values, Dtype.F32)), good])
    assert isinstance(refusal, PeerError)
    assert refusal.code == Code.BAD_REQUEST
    assert isinstance(output, Output)
    assert same(output, expected)
    assert same(one(middle, through(middle, 1, 0, states(2))), expected)


def test_a_refused_forward_changes_nothing(middle: LlamaSlice) -> None:
    middle.open(0, None)
    one(middle, through(middle, 0, 0, states(4)))
    good = through(middle, 0, 4, states(1, seed=1))
    assert refused(middle, replace(good, position=5)).code == Code.BAD_REQUEST
    assert refused(middle, replace(good, truncate_to=2, position=2, stop=14)).code == Code.BAD_REQUEST
    assert refused(middle, replace(good, hidden=states(33))).code == Code.BAD_REQUEST
    expected = one(middle, good)
    one(middle, through(middle, 0, 5, states(1, seed=9)))
    assert same(one(middle, replace(good, truncate_to=4)), expected)


def test_a_full_context_is_refused(middle: LlamaSlice) -> None:
    middle.open(0, None)
    for position in range(0, 256, 32):
        one(middle, through(middle, 0, position, states(32)))
    assert refused(middle, through(middle, 0, 256, states(1))).code == Code.TOO_LONG
    one(middle, replace(through(middle, 0, 200, states(1)), truncate_to=200))


@pytest.mark.parametrize("dtype", Dtype)
def test_replies_come_in_the_encoding_asked_for(middle: LlamaSlice, dtype: Dtype) -> None:
    middle.open(0, None)
    exact = one(middle, through(middle, 0, 0, states(2)))
    assert exact.hidden is not None
    output = one(middle, replace(through(middle, 0, 0, states(2)), truncate_to=0, reply=dtype))
    assert output.hidden is not None
    assert output.hidden.dtype is dtype
    assert bytes(output.hidden.payload) == bytes(encode(decode(exact.hidden), dtype).payload)


def test_what_llama_cpp_cannot_load_is_refused_in_its_own_words(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "model.gguf", "llama")
    path.write_bytes(path.read_bytes().replace(b"blk.3.attn_q.weight", b"blk.3.attn_z.weight"))
    with pytest.raises(EngineError, match=r"model\.gguf.*blk\.3\.attn_q\.weight"):
        load(path)
