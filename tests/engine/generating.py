"""Answers from slices in their workers, without nodes around them."""

from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.sampling import Sampling
from intelnav.engine.interface import Forward
from intelnav.engine.process import SliceProcess


async def generate(chain: list[SliceProcess], prompt: str, count: int, sampling: Sampling) -> list[int]:
    """Tokens of an answer, computed as a chain of hops would."""
    sequences = [await stage.open(sampling if stage.info.is_tail else None) for stage in chain]
    pending, position = tuple(await chain[0].tokenize(prompt, special=False)), 0
    answer: list[int] = []
    for _ in range(count):
        hidden: HiddenState | None = None
        for stage, sequence in zip(chain, sequences, strict=True):
            tail = stage.info.is_tail
            output = await stage.forward(
                Forward(
                    sequence,
                    position,
                    stage.info.layers.end,
                    tokens=() if hidden else pending,
                    hidden=hidden,
                    sample_from=len(pending) - 1 if tail else None,
                    reply=None if tail else Dtype.F32,
                )
            )
            hidden = output.hidden
        position, pending = position + len(pending), output.tokens
        answer += output.tokens
    for stage, sequence in zip(chain, sequences, strict=True):
        stage.close(sequence)
    return answer
