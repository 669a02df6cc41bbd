"""What a node can be told: the shape of its one file, frozen, in the domain's own types."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from intelnav.config.conflicts import Conflict, conflicts_of
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


def _or_auto(schema: dict[str, Any]) -> None:
    """Slices are a list or the word auto, and only with that word there is a section of that name."""
    properties = schema["properties"]
    properties["slices"] = {"anyOf": [properties["slices"], {"const": "auto"}]}
    schema["if"] = {"properties": {"auto": {"type": "object"}}, "required": ["auto"]}
    schema["then"] = {"properties": {"slices": {"const": "auto"}}, "required": ["slices"]}


_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Item = TypeVar("Item")
Items = Annotated[tuple[Item, ...], Field(max_length=1024), BeforeValidator(_no_items)]


class _Section(BaseModel):
    """The text below a key is what is shown of it to users: by editors, and in docs/config.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _no_keys(cls, value: object) -> object:
        """A section whose keys are all commented out reads as null."""
        return {} if value is None else value


class BackendConfig(_Section):
    """What computes."""

    device: Literal["auto", "cpu", "cuda", "vulkan", "metal", "rocm"] = "auto"
    """What the layers run on; auto takes the first GPU that the installed llama.cpp offers, else the CPU."""
    gpu_layers: int = _whole(-1, -1, 10_000)
    """How many layers the GPU takes; -1 is all, 0 is the same as device cpu."""
    threads: int = _whole(0, 0, 1024)
    """Threads of each slice on the CPU; 0 is one for each physical core that the node may use, less one."""


class SliceConfig(_Section):
    """A layer range of a model that this node hosts for others."""

    model: Model
    """The model: a file (all of it, or a slice of exactly these layers), a name, a CID, a URL, or a file on the hub."""
    layers: Layers
    """Which layers, START..END without END. Ranges of one model may not overlap."""
    sessions: int | None = _maybe(1, 256)
    """Answers under way at once; limits.sessions if left out."""
    context: int | None = _maybe(16, 2**20)
    """Tokens of one session; limits.context if left out."""


class AutoConfig(_Section):
    """What the node picks its slices from, with `slices: auto`."""

    memory: Bytes = None
    """What all of its slices may take together; none leaves it to the machine."""
    models: Items[Model] = ()
    """What to pick from, written as under slices; the catalog if left out."""


class EntryConfig(_Section):
    """A model that this node answers for. It runs the front layers itself, so that no peer sees the prompt as text."""

    model: Model
    """The model, written as under slices."""
    layers: Layers
    """The layers that run here, 0..END without END."""
    name: Annotated[
        str, Field(pattern=_NAME), WithJsonSchema({"type": ["string", "null"], "pattern": _NAME})
    ] = ""
    """What clients call it; made from the model's name if left out."""
    head: Literal["tail", "entry"] = "tail"
    """Who samples. tail: the last peer, which sees the answer's tokens. entry: this node, and no peer sees any."""

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
    """The model, written as under slices."""
    layers: Layers
    """Which layers, START..END without END."""


class PeerConfig(_Section):
    """A peer that is known beforehand; what is written here counts more than what it says of itself."""

    id: Peer
    """Its id, which its status shows."""
    address: Dialled
    """Where to dial it."""
    chunks: Dialled | None = None
    """Where it gives out models, which is its store.chunks; nothing is fetched from it if left out."""
    slices: Items[PeerSlice] = ()
    """What it serves."""


class SeedConfig(_Section):
    """A signed list of bootstrap addresses, fetched once a week; `intelnav seeds` makes and shows them."""

    url: Url
    """Where it lies; http:// on this machine only."""
    key: SeedKey
    """The key whose signature it must bear."""


class NetworkConfig(_Section):
    """How this node meets others."""

    listen: Listen = Address("127.0.0.1", 7717)
    """Where peers reach this node, TCP and UDP. none: it serves no peer, and works behind NAT."""
    dtype: Dtype = Dtype.F16
    """Encoding of the hidden states of chains that this node opens."""
    bootstrap: Items[Dialled] = ()
    """Where to ask first who else is there."""
    seeds: Items[SeedConfig] = ()
    """Signed lists of such addresses."""
    mdns: bool = Field(default=True, strict=True)
    """Look for nodes on the local network, and be found there; a node that is told of loopback alone stays silent."""
    peers: Items[PeerConfig] = ()
    """Who serves what, for peers that are known beforehand."""

    @property
    def is_local(self) -> bool:
        """Whether all that this node listens on or is told of is this machine's own loopback."""
        named = [*self.bootstrap, *(peer.address for peer in self.peers)]
        if self.listen is not None:
            named.append(self.listen)
        return not self.seeds and all(is_loopback(address.host) for address in named)


class StoreConfig(_Section):
    """Models on disk."""

    max_bytes: Bytes = None
    """How much disk the models may take that this node fetches; what is not needed goes first. none: what there is."""
    rate: Rate = None
    """How fast models are fetched, in bytes per second; none: as fast as it goes."""
    chunks: Chunks = "auto"
    """Where peers fetch what this node has of models, over HTTP without encryption: whoever reaches it can read them.
    auto: on the host of network.listen, one port above it.
    """


class ApiConfig(_Section):
    """HTTP besides `control.sock`."""

    listen: Listen = None
    """Where programs reach this node. Whoever reaches it can use the node. none: no TCP."""


class LimitsConfig(_Section):
    """What others may take of this node."""

    sessions: int = _whole(8, 1, 256)
    """Answers under way at once, for each slice."""
    context: int = _whole(4096, 16, 2**20)
    """Tokens of one session."""
    rows: int = _whole(128, 1, 4096)
    """Positions in one forward; at most limits.context."""
    idle_seconds: float = Field(default=300, gt=0, le=86_400, strict=True, allow_inf_nan=False)
    """A session without a forward for so long ends."""
    grace_seconds: float = Field(default=300, ge=0, le=86_400, strict=True, allow_inf_nan=False)
    """How long a slice that the config no longer names goes on for answers under way."""
    connections: int = _whole(64, 1, 65_536)
    """Links that peers opened to this node."""
    contribution: Annotated[
        Literal["enforce", "off"],
        BeforeValidator(_off, json_schema_input_type=Literal["enforce", "off", False]),
    ] = "enforce"
    """enforce: who neither hosts nor relays is refused after ten minutes of grace. No effect on loopback."""


class LogConfig(_Section):
    """What the node writes to its standard error; prompts, tokens and activations never."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is worth a line."""
    format: Literal["human", "json"] = "human"
    """Lines for people, or one JSON object a line."""


class NodeConfig(_Section):
    """Everything that one node is told. Any key can be left out. Relative paths start at the folder of the file."""

    model_config = ConfigDict(json_schema_extra=_or_auto)

    role: Literal["host", "relay"] = "host"
    """host: may lend its hardware to slices of models. relay: hosts none, and carries the DHT."""
    data_dir: DataDir = DATA_DIR
    """Where the node's key, its models and its control socket lie."""
    backend: BackendConfig = BackendConfig()
    slices: Items[SliceConfig] = ()
    """Layer ranges that others may use; auto: the node picks what fits and what the swarm lacks most."""
    auto: AutoConfig | None = None
    entry: Items[EntryConfig] = ()
    """Models that this node answers for."""
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
        if conflicts := list(conflicts_of(self)):
            raise Conflict(*conflicts)
        return self
