"""What to do now, from what shall be and what is. Pure: the same of both gives the same plan, whenever it is asked.

All actions of a plan can start at once. Whoever carries them out shows it in what is observed before planning again:
Bring, Load, Unload and Cancel as `doing` until they end, the others by their effect at once.
"""

from dataclasses import asdict, dataclass, field

from intelnav.controller.admission import Admission, stays
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
    Plan,
    Resume,
    SliceName,
    SliceView,
    State,
    Unload,
    WantedSlice,
    Withdraw,
)

# Seconds between tries: doubled each time up to the cap, and forgotten after a healthy while.
FIRST_RETRY = 1.0
LAST_RETRY = 60.0
HEALTHY_SECONDS = 60.0


def after_failure(previous: Failure | None, reason: str, now: float) -> Failure:
    """What to remember of a slice that failed now."""
    return Failure(reason, now, 1 if previous is None else previous.count + 1)


def after_success(previous: Failure | None, since: float, now: float) -> Failure | None:
    """What is left to remember of a slice that has been loaded since `since`: nothing after a healthy while."""
    return None if now - since >= HEALTHY_SECONDS else previous


def retry_at(failure: Failure) -> float:
    """When a slice that failed is tried again."""
    return failure.at + min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failure.count - 1, 10))


def plan(desired: Desired, observed: Observed, now: float) -> Plan:
    """The actions that bring `observed` closer to `desired`, in the order of the config; the rest by name."""
    wanted = {slice.name: slice for slice in desired.slices}
    others = sorted(observed.slices.keys() - wanted.keys(), key=str)
    pairs = [(wanted.get(name), _of(observed, name)) for name in [*wanted, *others]]
    memory = Admission.of(pairs, observed.memory)
    draft = _Draft(now)
    for slice, there in pairs:
        if slice is not None and there.loaded is not None and not stays(slice, there):
            memory.readmit(there.need or 0, there.loaded.memory)
        if there.doing is not None:
            state, reason = _busy(draft, slice, there)
        elif there.loaded is not None:
            state, reason = _worker(draft, slice, there, desired.grace)
        elif slice is None:
            state, reason = _left(draft, there)
        else:
            state, reason = _start(draft, slice, there, memory)
        draft.view(there, state, reason)
    return Plan(tuple(draft.actions), min(draft.wake, default=None), tuple(draft.views))


def changes(old: Desired, new: Desired) -> tuple[Change, ...]:
    """What `new` makes of each slice of `old`: first those of `new` in its order, then those that it does not name."""
    before = {slice.name: slice for slice in old.slices}
    found = []
    for slice in new.slices:
        was = before.pop(slice.name, None)
        if was is None:
            found.append(Change("add", slice.name))
        elif was.room != slice.room:
            found.append(Change("reload", slice.name, _difference(was, slice)))
        elif was.hosted != slice.hosted:
            reason = "is announced from now on" if slice.hosted else "is not announced any more"
            found.append(Change("keep", slice.name, reason))
        else:
            found.append(Change("keep", slice.name))
    return (*found, *(Change("remove", name) for name in before))


@dataclass(slots=True)
class _Draft:
    """A plan in the making."""

    now: float
    actions: list[Action] = field(default_factory=list)
    wake: list[float] = field(default_factory=list)
    views: list[SliceView] = field(default_factory=list)

    def wake_at(self, at: float) -> None:
        if at > self.now:
            self.wake.append(at)

    def view(self, there: ObservedSlice, state: State, reason: str) -> None:
        failure = there.failure
        if failure is not None and there.loaded is not None:
            failure = after_success(failure, there.loaded.since, self.now)
            self.wake_at(there.loaded.since + HEALTHY_SECONDS)
        next_try = retry_at(failure) if failure is not None and state == "failed" else None
        self.views.append(
            SliceView(there.name, state, reason, failure.count if failure is not None else 0, next_try)
        )


def _of(observed: Observed, name: SliceName) -> ObservedSlice:
    return observed.slices.get(name, ObservedSlice(name))


def _busy(draft: _Draft, slice: WantedSlice | None, there: ObservedSlice) -> tuple[State, str]:
    """Something is under way: it is let end, or is stopped if nobody wants it."""
    name, doing = there.name, there.doing
    if there.announced and (there.loaded is None or not stays(slice, there)):
        draft.actions.append(Withdraw(name, "it does not serve any more"))
    if doing == "unloading":
        return "draining", "its worker is being ended"
    if doing == "cancelling":
        return (
            ("stopped", "what was under way is being stopped")
            if slice is None
            else ("pending", "what was under way is being stopped first")
        )
    if slice is None:
        draft.actions.append(Cancel(name, f"not wanted any more while {doing}"))
        return "stopped", "not wanted any more"
    again = f"tried again after: {there.failure.reason}" if there.failure is not None else ""
    match doing:
        case "importing" | "fetching" | "stitching" | "loading":
            return doing, again
        case _:
            return "pending", again or "its model is being looked for"


def _worker(
    draft: _Draft, slice: WantedSlice | None, there: ObservedSlice, grace: float
) -> tuple[State, str]:
    """A worker runs: it serves, or it is drained and ended."""
    assert there.loaded is not None
    if slice is not None and there.loaded.room == slice.room:
        return _serve(draft, slice, there)
    name, in_use = there.name, there.loaded.in_use
    why = "not wanted any more" if slice is None else "to be loaded anew, with other settings"
    if there.announced:
        draft.actions.append(Withdraw(name, why))
    if there.draining is None:
        draft.actions.append(Drain(name, why))
        return "draining", why
    if in_use == 0:
        draft.actions.append(Unload(name, why))
        return "draining", why
    end = there.draining + grace
    if draft.now >= end:
        over = f"{why}, and the {grace:g} s of grace for what was under way are over"
        draft.actions.append(Unload(name, over))
        return "draining", over
    draft.wake_at(end)
    return "draining", f"{why}; in use by {in_use}, for {grace:g} s at most"


def _serve(draft: _Draft, slice: WantedSlice, there: ObservedSlice) -> tuple[State, str]:
    if there.draining is not None:
        draft.actions.append(Resume(there.name, "wanted again"))
    if slice.hosted and not there.announced:
        draft.actions.append(Announce(there.name, "loaded"))
    if there.announced and not slice.hosted:
        draft.actions.append(Withdraw(there.name, "serves this node's own entries alone from now on"))
    return "ready", ""


def _left(draft: _Draft, there: ObservedSlice) -> tuple[State, str]:
    """Nobody wants it, and nothing runs."""
    if there.announced:
        draft.actions.append(Withdraw(there.name, "it does not serve any more"))
    else:
        draft.actions.append(Forget(there.name, "not wanted any more, and nothing of it runs"))
    return "stopped", "not wanted any more"


def _start(draft: _Draft, slice: WantedSlice, there: ObservedSlice, memory: Admission) -> tuple[State, str]:
    """It is wanted and does not run."""
    name, failure = there.name, there.failure
    if there.announced:
        draft.actions.append(Withdraw(name, "its worker has ended"))
    if failure is not None and draft.now < retry_at(failure):
        draft.wake_at(retry_at(failure))
        return "failed", failure.reason
    if not there.here:
        draft.actions.append(Bring(name, _again(failure, "wanted, and not on this disk")))
        return "pending", "to be brought here"
    lacking = memory.admit(there.need or 0)
    if lacking:
        return "pending", lacking
    draft.actions.append(Load(name, slice.room, _again(failure, "here, and there is memory for it")))
    return "pending", "its worker is to be started"


def _again(failure: Failure | None, reason: str) -> str:
    return f"{reason}; try {failure.count + 1}" if failure is not None else reason


def _difference(was: WantedSlice, slice: WantedSlice) -> str:
    """Which settings of the room differ, as `sessions 8 -> 16`."""
    before, after = asdict(was.room), asdict(slice.room)
    return ", ".join(f"{key} {before[key]} -> {after[key]}" for key in after if before[key] != after[key])
