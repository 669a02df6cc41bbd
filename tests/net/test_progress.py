import json

import pytest

from intelnav.net import progress as module
from intelnav.net.progress import RATE_SECONDS, Progress


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_what_comes_is_counted_by_its_source() -> None:
    progress = Progress(total=100, done=10, copied=10)
    progress.received("a", 20)
    progress.received("b", 30)
    progress.received("a", 5)
    assert (progress.done, progress.copied) == (65, 10)
    assert progress.sources == {"a": 25, "b": 30}


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    progress = Progress()
    progress.received("a", 1000)
    clock.now = 1
    progress.received("a", 500)
    assert progress.rate == pytest.approx(1500 / RATE_SECONDS)
    clock.now = RATE_SECONDS + 0.5
    assert progress.rate == pytest.approx(500 / RATE_SECONDS)
    clock.now = 3600
    assert progress.rate == 0


def test_unwatched_it_does_not_grow(clock: Clock) -> None:
    progress = Progress()
    for second in range(10_000):
        clock.now = second
        progress.received("a", 1)
    assert len(progress._recent) <= RATE_SECONDS + 1


def test_all_of_it_is_plain_json() -> None:
    progress = Progress(total=100, done=10, copied=10)
    progress.received("http://a", 20)
    progress.drop("http://b", "was silent")
    figures = json.loads(json.dumps(progress.as_json()))
    assert figures.pop("bytes_per_second") == pytest.approx(20 / RATE_SECONDS)
    assert figures == {
        "total_bytes": 100,
        "done_bytes": 30,
        "copied_bytes": 10,
        "sources": {"http://a": 20},
        "dropped": [{"source": "http://b", "reason": "was silent"}],
    }
