import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.api.network import MAX_ROUTES, Cover, SwarmModel, cover
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import Code, EngineError, PeerError
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange
from tests.api.conftest import Serving
from tests.fakes.completer import CountingCompleter
from tests.fakes.network import NEIGHBOURS, ROUTED, SERVED, WHOLE

PATHS = ("/peers", "/route/counting", "/swarm/models")


def plain(value: object) -> object:
    return json.loads(json.dumps(value))


@pytest.mark.anyio
async def test_what_is_known_is_told_on_both_sockets(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        for client in (node.local, node.remote):
            assert (await client.get("/peers")).json() == plain(asdict(NEIGHBOURS))
            assert (await client.get("/route/counting")).json() == ROUTED
            models = [plain(asdict(model)) for model in (SERVED, WHOLE)]
            assert (await client.get("/swarm/models")).json() == {"models": models}


@pytest.mark.anyio
async def test_as_many_chains_as_are_asked_for(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        for query in ("", "?count=1", f"?count={MAX_ROUTES}"):
            assert (await node.local.get(f"/route/counting{query}")).status_code == 200
    assert node.network.asked == [("counting", 1), ("counting", 1), ("counting", MAX_ROUTES)]


@pytest.mark.anyio
@pytest.mark.parametrize("count", ["0", "17", "-1", "1.5", "", "two", "²", "9" * 5000])
async def test_a_count_that_is_none_is_refused(serving: Serving, count: str) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.local.get("/route/counting", params={"count": count})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
    assert answer.json()["error"]["param"] == "count"
    assert node.network.asked == []


@pytest.mark.anyio
async def test_a_parameter_that_nobody_knows_is_refused(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.local.get("/route/counting?cuont=2")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cuont")
    assert node.network.asked == []


@pytest.mark.anyio
@pytest.mark.parametrize("model", ["other", "owner/other", "%2e%2e%2fx", "x" * 5000, ""])
async def test_a_model_that_is_not_answered_for_is_not_found(serving: Serving, model: str) -> None:
    async with serving(CountingCompleter()) as node:
        answer = await node.local.get(f"/route/{model}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "served: counting" in answer.text
    assert len(answer.text) < 400


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (EngineError("layers 0..8 are being loaded"), 502, "engine_failed"),
        (PeerError(Code.BUSY, "16 look-ups run already"), 503, "busy"),
        (PeerError(Code.TIMEOUT, "nobody answered"), 502, "timeout"),
    ],
)
async def test_what_fails_is_told(serving: Serving, error: Exception, status: int, code: str) -> None:
    async with serving(CountingCompleter()) as node:
        node.network.fail = error
        for path in PATHS:
            answer = await node.local.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert answer.json()["error"]["message"] == str(error)


@pytest.mark.anyio
async def test_nothing_is_changed_here(serving: Serving) -> None:
    async with serving(CountingCompleter()) as node:
        for path in PATHS:
            assert (await node.local.post(path)).status_code == 405


BLOCKS = 12
RANGES = st.tuples(st.integers(0, BLOCKS + 2), st.integers(1, 6)).map(
    lambda pair: LayerRange(pair[0], sum(pair))
)
ADVERTS = st.lists(st.tuples(st.integers(0, 3), st.lists(RANGES, max_size=4)), max_size=6)


def advert(number: int, slices: list[LayerRange]) -> Advert:
    return Advert(PeerId(bytes([number] * 32)), (Address("192.0.2.7", 7717),), "b3-x", tuple(slices))


@given(ADVERTS)
def test_each_layer_counts_the_peers_that_have_it(offers: list[tuple[int, list[LayerRange]]]) -> None:
    covers = cover([advert(*offer) for offer in offers], BLOCKS)
    layers = [LayerRange.parse(each.layers) for each in covers]
    assert [each.start for each in layers] == [0, *(each.end for each in layers[:-1])]
    assert layers[-1].end == BLOCKS
    for each, found in zip(layers, covers, strict=True):
        for layer in range(each.start, each.end):
            one = LayerRange(layer, layer + 1)
            having = {peer for peer, slices in offers if any(held.covers(one) for held in slices)}
            assert found.hosts == len(having)


def test_a_model_of_absurd_size_costs_nothing() -> None:
    most = 2**62
    assert cover([advert(1, [LayerRange(2, 5)])], most) == [
        Cover("0..2", 0),
        Cover("2..5", 1),
        Cover(f"5..{most}", 0),
    ]


def test_layers_without_a_host_are_named() -> None:
    offers = [advert(1, [LayerRange(0, 2), LayerRange(4, 6)]), advert(2, [LayerRange(1, 2)]), advert(3, [])]
    model = SwarmModel.served(
        offers, name="m", cid="b3-x", architecture="llama", blocks=6, size_bytes=7, quantisation="F32"
    )
    assert (model.hosts, model.missing) == (2, ("2..4",))
    assert model.cover == (Cover("0..1", 1), Cover("1..2", 2), Cover("2..4", 0), Cover("4..6", 1))
