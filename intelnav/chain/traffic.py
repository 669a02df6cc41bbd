"""Hands what arrives on this node's links to the side of a chain that it is for."""

from intelnav.chain.hop import HopService
from intelnav.chain.ring import Rings
from intelnav.net.connection import Connection
from intelnav.wire.messages import AbortSession, ForwardHidden, Hidden, Message, SessionAck, Token


class Traffic:
    """The `Events` of a node's `Peers`. `rings` and `hops` are set before the node listens or dials."""

    rings: Rings
    hops: HopService

    def on_open(self, link: Connection) -> None:
        """A peer connected; activations of sessions that are open may come this way."""
        self.hops.on_open(link)

    def on_message(self, link: Connection, message: Message) -> None:
        """Answers of hops go to the rings that we opened, everything else to the sessions that we serve."""
        match message:
            case ForwardHidden():
                self.hops.forward(link, message)
            case SessionAck() | Token() | Hidden():
                self.rings.on_message(link, message)
            case AbortSession(session=session) if self.rings.knows(session):
                self.rings.on_message(link, message)
            case _:
                self.hops.on_message(link, message)

    def on_round_trip(self, link: Connection) -> None:
        """How far away a peer is matters to the chains that we plan."""
        self.rings.on_round_trip(link)

    def on_lost(self, link: Connection) -> None:
        """A link is gone, and what depended on it with it."""
        self.rings.on_lost(link)
        self.hops.on_lost(link)

    def uses(self, link: Connection) -> bool:
        """Whether any session, ours or a served one, depends on this link."""
        return self.rings.uses(link) or self.hops.uses(link)
