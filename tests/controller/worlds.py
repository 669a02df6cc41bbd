"""Worlds to plan in, as files have them: `m 0..4` is a slice, memory is in GiB, and what is left out is as usual."""

from typing import Any

from intelnav.controller.state import (
    Action,
    Desired,
    Failure,
    Load,
    Loaded,
    Observed,
    ObservedSlice,
    Plan,
    Room,
    SliceName,
    SliceView,
    WantedSlice,
)
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange

GIB = 2**30


def name(text: str) -> SliceName:
    model, layers = text.split()
    return SliceName(ModelRef.parse(model), None if layers == "last" else LayerRange.parse(layers))


def desired(text: dict[str, Any]) -> Desired:
    """The config; a slice is its name alone, or `{slice, hosted, and keys of its room}`."""
    return Desired(
        text.pop("generation", 1),
        tuple(wanted(item) for item in text.pop("slices", ())),
        float(text.pop("grace", 300)),
        **text,
    )


def wanted(item: str | dict[str, Any]) -> WantedSlice:
    if isinstance(item, str):
        return WantedSlice(name(item))
    return WantedSlice(name(item.pop("slice")), hosted=item.pop("hosted", True), room=Room(**item))


def observed(text: dict[str, Any]) -> Observed:
    memory = int(text.pop("memory", 2**20) * GIB)
    slices = [there(item) for item in text.pop("slices", ())]
    return Observed({slice.name: slice for slice in slices}, memory, **text)


def there(item: dict[str, Any]) -> ObservedSlice:
    """What is there of a slice; its worker is `{since, in_use, memory, and keys of its room}`."""
    need, worker, failure = item.pop("need", None), item.pop("loaded", None), item.pop("failure", None)
    return ObservedSlice(
        name(item.pop("slice")),
        need=None if need is None else int(need * GIB),
        loaded=None if worker is None else _loaded(worker),
        failure=None if failure is None else Failure(**failure),
        **item,
    )


def _loaded(worker: dict[str, Any]) -> Loaded:
    return Loaded(
        since=worker.pop("since", 0.0),
        in_use=worker.pop("in_use", 0),
        memory=int(worker.pop("memory", 1) * GIB),
        room=Room(**worker),
    )


def written(plan: Plan) -> dict[str, Any]:
    """A plan as a file has it: everything that it says."""
    return {
        "actions": [_action(action) for action in plan.actions],
        "wake_at": plan.wake_at,
        "views": [_view(view) for view in plan.views],
    }


def _slice(name: SliceName) -> str:
    return f"{name.model} {name.layers or 'last'}"


def _action(action: Action) -> str:
    room = f" ({action.room.sessions} sessions)" if isinstance(action, Load) else ""
    return f"{type(action).__name__.lower()} {_slice(action.name)}{room}: {action.reason}"


def _view(view: SliceView) -> str:
    tries = f", failures {view.failures}" if view.failures else ""
    after = f", next try at {view.next_try:g}" if view.next_try is not None else ""
    return f"{_slice(view.name)} {view.state}{tries}{after}" + (f": {view.reason}" if view.reason else "")
