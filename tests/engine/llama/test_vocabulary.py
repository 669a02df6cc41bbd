from pathlib import Path

import pytest

from intelnav.domain.errors import EngineError
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceSpec
from intelnav.engine.llama import LlamaSlice
from intelnav.engine.llama.vocabulary import Vocabulary
from intelnav.store.cut import cut
from tests.models import tiny_model


def vocabulary_of(path: Path) -> Vocabulary:
    return LlamaSlice(SliceSpec(path, sessions=1, context=64, max_rows=8), gpus=(), threads=1).vocabulary


@pytest.fixture(scope="module")
def smollm2_vocabulary(slices: list[Path]) -> Vocabulary:
    return vocabulary_of(slices[0])


@pytest.fixture(scope="module")
def sentence_piece(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """A tokenizer of the kind that wants a begin token."""
    return vocabulary_of(tiny_model(tmp_path_factory.mktemp("model") / "gemma.gguf", "gemma"))


@pytest.mark.parametrize("text", ["Hello, world", "Grüße aus Köln 🎉", "", " a\n\n\tb\0c", "<|im_start|>"])
def test_the_pieces_of_a_text_are_its_bytes(smollm2_vocabulary: Vocabulary, text: str) -> None:
    tokens = smollm2_vocabulary.tokenize(text, special=False)
    pieces = smollm2_vocabulary.pieces()
    assert len(pieces) == smollm2_vocabulary.size
    assert b"".join(pieces[token] for token in tokens) == text.encode()


def test_control_tokens_are_parsed_only_when_asked_and_have_no_bytes(smollm2_vocabulary: Vocabulary) -> None:
    tokens = smollm2_vocabulary.tokenize("<|im_start|>", special=True)
    assert len(tokens) == 1
    assert smollm2_vocabulary.pieces()[tokens[0]] == b""
    assert len(smollm2_vocabulary.tokenize("<|im_start|>", special=False)) > 1


def test_a_begin_token_is_added_once(sentence_piece: Vocabulary) -> None:
    _, begin, _ = sentence_piece.chat_template()
    plain = sentence_piece.tokenize("abc", special=True)
    assert begin
    assert sentence_piece.tokenize(f"{begin}abc", special=True)[:1] == plain[:1]
    assert sentence_piece.tokenize(f"{begin}abc", special=True).count(plain[0]) == 1
    assert sentence_piece.pieces()[plain[0]] == b""


def test_the_chat_template_is_that_of_the_file(smollm2_vocabulary: Vocabulary) -> None:
    source, begin, end = smollm2_vocabulary.chat_template()
    assert "{% for message in messages %}" in source
    assert (begin, end) == ("<|im_start|>", "<|im_end|>")


def test_only_a_front_slice_has_text(tmp_path: Path) -> None:
    whole = tiny_model(tmp_path / "whole.gguf", "llama", blocks=2)
    cut(whole, LayerRange(1, 2), tmp_path / "tail.gguf", "b3-" + "a" * 52)
    vocabulary = vocabulary_of(tmp_path / "tail.gguf")
    assert vocabulary.size == vocabulary_of(whole).size
    assert vocabulary.end_tokens() == frozenset()
    for call in (
        lambda: vocabulary.tokenize("a", False),
        vocabulary.pieces,
        vocabulary.chat_template,
    ):
        with pytest.raises(EngineError, match="no tokenizer"):
            call()


def test_a_model_without_a_chat_template_says_what_to_do(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "model.gguf", "llama", blocks=1)
    path.write_bytes(path.read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.that_template"))
    with pytest.raises(EngineError, match="raw prompt"):
        vocabulary_of(path).chat_template()
