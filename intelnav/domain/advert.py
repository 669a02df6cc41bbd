"""What a peer says that it serves."""

from dataclasses import dataclass

from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node listens: a host name or IP, and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `host:port` or `[v6]:port`; raises ValueError that says what an address looks like."""
        host, colon, port = text.strip().rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        labels = host.removesuffix(".").split(".")
        if (
            not colon
            or len(host) > 253
            or not all(0 < len(label) < 64 for label in labels)
            or not (port.isascii() and port.isdecimal())
            or int(port) > 65535
        ):
            raise ValueError(f"{text[:80]!r} is no address: write HOST:PORT, for instance 192.0.2.7:7717")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Advert:
    """One peer's offer for one model: the layer ranges that it has loaded, and where to dial it.

    `chunks` is where it serves the model's chunks over HTTP; `load` is the part of its sessions in use, 0 to 1.
    """

    peer: PeerId
    addresses: tuple[Address, ...]
    model: str
    slices: tuple[LayerRange, ...]
    chunks: Address | None = None
    engine_class: str = ""
    load: float = 0.0
