"""The records that a node keeps for others: merged, expiring and bounded ([A4], [A6])."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from intelnav.dht.contacts import network_of, owner_of
from intelnav.dht.keys import distance
from intelnav.dht.records import Record
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import PeerId

_SPARE_EXPIRIES = 1024


@dataclass(frozen=True, slots=True)
class StorageLimits:
    """How many records are kept: for a key, in keys, from one address, and from one network (a /24).

    `key_network` bounds what one network may hold of one key, so that it cannot crowd out all others.
    """

    key: int = 64
    keys: int = 4096
    address: int = 256
    network: int = 1024
    key_network: int = 32


@dataclass(frozen=True, slots=True)
class _Kept:
    record: Record
    owner: str
    network: str


class Storage:
    """Records for the keys near `own`, the id of this node. Times are Unix seconds.

    Withdrawals are kept and shown like all records until they expire: they are what keeps an older one from coming
    back.
    """

    def __init__(self, own: bytes, limits: StorageLimits | None = None) -> None:
        self._own = own
        self._limits = limits or StorageLimits()
        self._keys: dict[bytes, dict[PeerId, _Kept]] = {}
        self._owners: Counter[str] = Counter()
        self._networks: Counter[str] = Counter()
        self._expiry: list[tuple[int, bytes, PeerId, int]] = []
        self._expiry_limit = _SPARE_EXPIRIES

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    @property
    def keys(self) -> int:
        """For how many keys there are records."""
        return len(self._keys)

    def expects(self, record: Record, host: str, now: float) -> None:
        """Raise PeerError if the record would not be stored for a sender at `host`; costs no signature check.

        `bad_request` for one that is not newer than what is kept, `busy` where a limit is reached.
        """
        self.expire(now)
        kept = self._keys.get(record.key, {})
        known = kept.get(record.peer)
        if known is not None and known.record.seq >= record.seq and known.record.data != record.data:
            raise PeerError(Code.BAD_REQUEST, "a record with this seq or a higher one is known")
        owner, network = owner_of(host), network_of(host)
        own_share = known is not None and known.owner == owner
        if not own_share and self._owners[owner] >= self._limits.address:
            raise PeerError(Code.BUSY, "this address has as many records here as one may have")
        if not own_share and self._networks[network] >= self._limits.network:
            raise PeerError(Code.BUSY, "this network has as many records here as one may have")
        if known is None:
            shares = Counter(each.network for each in kept.values())
            if shares[network] >= self._limits.key_network:
                raise PeerError(Code.BUSY, "this network has as many records under the key as one may have")
            if len(kept) >= self._limits.key and max(shares.values()) <= shares[network] + 1:
                raise PeerError(Code.BUSY, "there are as many records under the key as one may have")
            if not kept and len(self._keys) >= self._limits.keys and not self._nearer_than_some(record.key):
                raise PeerError(Code.BUSY, "this node keeps as many keys as it can")

    def add(self, record: Record, host: str, now: float) -> None:
        """Keep a record whose signature holds, sent from `host`; raises PeerError as `expects` does."""
        self.expects(record, host, now)
        kept = self._keys.get(record.key)
        if kept is not None and record.peer in kept and kept[record.peer].record.data == record.data:
            # Whoever sends it once more, it goes on counting for who sent it first.
            return
        if kept is None:
            if len(self._keys) >= self._limits.keys:
                self._drop_key(max(self._keys, key=lambda key: distance(key, self._own)))
            kept = self._keys.setdefault(record.key, {})
        if record.peer in kept:
            self._drop(record.key, record.peer)
            kept = self._keys.setdefault(record.key, {})
        elif len(kept) >= self._limits.key:
            self._drop(record.key, self._most_dispensable(kept))
        entry = _Kept(record, owner_of(host), network_of(host))
        kept[record.peer] = entry
        self._owners[entry.owner] += 1
        self._networks[entry.network] += 1
        heappush(self._expiry, (record.expires, record.key, record.peer, record.seq))
        if len(self._expiry) > self._expiry_limit:
            self._forget_replaced()

    def records(self, key: bytes, now: float) -> Iterator[Record]:
        """Every record under `key`."""
        self.expire(now)
        for kept in self._keys.get(key, {}).values():
            yield kept.record

    def expire(self, now: float) -> None:
        """Forget what has expired."""
        while self._expiry and self._expiry[0][0] <= now:
            _, key, peer, seq = heappop(self._expiry)
            kept = self._keys.get(key, {}).get(peer)
            if kept is not None and kept.record.seq == seq:
                self._drop(key, peer)

    def _forget_replaced(self) -> None:
        """Without this, one peer that announces all the time would fill the list of what is to expire."""
        self._expiry = sorted(
            (each.record.expires, key, peer, each.record.seq)
            for key, kept in self._keys.items()
            for peer, each in kept.items()
        )
        self._expiry_limit = 2 * len(self._expiry) + _SPARE_EXPIRIES

    def _drop(self, key: bytes, peer: PeerId) -> None:
        entry = self._keys[key].pop(peer)
        for counter, name in ((self._owners, entry.owner), (self._networks, entry.network)):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]
        if not self._keys[key]:
            del self._keys[key]

    def _drop_key(self, key: bytes) -> None:
        for peer in list(self._keys[key]):
            self._drop(key, peer)

    def _nearer_than_some(self, key: bytes) -> bool:
        far = max(distance(known, self._own) for known in self._keys)
        return distance(key, self._own) < far

    def _most_dispensable(self, kept: dict[PeerId, _Kept]) -> PeerId:
        """Of the network with the most records under a full key the one that expires first."""
        shares = Counter(each.network for each in kept.values())
        crowd = max(shares, key=lambda network: shares[network])
        return min(
            (peer for peer, each in kept.items() if each.network == crowd),
            key=lambda peer: kept[peer].record.expires,
        )
