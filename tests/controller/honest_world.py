"""A world in which each action has its effect: what an executor makes of plans, without files and workers."""

from dataclasses import replace

from intelnav.controller.plan import after_failure, after_success, plan
from intelnav.controller.state import (
    Action,
    Announce,
    Bring,
    Cancel,
    Desired,
    Drain,
    Forget,
    Load,
    Loaded,
    Observed,
    ObservedSlice,
    Plan,
    Resume,
    Room,
    SliceName,
    Unload,
    Withdraw,
)


class World:
    """`sizes` says what each slice takes per session; a load takes that times its sessions."""

    def __init__(self, sizes: dict[SliceName, int], memory: int) -> None:
        self.desired = Desired(grace=30.0)
        self.sizes = sizes
        self.memory = memory
        self.now = 1000.0
        self.slices: dict[SliceName, ObservedSlice] = {}
        self.on_disk: set[SliceName] = set()
        self.starting: dict[SliceName, Room] = {}

    def observed(self) -> Observed:
        return Observed({name: self.seen(name) for name in self.slices}, self.memory)

    def seen(self, name: SliceName) -> ObservedSlice:
        here = name in self.on_disk
        rooms = {wanted.name: wanted.room for wanted in self.desired.slices}
        room = self.starting.get(name, rooms.get(name, Room()))
        need = self.sizes[name] * room.sessions if here else None
        return replace(self.slices[name], here=here, need=need)

    def plan(self) -> Plan:
        # What the config names is looked up on disk, so that all that is wanted is observed.
        for wanted in self.desired.slices:
            self.slices.setdefault(wanted.name, ObservedSlice(wanted.name))
        return plan(self.desired, self.observed(), self.now)

    def start(self, action: Action) -> None:
        there = self.slices[action.name]
        match action:
            case Bring():
                there = replace(there, doing="finding")
            case Load(name, room):
                self.starting[name] = room
                there = replace(there, doing="loading")
            case Announce():
                there = replace(there, announced=True)
            case Withdraw():
                there = replace(there, announced=False)
            case Drain():
                there = replace(there, draining=self.now)
            case Resume():
                there = replace(there, draining=None)
            case Unload():
                there = replace(there, doing="unloading")
            case Cancel():
                there = replace(there, doing="cancelling")
            case Forget():
                del self.slices[action.name]
                return
        self.slices[action.name] = there

    def finish(self, name: SliceName) -> None:
        """What is under way for a slice ends well."""
        there = self.slices[name]
        room = self.starting.pop(name, None)
        match there.doing:
            case "finding" | "importing" | "fetching" | "stitching":
                self.on_disk.add(name)
            case "loading":
                assert room is not None
                there = replace(there, loaded=Loaded(room, self.now, memory=self.sizes[name] * room.sessions))
            case "unloading":
                there = replace(there, loaded=None, draining=None)
        self.slices[name] = replace(there, doing=None)

    def fail(self, name: SliceName) -> None:
        """What is under way for a slice goes wrong."""
        there = self.slices[name]
        self.starting.pop(name, None)
        self.slices[name] = replace(
            there, doing=None, failure=after_failure(there.failure, "went wrong", self.now)
        )

    def die(self, name: SliceName) -> None:
        """A worker dies."""
        there = self.slices[name]
        assert there.loaded is not None
        before = after_success(there.failure, there.loaded.since, self.now)
        self.slices[name] = replace(
            there,
            doing=None,
            loaded=None,
            draining=None,
            failure=after_failure(before, "killed", self.now),
        )

    def use(self, name: SliceName, in_use: int) -> None:
        """So many sessions are open from now on."""
        there = self.slices[name]
        assert there.loaded is not None
        self.slices[name] = replace(there, loaded=replace(there.loaded, in_use=in_use))
