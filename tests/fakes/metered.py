"""Figures of a node that is not there."""

from collections import Counter

from intelnav.api.metrics import Figures, SliceFigures
from intelnav.domain.durations import Durations


def durations(*seconds: float) -> Durations:
    counted = Durations()
    for each in seconds:
        counted.add(each)
    return counted


FIGURES = Figures(
    role="host",
    peer="me",
    uptime_seconds=12.5,
    states=("pending", "ready", "failed"),
    slices=(
        SliceFigures("hosted", 'a "model"\n', "8..15", "ready", 0, 2, 3, 1_000_000),
        SliceFigures("hosted", "other", "0..4", "failed", 7, None, None, None),
        SliceFigures("entry", "other", "0..4", "ready", 0, 0, 0, 2_000_000),
    ),
    answers=1,
    answers_begun=5,
    answer_failures=Counter({"busy": 2}),
    tokens=64,
    prefill=durations(0.2, 0.3),
    decode=durations(0.01, 0.02, 90.0),
    sessions=2,
    sessions_opened=9,
    sessions_ended=Counter({"timeout": 1, "closed": 4}),
    forwards=33,
    rows=44,
    compute=durations(0.004),
    peers=3,
    link_bytes_sent=101,
    link_bytes_received=102,
    chunk_bytes_sent=103,
    chunk_bytes_received=104,
    dht_contacts=6,
    lookups=durations(0.5),
    lookups_unanswered=1,
    datagrams_sent=105,
    datagrams_received=106,
    datagram_bytes_sent=107,
    datagram_bytes_received=108,
    seen=True,
    store_bytes=109,
    store_max_bytes=110,
)


class Metered:
    """Shows what `now` is set to."""

    def __init__(self, now: Figures = FIGURES) -> None:
        self.now = now

    def figures(self) -> Figures:
        return self.now
