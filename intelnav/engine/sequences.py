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

    def __getitem__(self, sequence: int) -> SequenceState:
        state = self._open.get(sequence)
        if state is None:
            raise PeerError(Code.BAD_REQUEST, f"sequence {sequence} is not open")
        return state

    def open(self, sequence: int, sampling: Sampling | None) -> None:
        """Start an empty sequence."""
        if sequence in self._open or not 0 <= sequence < self._info.sessions:
            raise PeerError(Code.BAD_REQUEST, f"sequence {sequence} cannot be opened")
        if sampling is not None and not self._info.is_tail:
            raise PeerError(Code.BAD_REQUEST, f"layers {self._info.layers} have no head to sample with")
        self._open[sequence] = SequenceState(sampling)

    def close(self, sequence: int) -> bool:
        """Forget a sequence; whether it was open."""
        return self._open.pop(sequence, None) is not None

    def check(self, forward: Forward) -> SequenceState:
        """The sequence that `forward` is for. Raises PeerError `bad_request` or `too_long` if it cannot be run."""
        state, info = self[forward.sequence], self._info
        length = state.length
        if forward.truncate_to is not None:
            _require(0 <= forward.truncate_to <= length, f"a cache of {length} tokens cannot be cut to {forward.truncate_to}")
            length = forward.truncate_to
        _require(
            forward.position == length, f"position {forward.position} does not follow the {length} tokens in the cache"
        )
        _require(1 <= forward.rows <= info.max_rows, f"{forward.rows} rows, 1 to {info.max_rows} are possible")
        if length + forward.rows > info.context:
            raise PeerError(Code.TOO_LONG, f"{length + forward.rows} tokens do not fit the context of {info.context}")
        _require(
            info.layers.start < forward.stop <= info.layers.end, f"layer {forward.stop} is not in {info.layers}"
        )
        # Layers above an earlier stop hold nothing of these tokens, but maybe something of an older session.
        _require(
            length == 0 or state.stop == forward.stop, f"the cache was filled up to layer {state.stop}, not {forward.stop}"
        )
        self._check_input(forward)
        self._check_output(forward, state)
        return state

    def _check_input(self, forward: Forward) -> None:
        info, hidden = self._info, forward.hidden
        if info.is_front:
            _require(hidden is None, "a front slice is fed tokens, not hidden states")
            bad = next((token for token in forward.tokens if not 0 <= token < info.vocabulary), None)
            _require(bad is None, f"token {bad} is not below {info.vocabulary}")
        else:
            _require(not forward.tokens, f"layers {info.layers} are fed hidden states, not tokens")
            _require(
                hidden is not None and hidden.width == info.width, f"hidden states of width {info.width} are wanted"
            )

    def _check_output(self, forward: Forward, state: SequenceState) -> None:
        first = forward.sample_from
        if forward.stop < self._info.blocks:
            _require(first is None, f"nothing can be sampled after layer {forward.stop} of {self._info.blocks}")
            _require(forward.reply is not None, "the encoding of the reply is missing")
        elif first is not None:
            _require(state.sampling is not None, "the sequence was opened without sampling")
            _require(0 <= first < forward.rows, f"row {first} of {forward.rows} cannot be sampled")
            _require(forward.reply is None, "a forward gives tokens or hidden states, not both")


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise PeerError(Code.BAD_REQUEST, reason)
