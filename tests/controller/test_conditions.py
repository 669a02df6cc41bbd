from dataclasses import replace

import pytest

from intelnav.controller.conditions import conditions
from intelnav.controller.plan import plan
from intelnav.controller.state import (
    Condition,
    Desired,
    Failure,
    Loaded,
    Observed,
    ObservedSlice,
    Room,
    WantedSlice,
)
from tests.controller.worlds import name

NAME = name("m 0..4")
WANTED = WantedSlice(NAME)
FRONT = WantedSlice(NAME, hosted=False)
MISSING = ObservedSlice(NAME)
HERE = ObservedSlice(NAME, here=True, need=1)
LOADED = replace(HERE, loaded=Loaded(Room(), 0.0, 2, memory=1))
READY = replace(LOADED, announced=True)
DRAINING = replace(LOADED, draining=5.0)
TYPES = ["Ready", "BytesHere", "Loaded", "Announced", "Draining"]


def found(
    wanted: WantedSlice | None,
    there: ObservedSlice,
    previous: tuple[Condition, ...] = (),
    generation: int = 1,
    now: float = 100.0,
) -> tuple[Condition, ...]:
    desired = Desired(generation, (wanted,) if wanted is not None else ())
    (view,) = plan(desired, Observed({NAME: there}), 10.0).views
    return conditions(wanted, there, view, previous, generation, now)


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        (WANTED, MISSING, ["-Pending", "-Missing", "-BytesMissing", "-NotLoaded", "-NotLoaded"]),
        (
            WANTED,
            replace(MISSING, doing="fetching"),
            ["-Fetching", "-Fetching", "-BytesMissing", "-NotLoaded", "-NotLoaded"],
        ),
        (
            WANTED,
            replace(MISSING, failure=Failure("why", 9.5)),
            ["-Failed", "-Failed", "-BytesMissing", "-NotLoaded", "-NotLoaded"],
        ),
        (WANTED, HERE, ["-Pending", "+OnDisk", "-NoWorker", "-NotLoaded", "-NotLoaded"]),
        (
            WANTED,
            replace(HERE, doing="loading"),
            ["-Loading", "+OnDisk", "-Loading", "-NotLoaded", "-NotLoaded"],
        ),
        (
            WANTED,
            replace(HERE, failure=Failure("why", 9.5)),
            ["-Failed", "+OnDisk", "-Failed", "-NotLoaded", "-NotLoaded"],
        ),
        (WANTED, READY, ["+Ready", "+OnDisk", "+WorkerRuns", "+InDiscovery", "-InService"]),
        (WANTED, LOADED, ["+Ready", "+OnDisk", "+WorkerRuns", "-Withdrawn", "-InService"]),
        (FRONT, LOADED, ["+Ready", "+OnDisk", "+WorkerRuns", "-NotHosted", "-InService"]),
        (None, DRAINING, ["-Draining", "+OnDisk", "+WorkerRuns", "-NotWanted", "+NotWanted"]),
        (
            replace(WANTED, room=Room(sessions=1)),
            DRAINING,
            ["-Draining", "+OnDisk", "+WorkerRuns", "-Draining", "+Reload"],
        ),
        (None, HERE, ["-Stopped", "+OnDisk", "-NoWorker", "-NotWanted", "-NotLoaded"]),
    ],
)
def test_what_is_so_of_a_slice(wanted: WantedSlice | None, there: ObservedSlice, expected: list[str]) -> None:
    made = found(wanted, there)
    assert [condition.type for condition in made] == TYPES
    signs = {"True": "+", "False": "-"}
    assert [signs[condition.status] + condition.reason for condition in made] == expected


def test_a_failure_is_told() -> None:
    ready, here, *_ = found(WANTED, replace(MISSING, failure=Failure("no source has it", 9.5)))
    assert (ready.message, here.message) == ("no source has it", "no source has it")


def test_a_time_stays_as_long_as_the_status_does() -> None:
    first = found(WANTED, HERE, now=100.0)
    assert {condition.since for condition in first} == {100.0}
    loading = found(WANTED, replace(HERE, doing="loading"), first, generation=2, now=200.0)
    assert {condition.since for condition in loading} == {100.0}
    assert {condition.observed_generation for condition in loading} == {2}
    assert loading[0].reason == "Loading"
    ready = found(WANTED, READY, loading, now=300.0)
    assert [condition.since for condition in ready] == [300.0, 100.0, 300.0, 300.0, 100.0]
    # In whatever order they were kept.
    assert found(WANTED, READY, ready[::-1], now=400.0) == ready
