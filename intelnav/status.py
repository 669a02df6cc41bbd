"""The slices of a node as `/status` shows them; everything in it is plain JSON."""

import time
from collections.abc import Sequence
from typing import Any

from intelnav.api.replies import Json, rfc3339
from intelnav.config import EntryConfig
from intelnav.controller.kept import Kept
from intelnav.controller.loop import Controller
from intelnav.controller.state import Condition, SliceName, SliceView


def slices(controller: Controller) -> list[Json]:
    """What is hosted for others in the order of the config, then what is being given up."""
    wanted = {slice.name: slice.hosted for slice in controller.desired.slices}
    hosted = [name for name, is_hosted in wanted.items() if is_hosted]
    going = [name for name in controller.slices if name not in wanted]
    return [slice_status(controller, name) for name in (*hosted, *going)]


def entries(controller: Controller, entries: Sequence[EntryConfig]) -> list[Json]:
    """What this node answers for, each with the state of its front."""
    return [
        {
            "name": entry.name,
            "head": entry.head,
            **slice_status(controller, SliceName(entry.model, entry.layers)),
        }
        for entry in entries
    ]


def slice_status(controller: Controller, name: SliceName) -> Json:
    """One slice."""
    kept = controller.slices.get(name, Kept(name))
    view = controller.views.get(name, SliceView(name, "pending"))
    now = time.monotonic()
    status: dict[str, Any] = {
        "model": kept.called,
        "cid": kept.model.cid if kept.model is not None else None,
        "layers": str(kept.layers),
        "state": view.state,
        "progress": kept.progress.as_json() if kept.progress is not None else None,
        "reason": view.reason,
        "failures": view.failures,
        "next_try_seconds": round(max(0.0, view.next_try - now), 1) if view.next_try is not None else None,
        "announced": kept.announced,
        "in_use": kept.engine.in_use if kept.engine is not None else 0,
        "conditions": [_condition(each) for each in controller.conditions.get(name, ())],
    }
    if kept.engine is not None:
        info = kept.engine.info
        status |= {
            "engine_class": info.engine_class,
            "memory_estimate_bytes": info.memory,
            "context": info.context,
            "sessions": info.sessions,
            "sequences": kept.engine.in_use,
            "waiting": kept.engine.waiting,
        }
    return status


def unready(controller: Controller) -> str:
    """The first reason why a question cannot be answered; empty if there is none."""
    for slice in controller.desired.slices:
        view = controller.views.get(slice.name, SliceView(slice.name, "pending"))
        if view.state != "ready":
            return f"{controller.slices.get(slice.name, slice.name)}: {view.reason or view.state}"
    return ""


def summary(controller: Controller, answers: int, stopping: bool, error: str | None) -> str:
    """A node in one line, with what is wrong with its config file, if anything."""
    under_way = "1 answer" if answers == 1 else f"{answers} answers"
    if stopping:
        return f"stopping, {under_way} left"
    slices = controller.desired.slices
    ready = sum(
        each.name in controller.views and controller.views[each.name].state == "ready" for each in slices
    )
    line = f"{ready} of {len(slices)} slices ready, {under_way}" if slices else f"no slices, {under_way}"
    return f"{line}; the config file is not taken over: {error}" if error else line


def _condition(condition: Condition) -> Json:
    """As Kubernetes writes it."""
    return {
        "type": condition.type,
        "status": condition.status,
        "observedGeneration": condition.observed_generation,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": rfc3339(condition.since),
    }
