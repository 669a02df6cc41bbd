"""The state of one session, at a hop and at the entry: which message may come next ([M1]).

Everything here is checked before a tensor reaches an engine. A refusal is a PeerError and changes nothing.
"""

from collections import deque
from dataclasses import dataclass

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange
from intelnav.wire.fields import MAX_HOPS
from intelnav.wire.messages import ForwardHidden, Hidden, SessionInit, Token


def check_init(
    init: SessionInit,
    *,
    entry: PeerId,
    me: PeerId,
    layers: LayerRange,
    blocks: int,
    context: int,
    engine_class: str,
) -> None:
    """Raise PeerError unless `init`, sent by `entry` to `me`, can be served by the slice that is loaded here.

    The slice holds `layers` of a model of `blocks` layers, with room for `context` tokens in a session.
    """
    if init.layers.start != layers.start or not layers.covers(init.layers):
        raise PeerError(Code.NOT_HOSTING, f"layers {init.layers} were asked of a slice {layers}")
    if layers.start == 0:
        raise PeerError(Code.BAD_REQUEST, "the front slice takes tokens, and they stay with the entry")
    if init.engine_class not in (None, engine_class):
        raise PeerError(Code.NOT_HOSTING, f"engine class {init.engine_class} was asked of {engine_class}")
    if init.context > context:
        raise PeerError(Code.TOO_LONG, f"{init.context} tokens of context were asked, {context} at most")
    ends_model = init.layers.end == blocks
    if init.next is None:
        if init.sampling is not None and not ends_model:
            raise PeerError(Code.BAD_REQUEST, f"sampling was asked after layer {init.layers.end} of {blocks}")
    elif init.sampling is not None or ends_model:
        raise PeerError(Code.BAD_REQUEST, "a next hop was given to a hop that ends the model or samples")
    elif init.next.peer in (me, entry):
        raise PeerError(Code.BAD_REQUEST, "the next hop must be neither this node nor the entry")
    if init.prev == me:
        raise PeerError(Code.BAD_REQUEST, "the previous hop must be another node")


class HopSession:
    """A session at a hop that serves `init`, with activations of `width`.

    It allows `max_rows` rows in one forward, `window` forwards under way at once and `context` tokens in all.
    """

    def __init__(self, init: SessionInit, *, width: int, max_rows: int, window: int, context: int) -> None:
        self.init = init
        self.length = 0
        self.under_way = 0
        self._width = width
        self._max_rows = max_rows
        self._window = window
        self._context = context
        self._seq = 0

    def admit(self, forward: ForwardHidden, sender: PeerId) -> None:
        """Accept the session's next forward; `length` is then the cache length after it.

        Raises PeerError if it is not the next one, does not fit, or does not come from `prev`.
        """
        state = forward.state
        if sender != self.init.prev:
            raise PeerError(Code.BAD_REQUEST, "a forward must come from the session's previous hop")
        if forward.seq != self._seq:
            raise PeerError(Code.BAD_REQUEST, f"forward {forward.seq} came where {self._seq} was due")
        if self.under_way >= self._window:
            raise PeerError(Code.BAD_REQUEST, f"more than {self._window} forwards under way")
        if (state.dtype, state.width) != (self.init.dtype, self._width):
            due = f"{self.init.dtype} rows of {self._width}"
            raise PeerError(Code.BAD_REQUEST, f"{state.dtype} rows of {state.width} came where {due} are due")
        if state.rows > self._max_rows:
            raise PeerError(Code.BAD_REQUEST, f"{state.rows} rows in a forward, {self._max_rows} at most")
        start = _cut(self.length, forward.kv_truncate_to)
        if forward.position != start:
            raise PeerError(Code.BAD_REQUEST, f"position {forward.position} came where {start} was due")
        if forward.sample_from is not None and forward.sample_from >= state.rows:
            raise PeerError(Code.BAD_REQUEST, f"sample from row {forward.sample_from} of {state.rows}")
        if len(forward.spent) >= MAX_HOPS:
            # With this hop's own time added, the next peer would refuse the message and drop the link.
            raise PeerError(Code.BAD_REQUEST, f"a forward passes at most {MAX_HOPS} hops")
        self.length = _end(start, state.rows, self._context)
        self.under_way += 1
        self._seq += 1

    def done(self) -> None:
        """One admitted forward has left this hop."""
        self.under_way -= 1


@dataclass(frozen=True, slots=True)
class _Due:
    """What the reply to a forward must be: `count` tokens or rows."""

    seq: int
    position: int
    count: int


class EntrySession:
    """A session at the entry: numbers its forwards and holds the replies of the last hop, `tail`, against them.

    Tokens below `vocabulary` come back or, if the entry keeps the head, `dtype` rows of `width`. `max_rows`,
    `window` and `context` are the least of what the hops allow.
    """

    def __init__(
        self,
        session: bytes,
        tail: PeerId,
        *,
        dtype: Dtype,
        width: int,
        vocabulary: int,
        keeps_head: bool,
        max_rows: int,
        window: int,
        context: int,
    ) -> None:
        self.length = 0
        self._session = session
        self._tail = tail
        self._dtype = dtype
        self._width = width
        self._vocabulary = vocabulary
        self._keeps_head = keeps_head
        self._max_rows = max_rows
        self._window = window
        self._context = context
        self._seq = 0
        self._due: deque[_Due] = deque()

    @property
    def has_room(self) -> bool:
        """Whether another forward may be sent before a reply comes."""
        return len(self._due) < self._window

    def forward(self, state: HiddenState, *, sample_from: int | None = None) -> ForwardHidden:
        """The next rows as the session's next forward, whose reply is due from now on.

        Raises PeerError `too_long` if the context is full, and ValueError for what any hop would refuse.
        """
        if not self.has_room or state.rows > self._max_rows:
            raise ValueError(f"{state.rows} rows, with {len(self._due)} forwards under way, break a limit")
        if (state.dtype, state.width) != (self._dtype, self._width):
            raise ValueError(f"{state.dtype} rows of {state.width} in a session of {self._dtype}")
        if sample_from is not None and not 0 <= sample_from < state.rows:
            raise ValueError(f"sample from row {sample_from} of {state.rows}")
        end = _end(self.length, state.rows, self._context)
        forward = ForwardHidden(self._session, self._seq, self.length, state, sample_from=sample_from)
        asked = 0 if sample_from is None else state.rows - sample_from
        # The entry's own layers need every row in their cache, asked for or not.
        self._due.append(_Due(forward.seq, forward.position, state.rows if self._keeps_head else asked))
        self._seq += 1
        self.length = end
        return forward

    def accept(self, reply: Token | Hidden, sender: PeerId) -> None:
        """Check that this is the reply to the oldest forward under way, from the last hop; else PeerError."""
        if sender != self._tail:
            raise PeerError(Code.BAD_REQUEST, "a reply must come from the session's last hop")
        if isinstance(reply, Hidden) != self._keeps_head:
            raise PeerError(Code.BAD_REQUEST, "a token came for a hidden state, or the other way round")
        due = self._due[0] if self._due else None
        if due is None or (reply.seq, reply.position) != (due.seq, due.position):
            raise PeerError(Code.BAD_REQUEST, f"reply {reply.seq} at {reply.position} is not due")
        if isinstance(reply, Hidden):
            got = (reply.state.rows, reply.state.width, reply.state.dtype)
            if got != (due.count, self._width, self._dtype):
                raise PeerError(Code.BAD_REQUEST, f"{due.count} {self._dtype} rows of {self._width} were due")
        elif len(reply.tokens) != due.count or any(token >= self._vocabulary for token in reply.tokens):
            raise PeerError(Code.BAD_REQUEST, f"{due.count} tokens below {self._vocabulary} were due")
        self._due.popleft()


def _cut(length: int, truncate_to: int | None) -> int:
    """The cache length after a truncation, which cannot lengthen it."""
    if truncate_to is None:
        return length
    if not 0 <= truncate_to <= length:
        raise PeerError(Code.BAD_REQUEST, f"a cache of {length} tokens cannot be cut to {truncate_to}")
    return truncate_to


def _end(start: int, rows: int, context: int) -> int:
    """The cache length after `rows` more tokens."""
    if start + rows > context:
        raise PeerError(Code.TOO_LONG, f"{start + rows} tokens do not fit the context of {context}")
    return start + rows
