"""The whole model in one llama.cpp process: what every chain is held against."""

from pathlib import Path

import llama_cpp
import numpy as np


class WholeModel:
    """Greedy decoding by llama-cpp-python itself; none of our code runs."""

    def __init__(self, path: Path) -> None:
        self._llama = llama_cpp.Llama(str(path), n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False)

    def greedy(self, prompt: str, count: int) -> list[int]:
        """The first `count` tokens after `prompt`, fewer if the model ends its answer."""
        llama = self._llama
        llama.reset()
        vocabulary = llama_cpp.llama_model_get_vocab(llama.model)
        pending = llama.tokenize(prompt.encode(), add_bos=True, special=True)
        answer: list[int] = []
        while len(answer) < count:
            llama.eval(pending)
            logits = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
            token = int(np.ctypeslib.as_array(logits, shape=(llama.n_vocab(),)).argmax())
            if llama_cpp.llama_vocab_is_eog(vocabulary, token):
                break
            answer.append(token)
            pending = [token]
        return answer
