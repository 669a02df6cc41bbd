from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from intelnav.controller.plan import after_failure, after_success, changes, plan, retry_at
from intelnav.controller.state import (
    Action,
    Announce,
    Bring,
    Cancel,
    Change,
    Desired,
    Drain,
    Failure,
    Forget,
    Load,
    Observed,
    ObservedSlice,
    Resume,
    Room,
    SliceName,
    Unload,
    WantedSlice,
    Withdraw,
)
from tests.controller.honest_world import World
from tests.controller.worlds import name as named

NAMES = [named("m 0..4"), named("m 4..8"), named("m 8..12"), named("other 0..2"), named("other last")]
SIZES = dict(zip(NAMES, (3, 1, 2, 1, 4), strict=True))
ROOMS = [Room(sessions=1), Room(sessions=2), Room(sessions=2, device="cpu")]
STEPS = 200

names = st.sampled_from(NAMES)
configs = st.lists(
    st.builds(WantedSlice, names, st.sampled_from(ROOMS), st.booleans()),
    unique_by=lambda wanted: wanted.name,
    max_size=5,
)
# What may not be done to one slice in one plan: Withdraw goes with all, Resume with Announce, the rest alone.
TOGETHER: set[frozenset[type[Action]]] = {
    frozenset({Withdraw, other}) for other in (Bring, Load, Drain, Unload, Cancel, Resume)
} | {frozenset({Resume, Announce})}


class Controller(RuleBasedStateMachine):
    """Edits, faults, sessions and time in any order; after each, the plan has a cause for all that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(SIZES, memory=9)

    @initialize(slices=configs, in_use=st.integers(0, 2))
    def begin(self, slices: list[WantedSlice], in_use: int) -> None:
        """Most walks begin with workers that run."""
        self.edit(slices, 30.0)
        if in_use:
            self.run(3)
            for name in self._running():
                self.world.use(name, in_use - 1)

    @rule(slices=configs, grace=st.sampled_from((0.0, 30.0)))
    def edit(self, slices: list[WantedSlice], grace: float) -> None:
        self.world.desired = Desired(self.world.desired.generation + 1, tuple(slices), grace)

    @precondition(lambda self: self.world.desired.slices)
    @rule(data=st.data(), room=st.sampled_from((None, *ROOMS)), hosted=st.booleans())
    def edit_one(self, data: st.DataObject, room: Room | None, hosted: bool) -> None:
        """One slice is loaded otherwise from now on, or not wanted any more; the others stay."""
        before = self.world.desired
        which = data.draw(st.sampled_from(before.slices))
        after = () if room is None else (WantedSlice(which.name, room, hosted),)
        index = before.slices.index(which)
        slices = (*before.slices[:index], *after, *before.slices[index + 1 :])
        self.world.desired = Desired(before.generation + 1, slices, before.grace)

    @rule(times=st.integers(1, 4))
    def run(self, times: int) -> None:
        """All goes well for a while."""
        for _ in range(times):
            self.carry_out_all()
            for name in NAMES:
                if self._doing(name):
                    self.world.finish(name)

    @rule(which=st.sets(st.integers(0, 9)))
    def carry_out(self, which: set[int]) -> None:
        """Some actions of the plan, as if the rest came late."""
        for index, action in enumerate(self.world.plan().actions):
            if index in which:
                self.world.start(action)

    @rule()
    def carry_out_all(self) -> None:
        for action in self.world.plan().actions:
            self.world.start(action)

    @precondition(lambda self: any(there.doing for there in self.world.slices.values()))
    @rule(data=st.data(), well=st.booleans())
    def end(self, data: st.DataObject, well: bool) -> None:
        name = data.draw(st.sampled_from([name for name in NAMES if self._doing(name)]))
        if well or self._doing(name) in ("unloading", "cancelling"):
            self.world.finish(name)
        else:
            self.world.fail(name)

    @precondition(lambda self: any(there.doing == "finding" for there in self.world.slices.values()))
    @rule(data=st.data(), doing=st.sampled_from(("importing", "fetching", "stitching")))
    def get_further(self, data: st.DataObject, doing: str) -> None:
        name = data.draw(st.sampled_from([name for name in NAMES if self._doing(name) == "finding"]))
        self.world.slices[name] = replace(self.world.slices[name], doing=doing)  # type: ignore[arg-type]

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.world.die(data.draw(st.sampled_from(self._running())))

    @precondition(lambda self: self._running())
    @rule(data=st.data(), in_use=st.integers(0, 2))
    def use(self, data: st.DataObject, in_use: int) -> None:
        name = data.draw(st.sampled_from(self._running()))
        there = self.world.slices[name]
        assert there.loaded is not None
        # None are taken while it drains.
        most = there.loaded.in_use if there.draining is not None else 2
        self.world.use(name, min(in_use, most))

    @rule(name=names)
    def go_bad(self, name: SliceName) -> None:
        self.world.on_disk.discard(name)

    @rule(seconds=st.sampled_from((0.1, 1.0, 29.5, 100.0)))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(memory=st.integers(1, 16))
    def measure(self, memory: int) -> None:
        self.world.memory = memory

    def _doing(self, name: SliceName) -> str | None:
        return self.world.slices[name].doing if name in self.world.slices else None

    def _running(self) -> list[SliceName]:
        return [name for name in NAMES if name in self.world.slices and self.world.slices[name].loaded]

    @invariant()
    def every_action_has_a_cause(self) -> None:
        made = self.world.plan()
        wanted = {wanted.name: wanted for wanted in self.world.desired.slices}
        for action in made.actions:
            there = self.world.seen(action.name)
            assert _has_a_cause(action, wanted.get(action.name), there, self.world), (action, there)
            assert action.reason
        assert made.wake_at is None or made.wake_at > self.world.now

    @invariant()
    def no_two_actions_contradict(self) -> None:
        for one, other in combinations(self.world.plan().actions, 2):
            if one.name == other.name:
                assert frozenset({type(one), type(other)}) in TOGETHER

    @invariant()
    def order_of_arrival_does_not_matter(self) -> None:
        made = self.world.plan()
        there = list(self.world.observed().slices.items())
        for order in (reversed(there), sorted(there, key=str), there[1:] + there[:1]):
            observed = Observed(dict(order), self.world.memory)
            assert plan(self.world.desired, observed, self.world.now) == made

    @invariant()
    def memory_is_enough_for_what_is_loaded(self) -> None:
        made = self.world.plan()
        loads = [action.name for action in made.actions if isinstance(action, Load)]
        if not loads:
            return
        taken = 0
        for name in self.world.slices:
            there = self.world.seen(name)
            taken += there.loaded.memory if there.loaded else 0
            taken += (there.need or 0) if there.doing in ("loading", "cancelling") else 0
        asked = sum(self.world.seen(name).need or 0 for name in loads)
        assert taken + asked <= self.world.memory or (taken == 0 and len(loads) == 1)

    @invariant()
    def there_is_a_view_of_each_slice(self) -> None:
        made = self.world.plan()
        wanted = [slice.name for slice in self.world.desired.slices]
        assert [view.name for view in made.views][: len(wanted)] == wanted
        assert {view.name for view in made.views} == {*wanted, *self.world.slices}
        for view in made.views:
            there = self.world.seen(view.name)
            assert (view.state == "failed") == (view.next_try is not None)
            assert view.state != "failed" or view.reason
            assert view.state != "ready" or (there.loaded and view.name in wanted)
            assert view.name in wanted or view.state in ("draining", "stopped")

    @rule()
    def nothing_is_planned_twice(self) -> None:
        made = self.world.plan()
        for action in made.actions:
            self.world.start(action)
        assert not set(made.actions) & set(self.world.plan().actions)

    def teardown(self) -> None:
        """A world that does as it is told comes to what the config says; sessions never end by themselves."""
        for _ in range(STEPS):
            made = self.world.plan()
            for action in made.actions:
                self.world.start(action)
            doing = [name for name in NAMES if self._doing(name)]
            for name in doing:
                self.world.finish(name)
            if made.actions or doing:
                continue
            if made.wake_at is None:
                break
            self.world.now = made.wake_at
        else:
            pytest.fail("the plans have no end")
        self._is_as_configured()

    def _is_as_configured(self) -> None:
        world = self.world
        assert set(world.slices) == {wanted.name for wanted in world.desired.slices}
        views = {view.name: view for view in world.plan().views}
        taken = sum(there.loaded.memory for there in world.slices.values() if there.loaded)
        for wanted in world.desired.slices:
            there = world.seen(wanted.name)
            assert there.draining is None
            assert there.announced == (wanted.hosted and there.loaded is not None)
            if there.loaded is not None:
                assert there.loaded.room == wanted.room
                assert views[wanted.name].state == "ready"
            else:
                assert there.need is not None
                assert taken
                assert taken + there.need > world.memory
                assert views[wanted.name].reason.startswith("waits for memory")


def _has_a_cause(action: Action, wanted: WantedSlice | None, there: ObservedSlice, world: World) -> bool:
    loaded, idle, now = there.loaded, there.doing is None, world.now
    may_try = there.failure is None or retry_at(there.failure) <= now
    serves = wanted is not None and loaded is not None and wanted.room == loaded.room
    match action:
        case Bring():
            return wanted is not None and idle and may_try and not there.here and loaded is None
        case Load(_, room):
            asked = wanted is not None and wanted.room == room
            return asked and idle and may_try and there.here and loaded is None
        case Announce():
            serving = there.draining is None or Resume(action.name) in world.plan().actions
            hosted = wanted is not None and wanted.hosted
            return serves and hosted and idle and serving and not there.announced
        case Withdraw():
            fronts = wanted is not None and not wanted.hosted
            return there.announced and (not serves or fronts or not idle)
        case Drain():
            return loaded is not None and idle and not serves and there.draining is None
        case Resume():
            return serves and idle and there.draining is not None
        case Unload():
            if loaded is None or there.draining is None or serves or not idle:
                return False
            return loaded.in_use == 0 or now >= there.draining + world.desired.grace
        case Cancel():
            return wanted is None and there.doing not in (None, "cancelling", "unloading")
        case Forget():
            return wanted is None and idle and loaded is None and not there.announced


TestController = Controller.TestCase
TestController.settings = settings(max_examples=400, stateful_step_count=30, deadline=None)


def test_failures_wait_twice_as_long_each_time_up_to_a_minute() -> None:
    failure, waits = None, []
    for _ in range(9):
        failure = after_failure(failure, "why", 100.0)
        waits.append(retry_at(failure) - 100)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert retry_at(Failure("why", 100.0, 10**9)) == 160


def test_failures_are_forgotten_after_a_healthy_minute() -> None:
    failure = Failure("why", 10.0, 4)
    assert after_success(failure, 100.0, 159.9) == failure
    assert after_success(failure, 100.0, 160.0) is None
    assert after_failure(after_success(failure, 100.0, 160.0), "again", 160.0).count == 1
    assert after_success(None, 100.0, 101.0) is None


def test_changes_are_told_slice_by_slice() -> None:
    kept, moved, fronts, gone, new = NAMES
    old = Desired(
        1, (WantedSlice(gone), WantedSlice(kept), WantedSlice(moved), WantedSlice(fronts, hosted=False))
    )
    wanted = (
        WantedSlice(new),
        WantedSlice(moved, Room(sessions=16, context=512)),
        WantedSlice(fronts),
        WantedSlice(kept),
    )
    found = changes(old, Desired(2, wanted))
    assert found == (
        Change("add", new),
        Change("reload", moved),
        Change("keep", fronts),
        Change("keep", kept),
        Change("remove", gone),
    )
    assert [change.reason for change in found] == [
        "",
        "sessions 8 -> 16, context 4096 -> 512",
        "is announced from now on",
        "",
        "",
    ]
    assert changes(old, old) == tuple(Change("keep", slice.name) for slice in old.slices)
