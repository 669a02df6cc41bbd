"""Whom a lookup may ask: the keys and addresses that were named, and by how many ([D10] in docs/protocol.md).

Anybody can name anything: a good key at a wrong address, a victim's address for keys that are nobody's. So a key may
have several addresses, and what more hosts name comes first. Who named what stayed silent is believed no more about
that key or that host, others are believed as before; and who did so again and again is doubted altogether.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from intelnav.dht.contacts import Contact, is_global, network_of, owner_of

# Of those that a lookup wants, so many may be on one host, and in one /24 of the open internet, if there are others.
PER_HOST = 2
PER_NETWORK = 3
# Who named so many more that were not there than that answered is doubted in all that he names.
DOUBT = 3
# Who names what this node knows by itself: it was there before.
_ITSELF = ""


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
    """All addresses of one key, which of them is asked or has answered, and who named others that stayed silent."""

    addresses: dict[tuple[str, int], Candidate] = field(default_factory=dict)
    current: Candidate | None = None
    wrong: set[str] = field(default_factory=set)


class _Wanted:
    """So many of the nearest, of which not all may be in one place; `beside` counts those that are too many there."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.beside = 0
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
        self._answered: set[str] = set()
        # For each host those who named what stayed silent there.
        self._wrong: dict[str, set[str]] = {}
        # For each teller how many that he named were not there, less those that answered since.
        self._vain: Counter[str] = Counter()

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
        candidate.tellers.add(_ITSELF if teller is None else host_of(teller))

    def next(self, wanted: int) -> Candidate | None:
        """Whom to ask next, so that the `wanted` nearest that are alive answer; None if they did or are asked.

        Where there are not enough hosts, more nodes of those count that have answered. Those that only tellers of many
        that were not there name are left for want of others.
        """
        among, beside, doubtful = _Wanted(wanted), None, None
        for candidate in self._alive():
            if candidate.state == "new" and self._is_doubtful(candidate):
                doubtful = doubtful or candidate
            elif among.takes(candidate):
                if candidate.state == "new":
                    return candidate
                if not among.left:
                    return None
            elif candidate.state != "new":
                among.beside += 1
            elif beside is None and candidate.host in self._answered:
                beside = candidate
        return beside or doubtful if among.beside < among.left else None

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
        self._wrong.setdefault(candidate.host, set()).update(candidate.tellers)
        self._vain.update(candidate.tellers)
        self._pass_over(candidate)

    def replaced(self, candidate: Candidate, there: Contact) -> None:
        """Somebody else answered there, which speaks against the key and not against the host."""
        if candidate.state == "asked":
            self._vain.update(candidate.tellers)
            self._pass_over(candidate)
        self.add(there, None)

    def answered(self, candidate: Candidate, token: bytes | None) -> None:
        """It answered, late perhaps; other addresses of its key are of no interest any more."""
        node = self._nodes[candidate.contact.key]
        # Who is late after all was counted as silent.
        regained = 2 if candidate.state == "late" else 1
        for teller in candidate.tellers:
            self._vain[teller] = max(0, self._vain[teller] - regained)
        candidate.state, candidate.token = "answered", token
        self._answered.add(candidate.host)
        if node.current is None or node.current.state != "answered":
            node.current = candidate

    def of(self, key: bytes) -> Candidate:
        """Where the node with this key answered."""
        candidate = self._nodes[key].current
        assert candidate is not None
        return candidate

    def holders(self, wanted: int) -> list[Candidate]:
        """The `wanted` nearest that answered, nearest first; more on one host only for want of others."""
        among = _Wanted(wanted)
        answered = [candidate for candidate in self._alive() if candidate.state == "answered"]
        chosen = {candidate.contact.key for candidate in answered if among.left and among.takes(candidate)}
        beside = [candidate for candidate in answered if candidate.contact.key not in chosen]
        chosen.update(candidate.contact.key for candidate in beside[: among.left])
        return [candidate for candidate in answered if candidate.contact.key in chosen]

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
        believed = candidate.tellers - node.wrong - self._wrong.get(candidate.host, set())
        return bool(believed) or _ITSELF in candidate.tellers

    def _is_doubtful(self, candidate: Candidate) -> bool:
        return _ITSELF not in candidate.tellers and all(
            self._vain[teller] >= DOUBT for teller in candidate.tellers
        )

    def _pass_over(self, candidate: Candidate) -> None:
        node = self._nodes[candidate.contact.key]
        candidate.state = "late"
        node.wrong.update(candidate.tellers)
        if node.current is candidate:
            node.current = None
