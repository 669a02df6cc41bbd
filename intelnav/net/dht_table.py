"""The contacts that a node passes on and starts its lookups from, in the buckets of the kademlia package.

Of that package this uses `Node`, `KBucket` and `RoutingTable`, and those not as they stand: its search is not
XOR-nearest, and its table pings by itself (docs/adr/0007).
"""

from collections import Counter

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from intelnav.dht.contacts import Contact, is_global, nearest, network_of
from intelnav.dht.keys import KEY_BYTES, node_id

BUCKET = 8
# Of one /24 in one bucket, so that whoever has many addresses in it cannot fill it.
PER_NETWORK = 3
# One lost datagram is no dead node. After the first failure it is no longer passed on, after the second it is gone.
FAILURES = 2
# A part of the DHT of which a node knows fewer is one that walks through it may not get into.
ENOUGH = 2
# The package splits a bucket that this node is not in, too, until its depth is a multiple of this.
_DEPTH_STEP = 5


class Table:
    """Contacts that answered, for the node with the public key `own`."""

    def __init__(self, own: bytes) -> None:
        self._own = own
        self._me = Node(node_id(own))
        self._table = RoutingTable(None, BUCKET, self._me)
        self._failures: Counter[bytes] = Counter()
        # Those that are passed on, until something changes: every request asks for them.
        self._good: list[Contact] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._table.buckets))

    def __contains__(self, contact: Contact) -> bool:
        known = self._bucket(contact)[contact.id]
        return known is not None and known.contact == contact

    def contacts(self) -> list[Contact]:
        """Every contact."""
        return [node.contact for bucket in self._table.buckets for node in bucket.get_nodes()]

    def nearest(self, target: bytes, count: int) -> list[Contact]:
        """The contacts nearest to `target` that did not fail lately, nearest first."""
        if self._good is None:
            self._good = [contact for contact in self.contacts() if contact.id not in self._failures]
        return nearest(self._good, target, count)

    def has_room(self, contact: Contact) -> bool:
        """Whether an unknown contact would enter a bucket rather than wait for a place in it."""
        bucket = self._bucket(contact)
        return contact.key != self._own and self._fits(bucket, contact) and self._can_grow(bucket)

    def add(self, contact: Contact) -> Contact | None:
        """A contact that answered. If its bucket is full, it waits; the one to ping, which may be dead, is returned.

        That is also the contact itself at another address, where it has answered so far: the new one counts once that
        fails, so that nobody who passes its datagrams on takes its place.
        """
        if contact.key == self._own:
            return None
        known = self._bucket(contact)[contact.id]
        if known is not None and known.contact != contact and contact.id not in self._failures:
            before: Contact = known.contact
            return before
        if contact in self and contact.id not in self._failures:
            # It moves to the end of its bucket, behind those that were not heard for longer.
            bucket = self._bucket(contact)
            bucket.add_node(bucket[contact.id])
            return None
        self._failures.pop(contact.id, None)
        self._good = None
        node = Node(contact.id, contact.host, contact.port)
        node.contact = contact
        while self._fits(bucket := self._bucket(contact), contact):
            if bucket.add_node(node):
                return None
            if not self._splits(bucket):
                oldest: Contact = bucket.head().contact
                return oldest
            self._table.split_bucket(self._table.get_bucket_for(node))
        return None

    def failed(self, contact: Contact) -> None:
        """It did not answer. One that waits for its place takes it when it is gone."""
        if contact not in self:
            return
        self._good = None
        self._failures[contact.id] += 1
        if self._failures[contact.id] >= FAILURES:
            del self._failures[contact.id]
            self._table.remove_contact(Node(contact.id))

    def buckets(self) -> list[tuple[int, int]]:
        """The ranges of ids, from and to, for which there is a bucket."""
        return [bucket.range for bucket in self._table.buckets]

    def thin_parts(self) -> list[tuple[int, int]]:
        """The ranges of ids, from and to, of which this node knows too few contacts though there must be more.

        A part is all ids that share so many first bits with the own id and no more. Those with the eight nearest
        contacts and beyond have hardly anybody else in them.
        """
        me = self._me.long_id
        distances = sorted(contact.place ^ me for contact in self.contacts())
        known = Counter(distance.bit_length() for distance in distances)
        near = distances[min(BUCKET, len(distances)) - 1].bit_length() if distances else 8 * KEY_BYTES
        parts = []
        for bits in range(8 * KEY_BYTES, near, -1):
            if known[bits] < ENOUGH:
                low = (me >> (bits - 1) ^ 1) << (bits - 1)
                parts.append((low, low + (1 << (bits - 1)) - 1))
        return parts

    def _bucket(self, contact: Contact) -> KBucket:
        return self._table.buckets[self._table.get_bucket_for(Node(contact.id))]

    def _can_grow(self, bucket: KBucket) -> bool:
        return len(bucket) < BUCKET or self._splits(bucket)

    def _splits(self, bucket: KBucket) -> bool:
        return bool(bucket.has_in_range(self._me) or bucket.depth() % _DEPTH_STEP != 0)

    def _fits(self, bucket: KBucket, contact: Contact) -> bool:
        if not is_global(contact.host):
            return True
        network = network_of(contact.host)
        same = [
            node
            # Those that wait count, too: the package lets them in by itself, and takes them along when it splits.
            for node in (*bucket.get_nodes(), *bucket.replacement_nodes.values())
            if node.id != contact.id and network_of(node.contact.host) == network
        ]
        return len(same) < PER_NETWORK
