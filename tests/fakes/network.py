"""A network that is not there: what it says is set, and it can be broken."""

from dataclasses import dataclass, field
from typing import Any

from intelnav.api.network import Contact, Cover, Link, Neighbours, Relay, Seeds, SwarmModel
from intelnav.domain.errors import ConfigError

OWN, NEAR, FAR = (letter * 51 + "q" for letter in "abc")

NEIGHBOURS = Neighbours(
    peer=OWN,
    seen_at="192.0.2.1:7717",
    links=(
        Link(NEAR, "192.0.2.7:7717", 12.345, 2_000_000, 3_500),
        Link(FAR, "192.0.2.8:7717", None, 0, 0),
    ),
    contacts=(Contact(NEAR, "192.0.2.7:7717"), Contact(FAR, "[2001:db8::8]:7717")),
    relays=(Relay(FAR, ("192.0.2.8:7717", "[2001:db8::8]:7717"), 8, 0.25),),
    seeds=(Seeds("https://example.org/intelnav.seeds", "stale", 3, "the server answered with HTTP 500"),),
)

SERVED = SwarmModel(
    name="big",
    cid="b3-" + "q" * 52,
    architecture="qwen2",
    blocks=28,
    size_bytes=280_000_000,
    quantisation="Q4_K_M",
    hosts=3,
    missing=("7..14",),
    cover=(Cover("0..7", 2), Cover("7..14", 0), Cover("14..28", 1)),
)
WHOLE = SwarmModel(
    name="tiny",
    cid="b3-" + "a" * 52,
    architecture="llama",
    blocks=6,
    size_bytes=1_234_567,
    quantisation="F32",
    hosts=2,
    missing=(),
    cover=(Cover("0..6", 2),),
)


def hop(peer: str, layers: str, milliseconds: float, **more: object) -> dict[str, Any]:
    """A hop or an alternate, as `chain.preview` writes it."""
    return {
        "peer": peer,
        "addresses": ["192.0.2.7:7717"],
        "layers": layers,
        "milliseconds": milliseconds,
        "penalty": 0.0,
        **more,
    }


ROUTED: dict[str, Any] = {
    "layers": "8..30",
    "missing": [],
    "problem": "",
    "routes": [
        {
            "milliseconds": 61.5,
            "hops": [
                hop(NEAR, "8..15", 20.25, alternates=[hop(FAR, "8..15", 33.0)]),
                hop(FAR, "15..30", 41.25, alternates=[]),
            ],
        }
    ],
}
BROKEN: dict[str, Any] = {
    "layers": "8..30",
    "missing": ["8..15", "22..30"],
    "problem": "no peer can be reached that hosts layers 8..15, 22..30",
    "routes": [],
}
AT_HOME: dict[str, Any] = {"layers": None, "missing": [], "problem": "", "routes": []}


@dataclass
class ScriptedNetwork:
    """`fail` is raised instead of any answer; routes are known for the model "counting" only."""

    neighbours: Neighbours = NEIGHBOURS
    models: tuple[SwarmModel, ...] = (SERVED, WHOLE)
    routed: dict[str, Any] = field(default_factory=lambda: ROUTED)
    fail: Exception | None = None
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def peers(self) -> Neighbours:
        self._check()
        return self.neighbours

    async def route(self, model: str, count: int) -> dict[str, Any]:
        self.asked.append((model, count))
        self._check()
        if model != "counting":
            raise ConfigError(f"model {model[:80]!r} is not served here; served: counting")
        return self.routed

    async def swarm_models(self) -> tuple[SwarmModel, ...]:
        self._check()
        return self.models

    def _check(self) -> None:
        if self.fail is not None:
            raise self.fail
