import re
import sys
from collections.abc import AsyncIterator
from dataclasses import fields, replace

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text
from starlette.applications import Starlette

from intelnav.api.metrics import Figures, metric_routes
from tests.fakes.metered import FIGURES, Metered

pytestmark = pytest.mark.anyio

OPEN_METRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture
def node() -> Metered:
    return Metered()


@pytest.fixture
async def client(node: Metered) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=metric_routes(node)))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        yield client


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of the node's own by name and labels."""
    return {
        (sample.name.removeprefix("intelnav_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in plain_text(text)
        for sample in family.samples
        if sample.name.startswith("intelnav_")
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, tuple(sorted(labels.items()))]


async def test_every_figure_is_shown(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    text = answer.text
    shown = {
        "uptime_seconds": 12.5,
        "store_bytes": 109,
        "store_max_bytes": 110,
        "answers_open": 1,
        "answers_total": 5,
        "tokens_total": 64,
        "sessions_open": 2,
        "sessions_total": 9,
        "forwards_total": 33,
        "rows_total": 44,
        "peers": 3,
        "link_sent_bytes_total": 101,
        "link_received_bytes_total": 102,
        "chunk_sent_bytes_total": 103,
        "chunk_received_bytes_total": 104,
        "dht_contacts": 6,
        "dht_lookup_failures_total": 1,
        "dht_sent_datagrams_total": 105,
        "dht_received_datagrams_total": 106,
        "dht_sent_bytes_total": 107,
        "dht_received_bytes_total": 108,
        "address_confirmed": 1,
        "prefill_seconds_count": 2,
        "prefill_seconds_sum": 0.5,
        "decode_seconds_count": 3,
        "compute_seconds_count": 1,
        "dht_lookup_seconds_count": 1,
    }
    assert {name: value(text, name) for name in shown} == shown
    assert value(text, "answer_failures_total", code="busy") == 2
    assert value(text, "sessions_ended_total", code="closed") == 4
    (build,) = [labels for name, labels in samples(text) if name == "build_info"]
    assert {name for name, _ in build} == {"version", "python", "role", "peer"}
    # Each is looked at above, or below.
    assert len(fields(Figures)) == 32


async def test_slices_are_counted_by_state_and_shown_one_by_one(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics")).text
    for kind, state, count in (
        ("hosted", "ready", 1),
        ("hosted", "failed", 1),
        ("hosted", "pending", 0),
        ("entry", "ready", 1),
        ("entry", "failed", 0),
    ):
        assert value(text, "slices", kind=kind, state=state) == count
    ready = {"kind": "hosted", "model": 'a "model"\n', "layers": "8..15"}
    failed = {"kind": "hosted", "model": "other", "layers": "0..4"}
    assert (value(text, "slice_queue", **ready), value(text, "slice_sequences", **ready)) == (3, 2)
    assert (value(text, "slice_failures", **failed), value(text, "slice_failures", **ready)) == (7, 0)
    assert ("slice_queue", tuple(sorted(failed.items()))) not in samples(text)


async def test_a_histogram_counts_up_to_each_bound(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics")).text
    for bound, count in (("0.005", 0), ("0.01", 1), ("0.025", 2), ("60.0", 2), ("+Inf", 3)):
        assert value(text, "decode_seconds_bucket", le=bound) == count
    assert value(text, "decode_seconds_sum") == pytest.approx(90.03)


async def test_names_and_types_are_as_prometheus_wants_them(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics", headers=OPEN_METRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = [each for each in open_metrics(answer.text) if each.name.startswith("intelnav_")]  # type: ignore[no-untyped-call]
    assert len(families) > 30
    for family in families:
        assert family.documentation
        assert re.fullmatch(r"intelnav_[a-z]+(_[a-z]+)*", family.name)
        assert family.type in ("gauge", "counter", "histogram")
        assert family.type != "histogram" or family.name.endswith("_seconds")
        assert all(sample.name.endswith("_total") for sample in family.samples) or family.type != "counter"


async def test_what_is_read_is_as_of_now(client: httpx.AsyncClient, node: Metered) -> None:
    assert value((await client.get("/metrics")).text, "tokens_total") == 64
    node.now = replace(FIGURES, tokens=65, seen=False, store_max_bytes=None)
    text = (await client.get("/metrics")).text
    assert (value(text, "tokens_total"), value(text, "address_confirmed")) == (65, 0)
    assert ("store_max_bytes", ()) not in samples(text)


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
async def test_the_process_is_shown_as_well(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics")).text
    (resident,) = [
        sample.value
        for family in plain_text(text)
        for sample in family.samples
        if sample.name == "process_resident_memory_bytes"
    ]
    assert resident > 10_000_000
