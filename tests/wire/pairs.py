"""Two channels that talk to each other in memory."""

from dataclasses import dataclass

from intelnav.domain.identity import Identity, PeerId
from intelnav.wire.channel import Channel, Event
from intelnav.wire.codec import MAX_MESSAGE

DIALLER, ACCEPTOR = Identity(b"\x01" * 32), Identity(b"\x02" * 32)


def dialling(peer: PeerId = ACCEPTOR.peer) -> Channel:
    return Channel(
        DIALLER, peer, static_private=b"\x03" * 32, ephemeral_private=b"\x04" * 32, agent="dialler"
    )


def accepting(max_message: int = MAX_MESSAGE) -> Channel:
    return Channel(
        ACCEPTOR,
        None,
        static_private=b"\x05" * 32,
        ephemeral_private=b"\x06" * 32,
        agent="acceptor",
        max_message=max_message,
    )


@dataclass
class Pair:
    """Both sides, and the events that the handshake gave each of them."""

    left: Channel
    right: Channel
    left_events: list[Event]
    right_events: list[Event]


def connect(step: int = 2**20, *, max_message: int = MAX_MESSAGE) -> Pair:
    """Run the handshake, with at most `step` bytes at once; `max_message` is what the right side takes."""
    pair = Pair(dialling(), accepting(max_message), [], [])
    for _ in range(2):
        pair.right_events += feed(pair.right, pair.left.outgoing(), step)
        pair.left_events += feed(pair.left, pair.right.outgoing(), step)
    return pair


def feed(channel: Channel, data: bytes, step: int) -> list[Event]:
    """What `channel` makes of `data`, given `step` bytes at a time."""
    return [event for at in range(0, len(data), step) for event in channel.receive(data[at : at + step])]
