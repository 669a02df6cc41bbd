"""Which of the waiting calls run next, and which of them run together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from intelnav.engine.interface import Forward

Shape = tuple[int, int, bool, bool]


@dataclass(slots=True)
class Call:
    """A call that waits for its turn; `sequence` is the one that it touches, `forward` what it runs, if any."""

    number: int
    arguments: dict[str, Any]
    sequence: int | None = None
    forward: Forward | None = None


def shape_of(forward: Forward) -> Shape:
    """Forwards of one shape can be one decode: as many rows, the same layers, alike inputs and outputs."""
    return forward.rows, forward.stop, forward.hidden is None, forward.reply is None


def next_batch(queue: Sequence[Call], max_rows: int) -> list[Call]:
    """The oldest call, with those behind it that are one decode with it: at most `max_rows` rows in all.

    No call overtakes an older one of its own sequence.
    """
    oldest = queue[0]
    if oldest.forward is None or len(queue) == 1:
        return [oldest]
    batch = [oldest]
    shape, rows = shape_of(oldest.forward), oldest.forward.rows
    touched = {oldest.sequence}
    for call in islice(queue, 1, None):
        if (len(batch) + 1) * rows > max_rows:
            break
        if call.sequence not in touched and call.forward is not None and shape_of(call.forward) == shape:
            batch.append(call)
        touched.add(call.sequence)
    return batch
