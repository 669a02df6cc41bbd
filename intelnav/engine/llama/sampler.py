"""A token from the logits of one row, by llama.cpp's own samplers."""

from collections.abc import Sequence

import llama_cpp.llama_cpp as llama

from intelnav.domain.sampling import Sampling
from intelnav.engine.sampling import PENALTY_WINDOW, seed_at


def sample(
    context: int, row: int, vocabulary: int, sampling: Sampling, position: int, answers: Sequence[int]
) -> int:
    """Sample from the logits of `row` of the last decode. `answers` are the tokens that the repeat penalty looks at.

    The chain is made afresh, so the token depends on the arguments and the logits alone.
    """
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    try:
        for sampler in _samplers(sampling, vocabulary, position):
            llama.llama_sampler_chain_add(chain, sampler)
        for token in answers:
            llama.llama_sampler_accept(chain, token)
        return int(llama.llama_sampler_sample(chain, context, row))
    finally:
        llama.llama_sampler_free(chain)


def _samplers(sampling: Sampling, vocabulary: int, position: int) -> list[int]:
    penalties = llama.llama_sampler_init_penalties(
        vocabulary, PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0
    )
    if sampling.is_greedy:
        return [penalties, llama.llama_sampler_init_greedy()]
    return [
        penalties,
        llama.llama_sampler_init_top_k(sampling.top_k),
        llama.llama_sampler_init_top_p(sampling.top_p, 1),
        llama.llama_sampler_init_min_p(sampling.min_p, 1),
        llama.llama_sampler_init_temp(sampling.temperature),
        llama.llama_sampler_init_dist(seed_at(sampling.seed, position)),
    ]
