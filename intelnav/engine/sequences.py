"""What each open sequence holds, and which forwards it may get: everything is checked before native code sees it."""

from dataclasses import dataclass, field

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.sampling import Sampling
from intelnav.engine.interface import Forward, SliceInfo
from intelnav.engine.sampling import Answers


@dataclass(slots=True)
class SequenceState:
    """One open sequence: `length` tokens are in its cache, in the layers below `stop`."""

    sampling: Sampling | None
    length: int = 0
    stop: int | None = None
    answers: Answers = field(default_factory=Answers)

    def truncate(self, length: int) -> None:
        """Note that the cache was cut to `length` tokens."""
        self.length = length
        self.answers.truncate(length)


class Sequences:
    """The open sequences of one slice, by id from 0 to `info.sessions` - 1."""

    def __init__(self, info: SliceInfo) -> None:
        self._info = info
        self._open: dict[int, SequenceState] = {}

    def open(self, sequence: int, sampling: Sampling | None) -> None:
        """Start an empty sequence; PeerError if it is taken, or if there is no head to sample with."""
        if sequence in self._open or not 0 <= sequence < self._info.sessions:
            raise _refusal(f"sequence {sequence} cannot be opened")
        if sampling is not None and not self._info.is_tail:
            raise _refusal(f"layers {self._info.layers} have no head to sample with")
        self._open[sequence] = SequenceState(sampling)

    def close(self, sequence: int) -> bool:
        """Forget a sequence; whether it was open."""
        return self._open.pop(sequence, None) is not None

    def check(self, forward: Forward) -> SequenceState:
        """The sequence that `forward` is for. Raises PeerError `bad_request` or `too_long` if it cannot be run."""
        info, state = self._info, self._open.get(forward.sequence)
        if state is None:
            raise _refusal(f"sequence {forward.sequence} is not open")
        length = state.length
        if forward.truncate_to is not None:
            if not 0 <= forward.truncate_to <= length:
                raise _refusal(f"a cache of {length} tokens cannot be cut to {forward.truncate_to}")
            length = forward.truncate_to
        rows = forward.rows
        if forward.position != length:
            raise _refusal(f"position {forward.position} does not follow the {length} tokens in the cache")
        if not 1 <= rows <= info.max_rows:
            raise _refusal(f"{rows} rows in one forward, 1 to {info.max_rows} are possible")
        if length + rows > info.context:
            raise PeerError(Code.TOO_LONG, f"{length + rows} tokens do not fit the context of {info.context}")
        if not info.layers.start < forward.stop <= info.layers.end:
            raise _refusal(f"layer {forward.stop} is not in {info.layers}")
        # Layers above an earlier stop hold nothing of these tokens, but maybe something of an older session.
        if length and state.stop != forward.stop:
            raise _refusal(f"the cache was filled up to layer {state.stop}, not {forward.stop}")
        self._check_input(forward)
        self._check_output(forward, state)
        return state

    def _check_input(self, forward: Forward) -> None:
        info, hidden = self._info, forward.hidden
        if not info.is_front:
            if forward.tokens or hidden is None:
                raise _refusal(f"layers {info.layers} are fed hidden states, not tokens")
            if hidden.width != info.width:
                raise _refusal(f"hidden states of width {hidden.width}, where {info.width} is wanted")
        elif hidden is not None:
            raise _refusal("a front slice is fed tokens, not hidden states")
        elif min(forward.tokens) < 0 or max(forward.tokens) >= info.vocabulary:
            raise _refusal(f"there is a token that is not below {info.vocabulary}")

    def _check_output(self, forward: Forward, state: SequenceState) -> None:
        if forward.stop < self._info.blocks:
            if forward.sample_from is not None:
                raise _refusal(f"nothing can be sampled after layer {forward.stop} of {self._info.blocks}")
            if forward.reply is None:
                raise _refusal("the encoding of the reply is missing")
        elif forward.sample_from is not None:
            if state.sampling is None:
                raise _refusal("the sequence was opened without sampling")
            if not 0 <= forward.sample_from < forward.rows:
                raise _refusal(f"row {forward.sample_from} of {forward.rows} cannot be sampled")
            if forward.reply is not None:
                raise _refusal("a forward gives tokens or hidden states, not both")


def _refusal(reason: str) -> PeerError:
    return PeerError(Code.BAD_REQUEST, reason)
