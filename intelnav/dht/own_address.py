"""Which address others see this node at. One of them may lie, or see what only it can see; three that agree count."""

from collections import Counter, OrderedDict

from intelnav.dht.contacts import is_loopback, owner_of

ENOUGH = 3
MAX_VOTERS = 32
VOTE_SECONDS = 3600.0


class OwnAddress:
    """The latest word of each of the last peers that answered."""

    def __init__(self) -> None:
        self._votes: OrderedDict[str, tuple[tuple[str, int], float]] = OrderedDict()

    def seen_as(self, address: tuple[str, int], voter: bytes, voter_host: str, now: float) -> None:
        """The peer with the key `voter`, at `voter_host`, sees this node at `address`.

        All peers on one host have one vote, save in a loopback swarm, where all are on one.
        """
        name = voter.hex() if is_loopback(voter_host) else owner_of(voter_host)
        self._votes.pop(name, None)
        self._votes[name] = address, now
        if len(self._votes) > MAX_VOTERS:
            self._votes.popitem(last=False)

    def confirmed(self, now: float) -> tuple[str, int] | None:
        """The address that at least three voters and more than half of all agree on; with fewer than three, all."""
        votes = Counter(address for address, at in self._votes.values() if now - at < VOTE_SECONDS)
        if not votes:
            return None
        address, agreeing = votes.most_common(1)[0]
        voters = votes.total()
        return address if agreeing >= min(ENOUGH, voters) and 2 * agreeing > voters else None
