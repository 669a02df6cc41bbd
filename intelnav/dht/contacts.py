"""A node of the DHT as others know it: its key and the UDP address where it answers."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from intelnav.dht.keys import node_id

PUBLIC_KEY = 32
_PORT = 2
_V4_BYTES = 4
_V6_BYTES = 16
# The same few thousand contacts are named again and again. It bounds what a stream of new ones can take, to some MB.
_REMEMBERED = 8192


@dataclass(frozen=True, slots=True)
class Contact:
    """A node: its public key, 32 bytes, and a numeric IP address in its usual spelling with a UDP port."""

    key: bytes
    host: str
    port: int
    id: bytes = field(init=False, repr=False, compare=False)
    place: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The id follows from the key, so nobody can choose where he stands without a search for keys.
        object.__setattr__(self, "id", node_id(self.key))
        object.__setattr__(self, "place", int.from_bytes(self.id, "big"))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port


def nearest(contacts: Iterable[Contact], target: bytes, count: int) -> list[Contact]:
    """The `count` contacts nearest to `target` by the XOR metric, nearest first."""
    wanted = int.from_bytes(target, "big")
    # A table has a few hundred contacts; to sort them all is faster than a heap in Python.
    return sorted(contacts, key=lambda contact: contact.place ^ wanted)[:count]


def pack_address(host: str, port: int) -> bytes:
    """4 or 16 bytes of IP address and 2 of port. Raises ValueError if `host` is no numeric address."""
    return _ip(host).packed + port.to_bytes(_PORT, "big")


def unpack_address(data: object) -> tuple[str, int]:
    """The inverse of `pack_address`; raises ValueError for what cannot be a node's address."""
    if type(data) is not bytes or len(data) not in (_V4_BYTES + _PORT, _V6_BYTES + _PORT):
        raise ValueError("must be 6 or 18 bytes of IP address and port")
    ip = ip_address(data[:-_PORT])
    port = int.from_bytes(data[-_PORT:], "big")
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    if port == 0 or mapped is not None or ip.is_unspecified or ip.is_multicast or ip.packed == b"\xff" * 4:
        raise ValueError(f"{ip}:{port} cannot be a node's address")
    return str(ip), port


def pack(contact: Contact) -> bytes:
    """The contact in 38 or 50 bytes."""
    return contact.key + pack_address(contact.host, contact.port)


def unpack(data: object) -> Contact:
    """The inverse of `pack`; raises ValueError for what cannot be a contact."""
    if type(data) is not bytes:
        raise ValueError("must be a byte string")
    return _unpack(data)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, by any of its loopback addresses."""
    return _ip(host).is_loopback


def is_global(host: str) -> bool:
    """Whether `host` is an address of the open internet."""
    return _sphere(host) == 0


def plain(host: str) -> str:
    """A numeric host in its usual spelling, without a mapping into IPv6 or a zone."""
    ip = ip_address(host.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return str(mapped or ip)


def is_credible(host: str, teller: str) -> bool:
    """Whether a node at `teller` may name `host`: nobody names addresses from a closer sphere than his own.

    Otherwise a stranger could send a node's requests into its own network.
    """
    return _sphere(host) <= _sphere(teller)


@lru_cache(_REMEMBERED)
def network_of(host: str) -> str:
    """The network whose members count together: the /24 of an IPv4 address, the /48 of an IPv6 one."""
    ip = _ip(host)
    kept = 3 if isinstance(ip, IPv4Address) else 6
    return ip.packed[:kept].hex()


@lru_cache(_REMEMBERED)
def owner_of(host: str) -> str:
    """Who counts as one host: an IPv4 address, or the /64 of an IPv6 one."""
    ip = _ip(host)
    return ip.packed[:8].hex()


@lru_cache(_REMEMBERED)
def _unpack(data: bytes) -> Contact:
    return Contact(data[:PUBLIC_KEY], *unpack_address(data[PUBLIC_KEY:]))


@lru_cache(_REMEMBERED)
def _sphere(host: str) -> int:
    ip = _ip(host)
    return 2 if ip.is_loopback else 0 if ip.is_global else 1


@lru_cache(_REMEMBERED)
def _ip(host: str) -> IPv4Address | IPv6Address:
    return ip_address(host)
