from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import PeerId
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.wire.fields import MAX_HOPS
from intelnav.wire.messages import ForwardHidden, Hidden, NextHop, SessionInit, Token
from intelnav.wire.session import EntrySession, HopSession, check_init

SESSION = bytes(16)
ENTRY, OWN, PREV, NEXT, OUTSIDER = (PeerId(bytes([n]) * 32) for n in range(5))
WIDTH, MAX_ROWS, WINDOW, CONTEXT = 4, 3, 2, 20
MIDDLE = SessionInit(SESSION, "b3-a", LayerRange(8, 15), Dtype.F16, CONTEXT, PREV, NextHop(NEXT, ()))
TAIL = replace(MIDDLE, layers=LayerRange(8, 30), next=None, sampling=Sampling())


def state(rows: int = 1, width: int = WIDTH, dtype: Dtype = Dtype.F16) -> HiddenState:
    return HiddenState(dtype, rows, width, bytes(rows * dtype.row_bytes(width)))


def forward(seq: int, position: int, rows: int = 1) -> ForwardHidden:
    return ForwardHidden(SESSION, seq, position, state(rows))


def hop() -> HopSession:
    """A session with one forward of two rows behind it."""
    session = HopSession(MIDDLE, width=WIDTH, max_rows=MAX_ROWS, window=WINDOW, context=CONTEXT)
    session.admit(forward(0, 0, 2), PREV)
    session.done()
    return session


def check(init: SessionInit, layers: LayerRange, context: int = CONTEXT) -> None:
    check_init(init, entry=ENTRY, me=OWN, layers=layers, blocks=30, context=context, engine_class="cpu")


@pytest.mark.parametrize(
    ("init", "layers"),
    [
        (MIDDLE, LayerRange(8, 15)),
        (MIDDLE, LayerRange(8, 30)),
        (replace(MIDDLE, prev=ENTRY), LayerRange(8, 15)),
        (replace(MIDDLE, engine_class="cpu"), LayerRange(8, 15)),
        (replace(MIDDLE, next=None), LayerRange(8, 15)),
        (TAIL, LayerRange(8, 30)),
        (replace(TAIL, sampling=None), LayerRange(8, 30)),
    ],
)
def test_a_session_that_fits_is_served(init: SessionInit, layers: LayerRange) -> None:
    check(init, layers)


@pytest.mark.parametrize(
    ("init", "layers", "code"),
    [
        (MIDDLE, LayerRange(7, 15), Code.NOT_HOSTING),
        (MIDDLE, LayerRange(9, 15), Code.NOT_HOSTING),
        (MIDDLE, LayerRange(8, 14), Code.NOT_HOSTING),
        (replace(MIDDLE, engine_class="cuda"), LayerRange(8, 15), Code.NOT_HOSTING),
        (replace(MIDDLE, layers=LayerRange(0, 8)), LayerRange(0, 8), Code.BAD_REQUEST),
        (replace(MIDDLE, context=CONTEXT + 1), LayerRange(8, 15), Code.TOO_LONG),
        (replace(MIDDLE, sampling=Sampling()), LayerRange(8, 15), Code.BAD_REQUEST),
        (replace(MIDDLE, next=None, sampling=Sampling()), LayerRange(8, 15), Code.BAD_REQUEST),
        (replace(TAIL, next=NextHop(NEXT, ())), LayerRange(8, 30), Code.BAD_REQUEST),
        (replace(TAIL, sampling=None, next=NextHop(NEXT, ())), LayerRange(8, 30), Code.BAD_REQUEST),
        (replace(MIDDLE, next=NextHop(OWN, ())), LayerRange(8, 15), Code.BAD_REQUEST),
        (replace(MIDDLE, next=NextHop(ENTRY, ())), LayerRange(8, 15), Code.BAD_REQUEST),
        (replace(MIDDLE, prev=OWN), LayerRange(8, 15), Code.BAD_REQUEST),
    ],
)
def test_a_session_that_does_not_fit_is_refused(init: SessionInit, layers: LayerRange, code: Code) -> None:
    with pytest.raises(PeerError) as caught:
        check(init, layers)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("wrong", "sender", "reason"),
    [
        (forward(1, 2), OUTSIDER, "previous hop"),
        (forward(1, 2), ENTRY, "previous hop"),
        (forward(0, 2), PREV, "forward 0 came where 1 was due"),
        (forward(2, 2), PREV, "forward 2 came where 1 was due"),
        (forward(1, 3), PREV, "position 3 came where 2 was due"),
        (forward(1, 0), PREV, "position 0 came where 2 was due"),
        (forward(1, 2, MAX_ROWS + 1), PREV, "4 rows in a forward, 3 at most"),
        (replace(forward(1, 2), state=state(width=5)), PREV, "f16 rows of 5"),
        (replace(forward(1, 2), state=state(dtype=Dtype.BF16)), PREV, "bf16 rows"),
        (replace(forward(1, 2), sample_from=1), PREV, "sample from row 1 of 1"),
        (replace(forward(1, 2), spent=(0,) * MAX_HOPS), PREV, "at most 64 hops"),
        (replace(forward(1, 3), kv_truncate_to=3), PREV, "cannot be cut to 3"),
        (replace(forward(1, 2), kv_truncate_to=1), PREV, "position 2 came where 1 was due"),
    ],
)
def test_a_forward_that_breaks_a_rule_is_refused_and_changes_nothing(
    wrong: ForwardHidden, sender: PeerId, reason: str
) -> None:
    session = hop()
    with pytest.raises(PeerError, match=reason) as caught:
        session.admit(wrong, sender)
    assert caught.value.code is Code.BAD_REQUEST
    assert (session.length, session.under_way) == (2, 0)
    session.admit(forward(1, 2), PREV)


def test_a_full_context_is_too_long() -> None:
    session = HopSession(MIDDLE, width=WIDTH, max_rows=MAX_ROWS, window=WINDOW, context=3)
    session.admit(forward(0, 0, 2), PREV)
    with pytest.raises(PeerError, match="4 tokens do not fit") as caught:
        session.admit(forward(1, 2, 2), PREV)
    assert caught.value.code is Code.TOO_LONG
    session.admit(forward(1, 2, 1), PREV)


def test_a_window_fills_and_empties() -> None:
    session = HopSession(MIDDLE, width=WIDTH, max_rows=MAX_ROWS, window=WINDOW, context=CONTEXT)
    for seq in range(WINDOW):
        session.admit(forward(seq, seq), PREV)
    with pytest.raises(PeerError, match="more than 2 forwards"):
        session.admit(forward(WINDOW, WINDOW), PREV)
    session.done()
    session.admit(forward(WINDOW, WINDOW), PREV)


class HopMachine(RuleBasedStateMachine):
    """Any order of forwards, good and bad: the cache is as long as the rows that were let in say."""

    @initialize()
    def open(self) -> None:
        self.session = HopSession(MIDDLE, width=WIDTH, max_rows=MAX_ROWS, window=WINDOW, context=CONTEXT)
        self.cache: list[int] = []
        self.seq = 0
        self.under_way = 0

    @rule(
        rows=st.integers(1, MAX_ROWS + 1),
        shift=st.sampled_from([0, 0, 0, 1, -1]),
        skip=st.sampled_from([0, 0, 0, 1]),
        cut=st.none() | st.integers(0, CONTEXT + 1),
        sample_from=st.none() | st.integers(0, MAX_ROWS),
        sender=st.sampled_from([PREV, PREV, PREV, OUTSIDER]),
    )
    def send(
        self, rows: int, shift: int, skip: int, cut: int | None, sample_from: int | None, sender: PeerId
    ) -> None:
        start = len(self.cache) if cut is None else cut
        message = ForwardHidden(
            SESSION, self.seq + skip, max(0, start + shift), state(rows), cut, sample_from
        )
        allowed = (
            sender == PREV
            and skip == 0
            and message.position == start <= len(self.cache)
            and rows <= MAX_ROWS
            and start + rows <= CONTEXT
            and (sample_from is None or sample_from < rows)
            and self.under_way < WINDOW
        )
        try:
            self.session.admit(message, sender)
        except PeerError:
            assert not allowed
        else:
            assert allowed
            self.cache[start:] = [self.seq] * rows
            self.seq += 1
            self.under_way += 1

    @precondition(lambda self: self.under_way > 0)
    @rule()
    def leave(self) -> None:
        self.session.done()
        self.under_way -= 1

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "session"):
            assert self.session.length == len(self.cache) <= CONTEXT
            assert self.session.under_way == self.under_way <= WINDOW


TestHopMachine = HopMachine.TestCase


def open_entry(*, keeps_head: bool, context: int = CONTEXT) -> EntrySession:
    return EntrySession(
        SESSION,
        NEXT,
        dtype=Dtype.F16,
        width=WIDTH,
        vocabulary=100,
        keeps_head=keeps_head,
        max_rows=MAX_ROWS,
        window=WINDOW,
        context=context,
    )


def entry(*, keeps_head: bool) -> EntrySession:
    """Two forwards under way: three rows without a sample, then two rows of which the last is asked for."""
    session = open_entry(keeps_head=keeps_head)
    assert session.forward(state(3)) == ForwardHidden(SESSION, 0, 0, state(3))
    assert session.forward(state(2), sample_from=1) == ForwardHidden(SESSION, 1, 3, state(2), sample_from=1)
    return session


def test_tokens_are_accepted_in_order() -> None:
    session = entry(keeps_head=False)
    session.accept(Token(SESSION, 0, 0, ()), NEXT)
    session.accept(Token(SESSION, 1, 3, (99,)), NEXT)
    assert session.length == 5
    assert session.forward(state(3), sample_from=0).seq == 2
    session.accept(Token(SESSION, 2, 5, (1, 2, 3)), NEXT)


def test_hidden_states_are_accepted_in_order() -> None:
    session = entry(keeps_head=True)
    session.accept(Hidden(SESSION, 0, 0, state(3)), NEXT)
    session.accept(Hidden(SESSION, 1, 3, state(2)), NEXT)
    assert session.has_room


def test_the_window_closes_and_opens() -> None:
    session = entry(keeps_head=False)
    assert not session.has_room
    with pytest.raises(ValueError, match="break a limit"):
        session.forward(state())
    session.accept(Token(SESSION, 0, 0, ()), NEXT)
    assert session.has_room
    session.forward(state())


def test_nothing_leaves_that_a_hop_would_refuse() -> None:
    session = open_entry(keeps_head=False, context=3)
    for wrong in (state(MAX_ROWS + 1), state(width=5), state(dtype=Dtype.F32)):
        with pytest.raises(ValueError, match="rows"):
            session.forward(wrong)
    with pytest.raises(ValueError, match="sample from row 1 of 1"):
        session.forward(state(), sample_from=1)
    session.forward(state(2))
    with pytest.raises(PeerError, match="4 tokens do not fit") as caught:
        session.forward(state(2))
    assert caught.value.code is Code.TOO_LONG
    assert session.length == 2


@pytest.mark.parametrize(
    ("reply", "sender"),
    [
        (Token(SESSION, 0, 0, ()), PREV),
        (Token(SESSION, 1, 3, (1,)), NEXT),
        (Token(SESSION, 0, 1, ()), NEXT),
        (Token(SESSION, 0, 0, (1,)), NEXT),
        (Hidden(SESSION, 0, 0, state(3)), NEXT),
    ],
)
def test_a_reply_that_is_not_due_is_refused(reply: Token | Hidden, sender: PeerId) -> None:
    session = entry(keeps_head=False)
    with pytest.raises(PeerError):
        session.accept(reply, sender)
    assert not session.has_room
    session.accept(Token(SESSION, 0, 0, ()), NEXT)


@pytest.mark.parametrize("tokens", [(), (1, 2), (100,)])
def test_too_few_tokens_too_many_and_ones_outside_the_vocabulary_are_refused(tokens: tuple[int, ...]) -> None:
    session = entry(keeps_head=False)
    session.accept(Token(SESSION, 0, 0, ()), NEXT)
    with pytest.raises(PeerError, match="1 tokens below 100 were due"):
        session.accept(Token(SESSION, 1, 3, tokens), NEXT)


@pytest.mark.parametrize("got", [state(1), state(3), state(2, width=5), state(2, dtype=Dtype.F32)])
def test_hidden_states_of_another_shape_are_refused(got: HiddenState) -> None:
    session = entry(keeps_head=True)
    session.accept(Hidden(SESSION, 0, 0, state(3)), NEXT)
    with pytest.raises(PeerError, match="2 f16 rows of 4 were due"):
        session.accept(Hidden(SESSION, 1, 3, got), NEXT)


def test_a_reply_that_nobody_asked_for_is_refused() -> None:
    session = open_entry(keeps_head=False)
    with pytest.raises(PeerError, match="not due"):
        session.accept(Token(SESSION, 0, 0, ()), NEXT)
