"""Text to tokens and back, by the tokenizer in the model's file."""

import ctypes

import llama_cpp.llama_cpp as llama

from intelnav.domain.errors import EngineError

_PIECE_BYTES = 64


class Vocabulary:
    """The tokens of a loaded model. Only a front slice has their text; the others raise EngineError when asked."""

    def __init__(self, model: int) -> None:
        self._model = model
        self._handle = llama.llama_model_get_vocab(model)
        self._has_text = llama.llama_vocab_type(self._handle) != llama.LLAMA_VOCAB_TYPE_NONE
        self.size: int = llama.llama_vocab_n_tokens(self._handle)

    def end_tokens(self) -> frozenset[int]:
        """Those that end an answer."""
        tokens = range(self.size if self._has_text else 0)
        return frozenset(token for token in tokens if llama.llama_vocab_is_eog(self._handle, token))

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Tokens of `text`, led by the begin token if the model wants one and `text` does not bring it itself.

        `special` parses control tokens.
        """
        self._require_text()
        data = text.encode()
        tokens = (llama.llama_token * (len(data) + 2))()
        count = llama.llama_tokenize(self._handle, data, len(data), tokens, len(tokens), False, special)
        if count < 0:
            raise EngineError(f"llama.cpp could not tokenize {len(data)} bytes of text")
        found: list[int] = tokens[:count]
        begin = llama.llama_vocab_bos(self._handle)
        if llama.llama_vocab_get_add_bos(self._handle) and begin >= 0 and found[:1] != [begin]:
            return [begin, *found]
        return found

    def pieces(self) -> list[bytes]:
        """The bytes of each token there is, none for control tokens."""
        self._require_text()
        return [self._piece(token, special=False) for token in range(self.size)]

    def chat_template(self) -> tuple[str, str, str]:
        """The model's chat template and the texts of its begin and end tokens; EngineError if it has no template."""
        self._require_text()
        source = llama.llama_model_chat_template(self._model, None)
        if source is None:
            raise EngineError("this model has no chat template: send it a raw prompt")
        begin, end = (
            self._piece(token, special=True).decode(errors="replace") if token >= 0 else ""
            for token in (llama.llama_vocab_bos(self._handle), llama.llama_vocab_eos(self._handle))
        )
        return source.decode(errors="replace"), begin, end

    def _piece(self, token: int, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        size = llama.llama_token_to_piece(self._handle, token, buffer, len(buffer), 0, special)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = llama.llama_token_to_piece(self._handle, token, buffer, len(buffer), 0, special)
        return buffer.raw[:size]

    def _require_text(self) -> None:
        if not self._has_text:
            raise EngineError("this slice holds no tokenizer: only one that starts at layer 0 does")
