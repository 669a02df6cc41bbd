"""Whether others can send to this node unasked, told by the address that they see it at."""

import socket
import time

from intelnav.dht.contacts import Contact
from intelnav.dht.own_address import OwnAddress
from intelnav.domain.advert import Address


class Reach:
    """What is known of it. `reachable` is the owner's word on it; with None it is what others see.

    A node is reachable if they see the address that its socket is bound to, on a host that is this machine: then
    nothing translates addresses in between. `bound` is to be set once the socket is.
    """

    def __init__(self, reachable: bool | None) -> None:
        self.bound: Address | None = None
        self._reachable = reachable
        self._votes = OwnAddress()
        self._judged: tuple[Address | None, bool] = (None, False)

    def seen_as(self, address: tuple[str, int], voter: Contact) -> None:
        """A peer that answered sees this node at `address`."""
        self._votes.seen_as(address, voter.key, voter.host, time.monotonic())

    @property
    def seen_at(self) -> Address | None:
        """Where others see this node, once enough of them agree."""
        address = self._votes.confirmed(time.monotonic())
        return None if address is None else Address(*address)

    @property
    def is_client(self) -> bool:
        """Whether others cannot reach this node, as far as is known."""
        if self._reachable is not None:
            return not self._reachable
        seen = self.seen_at
        if seen is None:
            return False
        if self._judged[0] != seen:
            self._judged = seen, self._is_bound_to(seen)
        return not self._judged[1]

    @property
    def stays_out_of_tables(self) -> bool:
        """Whether requests are to say so: for a client, and as long as nothing is known."""
        return self.is_client or (self._reachable is None and self.seen_at is None)

    def _is_bound_to(self, seen: Address) -> bool:
        return self.bound is not None and seen.port == self.bound.port and _is_own_host(seen.host)


def _is_own_host(host: str) -> bool:
    """Whether an address belongs to this machine: only then can a socket be bound to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True
