"""What each open sequence holds, and which forwards it may get: everything is checked before native code sees it."""

import ctypes
from enum import IntEnum

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.sampling import Sampling
from intelnav.engine.interface import Forward, SliceInfo
from intelnav.engine.sampling import Answers


class Kind(IntEnum):
    """What is made of a sequence's rows at the end of the model; `native/loop.cpp` has the same numbers."""

    CLOSED = 0
    SILENT = 1
    GREEDY = 2
    """The likeliest token, whatever the answer was so far."""
    SAMPLING = 3


class SequenceState(ctypes.Structure):
    """One sequence: `length` tokens are in its cache, in the layers below `stop`.

    A struct, since the compiled loop reads and writes it, too.
    """

    length: int
    stop: int
    kind: int
    sampling: Sampling | None
    answers: Answers

    _fields_ = (("length", ctypes.c_int64), ("stop", ctypes.c_int64), ("kind", ctypes.c_int64))

    def start(self, sampling: Sampling | None) -> None:
        """Become an open sequence with an empty cache."""
        self.sampling = sampling
        self.answers = Answers()
        self.length = self.stop = 0
        if sampling is None:
            self.kind = Kind.SILENT
        else:
            plain = sampling.is_greedy and sampling.repeat_penalty == 1
            self.kind = Kind.GREEDY if plain else Kind.SAMPLING

    def truncate(self, length: int) -> None:
        """Note that the cache was cut to `length` tokens."""
        self.length = length
        self.answers.truncate(length)


class Sequences:
    """The sequences of one slice, by id from 0 to `info.sessions` - 1; `states` are one array of structs."""

    def __init__(self, info: SliceInfo) -> None:
        self._info = info
        self.states = (SequenceState * info.sessions)()
        # An array makes a new object for an item each time.
        size = ctypes.sizeof(SequenceState)
        self._states = [
            SequenceState.from_buffer(self.states, size * index) for index in range(info.sessions)
        ]

    def open(self, sequence: int, sampling: Sampling | None) -> None:
        """Start an empty sequence; PeerError if it is taken, or if there is no head to sample with."""
        if not 0 <= sequence < self._info.sessions or self._states[sequence].kind != Kind.CLOSED:
            raise _refusal(f"sequence {sequence} cannot be opened")
        if sampling is not None and not self._info.is_tail:
            raise _refusal(f"layers {self._info.layers} have no head to sample with")
        self._states[sequence].start(sampling)

    def close(self, sequence: int) -> bool:
        """Forget a sequence; whether it was open."""
        if self.find(sequence) is None:
            return False
        self._states[sequence].kind = Kind.CLOSED
        return True

    def check(self, forward: Forward) -> SequenceState:
        """The sequence that `forward` is for. Raises PeerError `bad_request` or `too_long` if it cannot be run."""
        info, state = self._info, self.find(forward.sequence)
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

    def find(self, sequence: int) -> SequenceState | None:
        """The open sequence of that id, if it is one."""
        if not 0 <= sequence < self._info.sessions:
            return None
        state = self._states[sequence]
        return None if state.kind == Kind.CLOSED else state

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
