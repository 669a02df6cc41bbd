"""The whole model in one plain llama.cpp context, without any of our code: what every chain is held against."""

from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


class PlainLlama:
    """A model on the CPU with one sequence, computed by one thread."""

    def __init__(self, path: Path, context: int) -> None:
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        # As in the engine: weights stay as they are in the file.
        params.use_extra_bufts = False
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self._model, f"llama.cpp cannot load {path}"
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(self._vocab)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = context
        settings.n_threads = settings.n_threads_batch = 1
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        assert self._context, f"llama.cpp cannot make a context for {path}"

    def forward(self, tokens: list[int], position: int) -> Rows:
        """The logits of each token: rows x vocabulary."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row] = token, position + row
            batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, 0, 1
        assert llama_cpp.llama_decode(self._context, batch) == 0
        llama_cpp.llama_batch_free(batch)
        return logits_of(self._context, len(tokens), self.vocabulary)

    def tokenize(self, text: str) -> list[int]:
        """Tokens of `text`, with the begin token if the model wants one."""
        data = text.encode()
        found = (llama_cpp.llama_token * (len(data) + 2))()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), found, len(found), True, True)
        return list(found[:count])

    def greedy(self, prompt: str, count: int) -> list[int]:
        """The first `count` tokens after `prompt`, fewer if the model ends its answer."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        pending, position = self.tokenize(prompt), 0
        answer: list[int] = []
        while len(answer) < count:
            token = int(self.forward(pending, position)[-1].argmax())
            if llama_cpp.llama_vocab_is_eog(self._vocab, token):
                break
            answer.append(token)
            position, pending = position + len(pending), [token]
        return answer

    def close(self) -> None:
        """Free the memory."""
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)


def logits_of(context: object, rows: int, vocabulary: int) -> Rows:
    """A copy of the logits of a context's last decode, in which every row was an output."""
    return np.stack(
        [
            np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, row), (vocabulary,)).copy()
            for row in range(rows)
        ]
    )
