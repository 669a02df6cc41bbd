"""What is so of a slice and since when, in the form that Kubernetes has."""

from collections.abc import Iterable
from typing import Literal

from intelnav.controller.state import Condition, ObservedSlice, SliceView, WantedSlice

Type = Literal["Ready", "BytesHere", "Loaded", "Announced", "Draining"]
Facts = tuple[Type, bool, str, str]
"""Type, status, reason in one word, message."""


def conditions(
    slice: WantedSlice | None,
    there: ObservedSlice,
    view: SliceView,
    previous: Iterable[Condition],
    generation: int,
    now: float,
) -> tuple[Condition, ...]:
    """The conditions of one slice, always of all types and in one order.

    `slice` is None for one that is not wanted any more, `view` is what the plan says of it, `previous` are its
    conditions so far, if any. `now` is in seconds since 1970. `since` stays as it was where the status does.
    """
    known = {condition.type: condition for condition in previous}
    found = []
    for type, holds, reason, message in _facts(slice, there, view):
        status: Literal["True", "False"] = "True" if holds else "False"
        before = known.get(type)
        since = before.since if before is not None and before.status == status else now
        found.append(Condition(type, status, reason, message, since, generation))
    return tuple(found)


def _facts(slice: WantedSlice | None, there: ObservedSlice, view: SliceView) -> Iterable[Facts]:
    yield "Ready", view.state == "ready", view.state.title(), view.reason
    yield _bytes_here(there)
    yield _loaded(there)
    yield _announced(slice, there)
    yield _draining(slice, there)


def _bytes_here(there: ObservedSlice) -> Facts:
    if there.here:
        return "BytesHere", True, "OnDisk", ""
    if there.doing in ("finding", "importing", "fetching", "stitching"):
        return "BytesHere", False, there.doing.title(), ""
    if there.failure is not None:
        return "BytesHere", False, "Failed", there.failure.reason
    return "BytesHere", False, "Missing", "not on this disk"


def _loaded(there: ObservedSlice) -> Facts:
    if there.loaded is not None:
        return "Loaded", True, "WorkerRuns", ""
    if there.doing == "loading":
        return "Loaded", False, "Loading", ""
    if not there.here:
        return "Loaded", False, "BytesMissing", "what is to be loaded is not on this disk"
    if there.failure is not None:
        return "Loaded", False, "Failed", there.failure.reason
    return "Loaded", False, "NoWorker", ""


def _announced(slice: WantedSlice | None, there: ObservedSlice) -> Facts:
    if there.announced:
        return "Announced", True, "InDiscovery", ""
    if slice is None:
        return "Announced", False, "NotWanted", "not wanted any more"
    if not slice.hosted:
        return "Announced", False, "NotHosted", "serves this node's own entries alone"
    if there.loaded is None:
        return "Announced", False, "NotLoaded", ""
    return "Announced", False, "Draining" if there.draining is not None else "Withdrawn", ""


def _draining(slice: WantedSlice | None, there: ObservedSlice) -> Facts:
    if there.draining is None or there.loaded is None:
        return "Draining", False, "InService" if there.loaded is not None else "NotLoaded", ""
    why = "NotWanted" if slice is None else "Reload"
    return "Draining", True, why, f"{there.loaded.in_use} in use"
