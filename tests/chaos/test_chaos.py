"""A short run of random events; `make chaos` is the long one."""

from pathlib import Path

import pytest

from tests.chaos.events import events
from tests.chaos.run import chaos
from tests.chaos.world import can_be_made, world


def test_a_seed_gives_the_same_events_again() -> None:
    assert list(events(7, 300)) == list(events(7, 300))
    assert list(events(7, 300)) != list(events(8, 300))


@pytest.mark.timeout(400)
def test_a_node_comes_to_be_as_its_file_says_whatever_happens(tmp_path: Path) -> None:
    if reason := can_be_made():
        pytest.skip(reason)
    with world(tmp_path) as (made, manifest):
        tally = chaos(made, manifest, seed=1, count=30)
    assert tally.settled
