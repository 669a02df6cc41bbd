"""How much one address may cost this node: datagrams per second, bytes sent to it unproven, and requests in vain."""

from collections import OrderedDict

from intelnav.dht.contacts import owner_of

# Senders that are remembered; the one not heard for longest is forgotten, and starts afresh.
MAX_TRACKED = 8192
VERIFIED_SECONDS = 600.0
AMPLIFICATION = 2
STRIKES = 2
REST_SECONDS = 60.0


class RateLimit:
    """A bucket of `burst` datagrams for each host, which refills with `rate` per second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, host: str, now: float) -> bool:
        """Whether one more datagram from `host` is within its limit; counts it if so."""
        owner = owner_of(host)
        left, since = self._buckets.pop(owner, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1
        self._buckets[owner] = (left - allowed, now)
        if len(self._buckets) > MAX_TRACKED:
            self._buckets.popitem(last=False)
        return allowed


class Silences:
    """Addresses that said nothing, so that hearsay cannot have them asked again and again."""

    def __init__(self) -> None:
        self._silent: OrderedDict[tuple[str, int], tuple[int, float]] = OrderedDict()

    def silent(self, address: tuple[str, int], now: float) -> None:
        """A request to it was not answered."""
        strikes, _ = self._silent.pop(address, (0, now))
        self._silent[address] = strikes + 1, now
        if len(self._silent) > MAX_TRACKED:
            self._silent.popitem(last=False)

    def heard(self, address: tuple[str, int]) -> None:
        """It answered."""
        self._silent.pop(address, None)

    def is_left_alone(self, address: tuple[str, int], now: float) -> bool:
        """Whether the last two requests to it were not answered, the last of them less than a minute ago."""
        strikes, at = self._silent.get(address, (0, now))
        return strikes >= STRIKES and now - at < REST_SECONDS


class Allowance:
    """Never more than twice the bytes that an unverified address sent; none for one that proved itself.

    An address proves itself by what only its owner can know: the id of a request that was sent there, or a token.
    """

    def __init__(self) -> None:
        self._left: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._verified: OrderedDict[tuple[str, int], float] = OrderedDict()

    def received(self, address: tuple[str, int], size: int) -> None:
        """`size` bytes came from there."""
        self._left[address] = self._left.pop(address, 0) + AMPLIFICATION * size
        if len(self._left) > MAX_TRACKED:
            self._left.popitem(last=False)

    def verify(self, address: tuple[str, int], now: float) -> None:
        """The address is proven."""
        self._verified.pop(address, None)
        self._verified[address] = now
        if len(self._verified) > MAX_TRACKED:
            self._verified.popitem(last=False)

    def is_verified(self, address: tuple[str, int], now: float) -> bool:
        """Whether the address proved itself in the last ten minutes."""
        return now - self._verified.get(address, -VERIFIED_SECONDS) < VERIFIED_SECONDS

    def spend(self, address: tuple[str, int], size: int, now: float) -> bool:
        """Whether `size` bytes may be sent there; counts them if so."""
        if self.is_verified(address, now):
            return True
        left = self._left.get(address, 0)
        if left < size:
            return False
        self._left[address] = left - size
        return True
