"""Any valid message, for property tests."""

import string

from hypothesis import strategies as st

from intelnav.domain.advert import Address
from intelnav.domain.errors import Code
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import PeerId
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.wire.messages import (
    AbortSession,
    ForwardHidden,
    Hello,
    Hidden,
    Message,
    NextHop,
    Ping,
    Pong,
    SessionAck,
    SessionClose,
    SessionInit,
    Token,
)

u32 = st.integers(0, 2**32 - 1)
u63 = st.integers(0, 2**63 - 1)
positive = st.integers(1, 2**32 - 1)
sessions = st.binary(min_size=16, max_size=16)
peers = st.binary(min_size=32, max_size=32).map(PeerId)
models = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=64)
dtypes = st.sampled_from(Dtype)
spent = st.lists(u32, max_size=64).map(tuple)
layers = st.tuples(st.integers(0, 999), st.integers(1, 999)).map(
    lambda pair: LayerRange(pair[0], pair[0] + pair[1])
)
labels = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=63)
hosts = st.one_of(
    st.lists(labels, min_size=1, max_size=3).map(".".join),
    st.ip_addresses(v=6).map(str),
)
addresses = st.builds(Address, hosts, st.integers(1, 65535))


def printable(longest: int) -> st.SearchStrategy[str]:
    return st.text(max_size=longest).filter(str.isprintable)


@st.composite
def states(draw: st.DrawFn) -> HiddenState:
    dtype = draw(dtypes)
    rows, width = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    size = rows * dtype.row_bytes(width)
    return HiddenState(dtype, rows, width, draw(st.binary(min_size=size, max_size=size)))


samplings = st.builds(
    Sampling,
    seed=u32,
    temperature=st.floats(0, 10),
    top_k=st.integers(0, 2**20),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    repeat_penalty=st.floats(0.1, 10),
)
next_hops = st.builds(NextHop, peers, st.lists(addresses, max_size=8).map(tuple))
hellos = st.builds(Hello, u32, printable(100), st.lists(printable(64), max_size=32).map(tuple))
forwards = st.builds(ForwardHidden, sessions, u32, u32, states(), st.none() | u32, st.none() | u32, spent)

# Everything that may follow the hello.
messages: st.SearchStrategy[Message] = st.one_of(
    forwards,
    st.builds(
        SessionInit,
        sessions,
        models,
        layers,
        dtypes,
        positive,
        peers,
        st.none() | next_hops,
        st.none() | samplings,
        st.none() | printable(128),
    ),
    st.builds(SessionAck, sessions, printable(128), positive, positive, positive),
    st.builds(Token, sessions, u32, u32, st.lists(u32, max_size=200).map(tuple), spent),
    st.builds(Hidden, sessions, u32, u32, states(), spent),
    st.builds(SessionClose, sessions),
    st.builds(AbortSession, sessions, st.sampled_from(Code), printable(200)),
    st.builds(Ping, u63, u63),
    st.builds(Pong, u63, u63),
)
