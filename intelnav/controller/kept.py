"""One slice of this node as it is: its file, its worker, and what is being done about it."""

from dataclasses import dataclass, field

from anyio import CancelScope

from intelnav.controller.files import SliceFile
from intelnav.controller.plan import after_success
from intelnav.controller.shelf import Model
from intelnav.controller.state import Doing, Failure, Loaded, ObservedSlice, Room, SliceName, WantedSlice
from intelnav.domain.job import JobProgress
from intelnav.domain.model_ref import model_name
from intelnav.domain.slice import LayerRange
from intelnav.engine.process import SliceProcess
from intelnav.net.progress import Progress


@dataclass(eq=False, slots=True)
class Kept:
    """What there is of one slice. `progress` stays after a fetch to tell how it went.

    `engine` is there while a worker runs that was loaded as `room` says, at `since`, and may take `memory` bytes.
    `work` is the scope of what is under way, if anything is.
    """

    name: SliceName
    model: Model | None = None
    file: SliceFile | None = None
    progress: Progress | JobProgress | None = None
    doing: Doing | None = None
    work: CancelScope = field(default_factory=CancelScope)
    engine: SliceProcess | None = None
    room: Room = field(default_factory=Room)
    since: float = 0.0
    memory: int = 0
    announced: bool = False
    draining: float | None = None
    failure: Failure | None = None

    @property
    def called(self) -> str:
        """What to call the model."""
        return self.model.name if self.model is not None else model_name(self.name.model.value)

    @property
    def layers(self) -> LayerRange | None:
        """Which layers; None for the last one of a model that is not known yet."""
        if self.name.layers is None and self.model is not None:
            return LayerRange(self.model.blocks - 1, self.model.blocks)
        return self.name.layers

    def __str__(self) -> str:
        return f"layers {self.layers or '(the last)'} of {self.called}"

    def observed(self, wanted: WantedSlice | None, now: float) -> ObservedSlice:
        """The same as a value, for the plan; what was failed is forgotten after a healthy while."""
        loaded = None
        if self.engine is not None:
            self.failure = after_success(self.failure, self.since, now)
            loaded = Loaded(self.room, self.since, self.engine.in_use, memory=self.memory)
        room = wanted.room if wanted is not None else self.room
        return ObservedSlice(
            self.name,
            here=self.file is not None,
            need=self.file.need(room) if self.file is not None else None,
            doing=self.doing,
            loaded=loaded,
            announced=self.announced,
            draining=self.draining,
            failure=self.failure,
        )
