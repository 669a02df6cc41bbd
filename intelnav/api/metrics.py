"""`/metrics`: the node's figures in the text format of Prometheus. They are read when they are asked for."""

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from intelnav import __version__
from intelnav.domain.durations import BOUNDS, Durations

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """A slice of this node; `kind` is "hosted" or "entry". `failures` are in a row.

    `in_use` are its open sequences, `waiting` the calls that its worker has not answered; both None without a worker.
    """

    kind: str
    model: str
    layers: str
    state: str
    failures: int
    in_use: int | None
    waiting: int | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What is so now, and what was counted since the start. `states` are all that a slice can be in.

    `answers` and `sessions` are open now, the former this node's own. `answer_failures` and `sessions_ended` are by the
    code of the error. `seen` says whether others told this node its address.
    """

    role: str
    peer: str
    uptime_seconds: float
    states: tuple[str, ...]
    slices: tuple[SliceFigures, ...]
    answers: int
    answers_begun: int
    answer_failures: Mapping[str, int]
    tokens: int
    prefill: Durations
    decode: Durations
    sessions: int
    sessions_opened: int
    sessions_ended: Mapping[str, int]
    forwards: int
    rows: int
    compute: Durations
    peers: int
    link_bytes_sent: int
    link_bytes_received: int
    chunk_bytes_sent: int
    chunk_bytes_received: int
    dht_contacts: int
    lookups: Durations
    lookups_unanswered: int
    datagrams_sent: int
    datagrams_received: int
    datagram_bytes_sent: int
    datagram_bytes_received: int
    seen: bool
    store_bytes: int
    store_max_bytes: int | None


class Metered(Protocol):
    """A node that is watched."""

    def figures(self) -> Figures:
        """All figures as of now. Called in the event loop, and takes a few milliseconds at most."""
        ...


def metric_routes(node: Metered) -> list[Route]:
    """`/metrics`."""
    registry: CollectorRegistry | None = None

    async def metrics(request: Request) -> Response:
        # Imported here: it takes a twelfth of a second, and most nodes are never scraped.
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import choose_encoder

        nonlocal registry
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
            registry.register(_Node(node))
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": kind})

    return [Route("/metrics", metrics)]


class _Node:
    """A collector of prometheus_client."""

    def __init__(self, node: Metered) -> None:
        self._node = node

    def describe(self) -> list["Metric"]:
        """None beforehand: nothing else is in the registry that could have the same name."""
        return []

    def collect(self) -> Iterator["Metric"]:
        """Every metric with its value as of now."""
        now = self._node.figures()
        yield from _of_node(now)
        yield from _of_slices(now)
        yield from _of_chains(now)
        yield from _of_network(now)


def _of_node(now: Figures) -> Iterator["Metric"]:
    build = {"version": __version__, "python": platform.python_version(), "role": now.role, "peer": now.peer}
    yield _gauge("build_info", "1; the labels say what runs.", (build, 1))
    yield _gauge("uptime_seconds", "How long the node has run.", ({}, now.uptime_seconds))
    yield _gauge("store_bytes", "Disk that the store takes.", ({}, now.store_bytes))
    if now.store_max_bytes is not None:
        yield _gauge("store_max_bytes", "Disk that the store may take.", ({}, now.store_max_bytes))


def _of_slices(now: Figures) -> Iterator["Metric"]:
    counts = {(kind, state): 0 for kind in ("hosted", "entry") for state in now.states}
    for part in now.slices:
        counts[part.kind, part.state] = counts.get((part.kind, part.state), 0) + 1
    states = [({"kind": kind, "state": state}, count) for (kind, state), count in counts.items()]
    yield _gauge("slices", "Slices by what they are for and where they stand.", *states)
    labelled = [
        ({"kind": each.kind, "model": each.model, "layers": each.layers}, each) for each in now.slices
    ]
    yield _gauge(
        "slice_failures",
        "Failures in a row, without a healthy while between them.",
        *((labels, part.failures) for labels, part in labelled),
    )
    for name, text, key in (
        ("slice_sequences", "Open sequences: sessions of others and answers of this node.", "in_use"),
        ("slice_queue", "Calls that the slice's worker has not answered yet.", "waiting"),
        ("slice_memory_bytes", "Memory that the slice is estimated to take.", "memory_bytes"),
    ):
        found = [(labels, getattr(part, key)) for labels, part in labelled]
        yield _gauge(name, text, *((labels, value) for labels, value in found if value is not None))


def _of_chains(now: Figures) -> Iterator["Metric"]:
    yield _gauge("answers_open", "Answers of this node under way over a ring of peers.", ({}, now.answers))
    yield _counter("answers", "Answers that were asked for here.", ({}, now.answers_begun))
    yield _counter("answer_failures", "Answers that an error ended.", *_by_code(now.answer_failures))
    yield _counter("tokens", "Tokens of answers of this node.", ({}, now.tokens))
    yield _histogram("prefill_seconds", "From the open chain to the first token.", now.prefill)
    yield _histogram("decode_seconds", "From one token of an answer to the next.", now.decode)
    yield _gauge("sessions_open", "Sessions that this node serves for others.", ({}, now.sessions))
    yield _counter("sessions", "Sessions that were opened here for others.", ({}, now.sessions_opened))
    yield _counter(
        "sessions_ended", "Sessions that an error ended or refused.", *_by_code(now.sessions_ended)
    )
    yield _counter("forwards", "Forwards that were computed for others.", ({}, now.forwards))
    yield _counter("rows", "Rows of forwards for others: one for each token.", ({}, now.rows))
    yield _histogram("compute_seconds", "How long a forward for others was kept here.", now.compute)


def _of_network(now: Figures) -> Iterator["Metric"]:
    yield _gauge("peers", "Peers with an open link.", ({}, now.peers))
    yield _counter("link_sent_bytes", "Sent over links, handshakes included.", ({}, now.link_bytes_sent))
    yield _counter("link_received_bytes", "Received over links.", ({}, now.link_bytes_received))
    yield _counter("chunk_sent_bytes", "Bytes of models given out.", ({}, now.chunk_bytes_sent))
    yield _counter("chunk_received_bytes", "Bytes of slices fetched.", ({}, now.chunk_bytes_received))
    yield _gauge("dht_contacts", "Nodes of the DHT in the table.", ({}, now.dht_contacts))
    yield _histogram("dht_lookup_seconds", "Walks through the DHT.", now.lookups)
    yield _counter("dht_lookup_failures", "Walks that no node answered.", ({}, now.lookups_unanswered))
    yield _counter("dht_sent_datagrams", "Datagrams sent.", ({}, now.datagrams_sent))
    yield _counter("dht_received_datagrams", "Datagrams received.", ({}, now.datagrams_received))
    yield _counter("dht_sent_bytes", "Bytes of datagrams sent.", ({}, now.datagram_bytes_sent))
    yield _counter("dht_received_bytes", "Bytes of datagrams received.", ({}, now.datagram_bytes_received))
    yield _gauge("address_confirmed", "1 if others agree on this node's address.", ({}, int(now.seen)))


def _by_code(counts: Mapping[str, int]) -> list[tuple[dict[str, str], int]]:
    return [({"code": str(code)}, count) for code, count in sorted(counts.items())]


def _gauge(name: str, text: str, *values: tuple[dict[str, str], float]) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    metric = GaugeMetricFamily(f"intelnav_{name}", text)
    for labels, value in values:
        metric.add_sample(metric.name, labels, value)
    return metric


def _counter(name: str, text: str, *values: tuple[dict[str, str], float]) -> "Metric":
    """A counter, whose samples end in `_total`."""
    from prometheus_client.core import CounterMetricFamily

    metric = CounterMetricFamily(f"intelnav_{name}", text)
    for labels, value in values:
        metric.add_sample(f"{metric.name}_total", labels, value)
    return metric


def _histogram(name: str, text: str, durations: Durations) -> "Metric":
    from prometheus_client.core import HistogramMetricFamily

    ends = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(ends, accumulate(durations.counts), strict=True))
    return HistogramMetricFamily(f"intelnav_{name}", text, buckets=buckets, sum_value=durations.total)
