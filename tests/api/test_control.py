"""The dataclasses as JSON; what the routes make of them is in test_control_routes."""

from intelnav.api.control import Conflict, Event, UnknownSlice
from intelnav.domain.errors import ConfigError


def test_an_event_says_what_it_knows_and_when() -> None:
    bare = Event(1, 1767323045.25, "node", "up")
    assert bare.as_json() == {"seq": 1, "time": "2026-01-02T03:04:05.250Z", "kind": "node", "message": "up"}
    full = Event(2, 0.0, "slice", "", model="m", layers="0..2", state="ready")
    assert full.as_json() == {
        "seq": 2,
        "time": "1970-01-01T00:00:00.000Z",
        "kind": "slice",
        "message": "",
        "model": "m",
        "layers": "0..2",
        "state": "ready",
    }


def test_refusals_are_config_errors_that_can_be_told_apart() -> None:
    assert issubclass(UnknownSlice, ConfigError)
    assert issubclass(Conflict, ConfigError)
    assert len({ConfigError.code, UnknownSlice.code, Conflict.code}) == 3
