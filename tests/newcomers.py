"""Peers with fresh keys that open a session at a host, one after the other, as a program to run in any network.

`python -m tests.newcomers LISTEN PEER MODEL LAYERS CONTEXT COUNT` prints what each is told: `open`, or a code.
"""

import os
import sys

from intelnav.domain.hidden import Dtype
from intelnav.domain.identity import Identity, PeerId
from intelnav.domain.slice import LayerRange
from intelnav.wire.channel import Channel, Established, Event
from intelnav.wire.messages import AbortSession, SessionAck, SessionInit
from tests.stranger import dial


def open_session(listen: str, peer: str, model: str, layers: str, context: int) -> str:
    """What the host says to a newcomer that wants these last layers of a model."""
    identity = Identity(os.urandom(32))
    channel = Channel(
        identity,
        PeerId.parse(peer),
        static_private=os.urandom(32),
        ephemeral_private=os.urandom(32),
        agent="newcomer",
    )
    wanted = SessionInit(
        os.urandom(16), model, LayerRange.parse(layers), Dtype.F32, context, identity.peer, None
    )
    with dial(listen) as link:
        link.settimeout(30)
        link.sendall(channel.outgoing())
        while data := link.recv(65_536):
            events: list[Event] = channel.receive(data)
            link.sendall(channel.outgoing())
            for event in events:
                if isinstance(event, Established):
                    link.sendall(channel.send(wanted))
                if isinstance(event, SessionAck):
                    return "open"
                if isinstance(event, AbortSession):
                    return event.code
    return "closed"


if __name__ == "__main__":
    listen, peer, model, layers, context, count = sys.argv[1:]
    for _ in range(int(count)):
        print(open_session(listen, peer, model, layers, int(context)))
