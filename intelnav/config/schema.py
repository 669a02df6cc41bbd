"""What a node can be told: the shape of its one file, frozen, in the domain's own types."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from intelnav.config.values import (
    Bytes,
    Chunks,
    DataDir,
    Dialled,
    Layers,
    Listen,
    Model,
    Peer,
    Rate,
    SeedKey,
    Url,
    is_loopback,
)
from intelnav.domain.advert import Address
from intelnav.domain.hidden import Dtype
from intelnav.domain.model_ref import ModelRef, model_name

MAX_PORT = 65535
DATA_DIR = Path("~/.local/share/intelnav")


def _whole(default: int, low: int, high: int) -> int:
    """A setting that is a whole number from `low` to `high`; a text or a boolean is none."""
    number: int = Field(default=default, ge=low, le=high, strict=True)
    return number


def _maybe(low: int, high: int) -> int | None:
    """A setting that is a whole number from `low` to `high`, or left out."""
    number: int | None = Field(default=None, ge=low, le=high, strict=True)
    return number


def _no_items(value: object) -> object:
    """A list whose items are all commented out reads as null."""
    return () if value is None else value


def _off(value: object) -> object:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else value


Item = TypeVar("Item")
Items = Annotated[tuple[Item, ...], Field(max_length=1024), BeforeValidator(_no_items)]


class Conflict(ValueError):
    """Keys that are fine alone and wrong together. Each argument is one sentence: `KEY = VALUE: why; fix`."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _no_keys(cls, value: object) -> object:
        """A section whose keys are all commented out reads as null."""
        return {} if value is None else value


class BackendConfig(_Section):
    """What computes. `gpu_layers` -1 puts all on the GPU; `threads` 0 is the physical cores minus one."""

    device: Literal["auto", "cpu", "cuda", "vulkan", "metal", "rocm"] = "auto"
    gpu_layers: int = _whole(-1, -1, 10_000)
    threads: int = _whole(0, 0, 1024)


class SliceConfig(_Section):
    """A layer range of a model that this node hosts for others. What is None is as in `limits`."""

    model: Model
    layers: Layers
    sessions: int | None = _maybe(1, 256)
    context: int | None = _maybe(16, 2**20)


class AutoConfig(_Section):
    """What the node picks its slices from, with `slices: auto`. Without `models` it is the catalog's.

    `memory` is what all of them may take together, in bytes; None leaves it to the machine.
    """

    memory: Bytes = None
    models: Items[Model] = ()


class EntryConfig(_Section):
    """A model that this node answers for; it runs `layers` itself. `name` defaults to one made from the model's."""

    model: Model
    layers: Layers
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] = ""
    head: Literal["tail", "entry"] = "tail"

    @model_validator(mode="before")
    @classmethod
    def _name_from_model(cls, value: Any) -> Any:
        match value:
            case {"model": str() | Path() | ModelRef() as model} if value.get("name") is None:
                return {**value, "name": model_name(str(model))}
        return value

    @model_validator(mode="after")
    def _from_the_first_layer(self) -> Self:
        if self.layers.start != 0:
            raise Conflict(
                f"layers = {self.layers}: an entry runs the front layers; write 0..{self.layers.end}"
            )
        return self


class PeerSlice(_Section):
    """A layer range that a peer serves."""

    model: Model
    layers: Layers


class PeerConfig(_Section):
    """A peer, where to dial it, and what it serves. At `chunks` it gives out the bytes of its models over HTTP."""

    id: Peer
    address: Dialled
    chunks: Dialled | None = None
    slices: Items[PeerSlice] = ()


class SeedConfig(_Section):
    """A signed list of bootstrap addresses: where it is fetched, and the key whose signature it must bear."""

    url: Url
    key: SeedKey


class NetworkConfig(_Section):
    """How this node meets others. Without `listen` it serves no peer, and works behind NAT.

    `bootstrap`, `seeds` and `mdns` are where it looks for the first of them.
    """

    listen: Listen = Address("127.0.0.1", 7717)
    dtype: Dtype = Dtype.F16
    bootstrap: Items[Dialled] = ()
    seeds: Items[SeedConfig] = ()
    mdns: bool = Field(default=True, strict=True)
    peers: Items[PeerConfig] = ()

    @property
    def is_local(self) -> bool:
        """Whether all that this node listens on or is told of is this machine's own loopback."""
        named = [*self.bootstrap, *(peer.address for peer in self.peers)]
        if self.listen is not None:
            named.append(self.listen)
        return not self.seeds and all(is_loopback(address.host) for address in named)


class StoreConfig(_Section):
    """Models on disk. `rate` bounds downloads, in bytes per second; see `NodeConfig.chunks` for "auto"."""

    max_bytes: Bytes = None
    rate: Rate = None
    chunks: Chunks = "auto"


class ApiConfig(_Section):
    """HTTP besides `control.sock`: a TCP address, or None."""

    listen: Listen = None


class LimitsConfig(_Section):
    """What others may take. `context` is tokens per session, `rows` per forward; `sessions` is per slice.

    `grace_seconds` is how long a slice that the config no longer names goes on for answers under way.

    `connections` bounds the links that peers opened to this node. `contribution` says whether it serves only peers that
    host or relay themselves.
    """

    sessions: int = _whole(8, 1, 256)
    context: int = _whole(4096, 16, 2**20)
    rows: int = _whole(128, 1, 4096)
    idle_seconds: float = Field(default=300, gt=0, le=86_400, strict=True, allow_inf_nan=False)
    grace_seconds: float = Field(default=300, ge=0, le=86_400, strict=True, allow_inf_nan=False)
    connections: int = _whole(64, 1, 65_536)
    contribution: Annotated[Literal["enforce", "off"], BeforeValidator(_off)] = "enforce"


class LogConfig(_Section):
    """What the node writes to its standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["human", "json"] = "human"


class NodeConfig(_Section):
    """Everything that one node is told. Paths are absolute, and model files exist.

    `slices: auto` reads as no slices, and an `auto` that is not None.
    """

    role: Literal["host", "relay"] = "host"
    data_dir: DataDir = DATA_DIR
    backend: BackendConfig = BackendConfig()
    slices: Items[SliceConfig] = ()
    auto: AutoConfig | None = None
    entry: Items[EntryConfig] = ()
    network: NetworkConfig = NetworkConfig()
    store: StoreConfig = StoreConfig()
    api: ApiConfig = ApiConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()

    @property
    def control_socket(self) -> Path:
        """Where the node's own HTTP API listens."""
        return self.data_dir / "control.sock"

    @property
    def chunks(self) -> Address | None:
        """Where peers fetch models from this node. "auto": one port above `network.listen`; port 0 stays 0."""
        if self.store.chunks != "auto":
            return self.store.chunks
        listen = self.network.listen
        return listen and Address(listen.host, listen.port and listen.port + 1)

    @model_validator(mode="before")
    @classmethod
    def _slices_of_its_own_choice(cls, value: Any) -> Any:
        match value:
            case {"slices": "auto"}:
                return {**value, "slices": (), "auto": value.get("auto") or {}}
            case {"auto": auto} if auto is not None:
                raise Conflict("auto: has an effect with slices: auto only; write that, or remove auto")
        return value

    @model_validator(mode="after")
    def _without_conflicts(self) -> Self:
        if conflicts := list(self._conflicts()):
            raise Conflict(*conflicts)
        return self

    def _conflicts(self) -> Iterator[str]:
        """Sentences about keys that are fine alone and wrong together."""
        if self.auto is not None and self.role == "relay":
            yield "role = 'relay': a relay hosts no slices; remove slices: auto, or write role: host"
        if self.auto is not None and self.network.listen is None:
            yield "network.listen = none: peers cannot reach the slices; write HOST:PORT, or remove slices: auto"
        if self.slices and self.role == "relay":
            yield "role = 'relay': a relay hosts no slices; remove slices, or write role: host"
        if self.slices and self.network.listen is None:
            yield "network.listen = none: peers cannot reach the slices; write HOST:PORT, or remove slices"
        if (listen := self.network.listen) is not None and listen.port and listen == self.api.listen:
            yield f"api.listen = {listen}: network.listen has that address already; write another port"
        yield from self._chunk_conflicts()
        if self.limits.rows > self.limits.context:
            yield f"limits.rows = {self.limits.rows}: must not exceed limits.context, {self.limits.context}"
        for (i, one), (j, other) in combinations(enumerate(self.slices), 2):
            common = max(one.layers.start, other.layers.start) < min(one.layers.end, other.layers.end)
            if common and _same(one.model, other.model):
                yield (
                    f"slices[{j}].layers = {other.layers}: overlaps slices[{i}], {one.layers}, of that model;"
                    " write ranges that share no layer"
                )
        for (i, first), (j, second) in combinations(enumerate(self.entry), 2):
            if first.name == second.name:
                yield f"entry[{j}].name = {second.name!r}: entry[{i}] has that name already; write another"
        for (i, left), (j, right) in combinations(enumerate(self.network.peers), 2):
            if left.id == right.id:
                yield f"network.peers[{j}].id = {right.id}: is network.peers[{i}] already; join the two"
        for (i, this), (j, that) in combinations(enumerate(self.network.seeds), 2):
            if this == that:
                yield f"network.seeds[{j}].url = {that.url!r}: is network.seeds[{i}] already; remove one"

    def _chunk_conflicts(self) -> Iterator[str]:
        """Sentences about `store.chunks` beside the other addresses."""
        written, chunks = self.store.chunks, self.chunks
        if chunks is None:
            return
        if chunks.port > MAX_PORT:
            yield f"store.chunks = {written}: there is no port above network.listen's; write HOST:PORT, or none"
        for key, address in (("network.listen", self.network.listen), ("api.listen", self.api.listen)):
            if chunks.port and chunks == address:
                yield f"store.chunks = {written}: {chunks} is {key} already; write another port"


def _same(one: ModelRef, other: ModelRef) -> bool:
    """Whether two references name one model, as far as the config can tell: links to one file do."""
    if one.kind == other.kind == "path":
        return Path(one.value).resolve() == Path(other.value).resolve()
    return one == other
