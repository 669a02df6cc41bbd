"""What a running node can be asked and told by its owner; `control_routes` serves it over HTTP."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from intelnav.api.replies import Json, rfc3339
from intelnav.domain.errors import ConfigError
from intelnav.domain.slice import LayerRange


class UnknownSlice(ConfigError):
    """The node has no such slice; answered with 404."""

    code = "slice_not_found"


class Conflict(ConfigError):
    """What is asked for cannot be while things are as they are; answered with 409."""

    code = "conflict"


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One step of the controller, and why it is taken. `layers` START..END; None is the model's last layer."""

    action: str
    model: str
    layers: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a slice that is, or shall be, wanted."""

    change: Literal["add", "remove", "reload", "keep"]
    model: str
    layers: str | None


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a config would lead to; `restart` names its changed keys that count from the next start on."""

    actions: tuple[PlannedAction, ...]
    changes: tuple[Change, ...]
    restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunningChain:
    """A session that runs through a slice: `session` is 8 hex digits, `entry` who asks, `prev` and `next` its hops.

    The peers next to this node are ids; None is this node itself, or no one. `seconds` is how long the session is open.
    """

    session: str
    entry: str
    prev: str | None
    next: str | None
    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Hosted:
    """A slice that is hosted: its `state`, and how many of its `sessions` are in use. `cid` None is not yet known."""

    model: str
    cid: str | None
    layers: str
    state: str
    in_use: int
    sessions: int
    chains: tuple[RunningChain, ...]


@dataclass(frozen=True, slots=True)
class Override:
    """A slice after `leave` or `join`: its `state` now, how many sessions still run in it, and how long this lasts."""

    model: str
    layers: str
    state: str
    in_use: int
    until: str = "the config is next loaded"


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The config that counts now, and whether it says anything else than the one before."""

    generation: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, at the unix time `time`. `seq` grows by one for each event since the node's start."""

    seq: int
    time: float
    kind: Literal["config", "slice", "node"]
    message: str
    model: str | None = None
    layers: str | None = None
    state: str | None = None

    def as_json(self) -> Json:
        """Plain JSON, with the time in RFC 3339; what an event has nothing to say of is left out."""
        filled = {key: value for key, value in asdict(self).items() if value is not None}
        return filled | {"time": rfc3339(self.time)}


class Control(Protocol):
    """Steers a running node. What is raised becomes the answer's status.

    UnknownSlice is 404, Conflict 409, any other ConfigError 400, all with the error's text; further IntelNavErrors are
    as in `ApiError.of`. `model` is what a user wrote: a name, a content id, or a reference as in the config.
    """

    async def plan(self, text: str | None, style: Literal["yaml", "toml"]) -> PlanReport:
        """What the node would do now, or, with the `text` of a config, if that were its file. Changes nothing.

        Relative paths start at the folder of the node's own file. ConfigError for what no config may say.
        """

    def hosting(self) -> list[Hosted]:
        """The hosted slices in the order of the config, each with the chains that run through it."""

    async def leave(self, model: str, layers: LayerRange) -> Override:
        """Give up a hosted slice until the config is next loaded; returns as soon as that is under way.

        UnknownSlice if it is not hosted, Conflict if it is left already.
        """

    async def join(self, model: str, layers: LayerRange) -> Override:
        """Host a slice until the config is next loaded; returns as soon as that is under way.

        ConfigError if there is no such model or it has no such layers, Conflict if the slice is hosted already.
        """

    async def reload(self) -> Reloaded:
        """Load the config again, which ends what `leave` and `join` did. ConfigError changes nothing."""

    def events(self, after: int) -> Sequence[Event]:
        """The events that are kept and have a `seq` above `after`, oldest first."""

    async def next_event(self, after: int) -> None:
        """Return once there is an event above `after`, at once if there is; or when the node stops without one."""
