"""Whom a lookup may ask: the keys and addresses that were named, and by how many ([D10] in docs/protocol.md).

Anybody can name anything: a good key at a wrong address, a victim's address for keys that are nobody's. So a key may
have several addresses, what more hosts name comes first, and what stayed silent has to be named by ever more of them.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from intelnav.dht.contacts import Contact, is_global, network_of, owner_of

# Of those that a lookup wants, so many may be on one host, and in one /24 of the open internet.
PER_HOST = 2
PER_NETWORK = 3


def host_of(contact: Contact) -> str:
    """Who counts as one host: an address of the open internet, but elsewhere every port, as many nodes share one."""
    if is_global(contact.host):
        return owner_of(contact.host)
    return f"{contact.host} {contact.port}"


@dataclass(slots=True, eq=False)
class Candidate:
    """A key at an address, the hosts that named it, and what it said when it was asked."""

    contact: Contact
    host: str
    network: str | None
    tellers: set[str] = field(default_factory=set)
    state: Literal["new", "asked", "late", "answered"] = "new"
    token: bytes | None = None


@dataclass(slots=True)
class _Node:
    """All addresses of one key, which of them is asked or has answered, and how many were asked in vain."""

    addresses: dict[tuple[str, int], Candidate] = field(default_factory=dict)
    current: Candidate | None = None
    in_vain: int = 0


class _Wanted:
    """So many of the nearest, of which not all may be in one place."""

    def __init__(self, count: int) -> None:
        self.left = count
        self._hosts: Counter[str] = Counter()
        self._networks: Counter[str] = Counter()

    def takes(self, candidate: Candidate) -> bool:
        """Whether it is one of them; counts it if so."""
        network = candidate.network
        if self._hosts[candidate.host] >= PER_HOST:
            return False
        if network is not None:
            if self._networks[network] >= PER_NETWORK:
                return False
            self._networks[network] += 1
        self._hosts[candidate.host] += 1
        self.left -= 1
        return True


class Candidates:
    """Those of one lookup for `target`, nearest first; never `own`, the key of who looks up."""

    def __init__(self, target: bytes, own: bytes) -> None:
        self._place = int.from_bytes(target, "big")
        self._own = own
        self._nodes: dict[bytes, _Node] = {}
        self._order: list[tuple[int, bytes]] = []
        self._in_vain: Counter[str] = Counter()

    def add(self, contact: Contact, teller: Contact | None) -> None:
        """`teller` named it, or this node knows it itself."""
        if contact.key == self._own:
            return
        node = self._nodes.get(contact.key)
        if node is None:
            node = self._nodes[contact.key] = _Node()
            insort(self._order, (contact.place ^ self._place, contact.key))
        candidate = node.addresses.get(contact.address)
        if candidate is None:
            network = network_of(contact.host) if is_global(contact.host) else None
            candidate = node.addresses[contact.address] = Candidate(contact, host_of(contact), network)
        candidate.tellers.add("" if teller is None else host_of(teller))

    def next(self, wanted: int) -> Candidate | None:
        """Whom to ask next, so that the `wanted` nearest that are alive answer; None if they did or are asked."""
        among = _Wanted(wanted)
        for candidate in self._alive():
            if among.takes(candidate):
                if candidate.state == "new":
                    return candidate
                if not among.left:
                    break
        return None

    def nearest_answered(self) -> bool:
        """Whether the nearest of all that may be alive has answered."""
        nearest = next(self._alive(), None)
        return nearest is not None and nearest.state == "answered"

    def asked(self, candidate: Candidate) -> None:
        """A request is on its way there."""
        candidate.state = "asked"
        self._nodes[candidate.contact.key].current = candidate

    def late(self, candidate: Candidate) -> None:
        """Nothing came back for a while; another address of the key may be asked."""
        self._in_vain[candidate.host] += 1
        self._pass_over(candidate)

    def replaced(self, candidate: Candidate, there: Contact) -> None:
        """Somebody else answered there, which speaks against the key and not against the host."""
        if candidate.state == "asked":
            self._pass_over(candidate)
        self.add(there, None)

    def answered(self, candidate: Candidate, token: bytes | None) -> None:
        """It answered, late perhaps; other addresses of its key are of no interest any more."""
        node = self._nodes[candidate.contact.key]
        candidate.state, candidate.token = "answered", token
        if node.current is None or node.current.state != "answered":
            node.current = candidate

    def of(self, key: bytes) -> Candidate:
        """Where the node with this key answered."""
        candidate = self._nodes[key].current
        assert candidate is not None
        return candidate

    def holders(self, wanted: int) -> list[Candidate]:
        """The `wanted` nearest that answered, nearest first."""
        among = _Wanted(wanted)
        found = []
        for candidate in self._alive():
            if not among.left:
                break
            if candidate.state == "answered" and among.takes(candidate):
                found.append(candidate)
        return found

    def _alive(self) -> Iterator[Candidate]:
        """For each key the address that was asked or is to be asked, nearest first."""
        for _, key in self._order:
            node = self._nodes[key]
            candidate = node.current or self._to_ask(node)
            if candidate is not None:
                yield candidate

    def _to_ask(self, node: _Node) -> Candidate | None:
        may = [each for each in node.addresses.values() if each.state == "new" and self._may_ask(each, node)]
        return max(may, key=lambda each: len(each.tellers), default=None)

    def _may_ask(self, candidate: Candidate, node: _Node) -> bool:
        return len(candidate.tellers) >= max(node.in_vain, self._in_vain[candidate.host])

    def _pass_over(self, candidate: Candidate) -> None:
        node = self._nodes[candidate.contact.key]
        candidate.state = "late"
        node.in_vain += 1
        if node.current is candidate:
            node.current = None
