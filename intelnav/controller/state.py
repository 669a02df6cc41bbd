"""What the controller compares, and what it can do about a difference: values alone, without clock, files or processes.

Times are seconds on one monotonic clock, bytes are whole numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange

State = Literal[
    "pending", "importing", "fetching", "stitching", "loading", "ready", "draining", "stopped", "failed"
]
"""Where a slice stands, as users are told."""


@dataclass(frozen=True, slots=True)
class SliceName:
    """Which slice: `layers` of a model; None is the model's last layer, wherever that is."""

    model: ModelRef
    layers: LayerRange | None

    def __str__(self) -> str:
        return f"layers {self.layers or '(the last)'} of {self.model}"


@dataclass(frozen=True, slots=True)
class Room:
    """How a slice is loaded; the fields are those of `engine.interface.SliceSpec`. `context` is tokens per session."""

    sessions: int = 8
    context: int = 4096
    max_rows: int = 128
    device: Literal["auto", "cpu", "cuda", "vulkan", "metal", "rocm"] = "auto"
    gpu_layers: int = -1
    threads: int = 0


@dataclass(frozen=True, slots=True)
class WantedSlice:
    """A slice that shall be loaded. `hosted` ones are announced; the others serve this node's own entries alone."""

    name: SliceName
    room: Room = Room()
    hosted: bool = True


@dataclass(frozen=True, slots=True)
class Desired:
    """What shall be: each slice once, in the order in which memory is given out.

    `generation` counts the configs that were accepted. `grace` is how many seconds a drain may take.
    """

    generation: int = 0
    slices: tuple[WantedSlice, ...] = ()
    grace: float = 300.0


Doing = Literal["finding", "importing", "fetching", "stitching", "loading", "unloading", "cancelling"]
"""What an action that is under way does for a slice; at most one is under way for each.

`cancelling` is from Cancel on, until what it stops has ended.
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A worker that runs. `in_use` counts its open sequences, others' sessions and own answers alike.

    `memory` is what it may come to take of the main memory, in bytes: its slice's `need` when it was loaded, 0 if all
    of it lies on a GPU.
    """

    room: Room
    since: float
    in_use: int = 0
    memory: int = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Failure:
    """The last thing that went wrong, at `at`; `count` of them in a row, without a healthy while between."""

    reason: str
    at: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class ObservedSlice:
    """What is there of one slice.

    `here` says that a file of it lies on this disk that can be loaded as it is. `need` is what loading it takes as
    wanted, in bytes, None before the file is here. `draining` is when the drain began: new sessions are refused since.
    """

    name: SliceName
    here: bool = False
    need: int | None = None
    doing: Doing | None = None
    loaded: Loaded | None = None
    announced: bool = False
    draining: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What is: every slice that has anything left of it in this node, and the memory that all may take together."""

    slices: Mapping[SliceName, ObservedSlice] = field(default_factory=dict)
    memory: int = 2**62


# The reason of an action is for people to read: two actions that differ in nothing else are equal.


@dataclass(frozen=True, slots=True)
class Bring:
    """Find the model, fetch what is missing of the slice, and put its file together."""

    name: SliceName
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Load:
    """Start a worker for a slice that is here."""

    name: SliceName
    room: Room
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the DHT of a loaded slice."""

    name: SliceName
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take the slice's advert back."""

    name: SliceName
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Drain:
    """Refuse new sessions from now on; those that are open go on."""

    name: SliceName
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Resume:
    """Take new sessions again: a drain is called off."""

    name: SliceName
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Unload:
    """End the worker. Sessions that are open end with it, for `reason`."""

    name: SliceName
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop what is under way for a slice that is not wanted any more; bytes that were fetched stay."""

    name: SliceName
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing is left to do for a slice that is not wanted: its bytes may go when the store needs room."""

    name: SliceName
    reason: str = field(default="", compare=False)


Action = Bring | Load | Announce | Withdraw | Drain | Resume | Unload | Cancel | Forget


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is so or not, in the form that Kubernetes has.

    `since` is when `status` last changed, in seconds since 1970: it is shown as a date.
    """

    type: Literal["Ready", "BytesHere", "Loaded", "Announced", "Draining"]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    since: float
    observed_generation: int


@dataclass(frozen=True, slots=True)
class SliceView:
    """What users are told of one slice. `next_try` is when a failed one is tried again."""

    name: SliceName
    state: State
    reason: str = ""
    failures: int = 0
    next_try: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and what users are told.

    `wake_at` is when time alone changes it: the next try, the end of a grace; None is never.
    """

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    views: tuple[SliceView, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What another config does to one slice. `reload` ends its worker and starts another; `reason` says more."""

    change: Literal["add", "remove", "reload", "keep"]
    name: SliceName
    reason: str = field(default="", compare=False)
