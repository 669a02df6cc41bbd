import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.api.network import Cover
from intelnav.cli.suggestion import (
    LAYER_CACHE,
    MAX_OFFERS,
    OVERHEAD,
    Choice,
    Machine,
    Offer,
    catalog_offers,
    choose,
    served_offers,
    this_machine,
)
from intelnav.domain.slice import LayerRange
from intelnav.store.catalog import Catalog, read_catalog, shipped_catalog
from tests.fakes.network import SERVED

GIB = 2**30
NOTHING = Catalog(())


def listed(**changes: object) -> dict[str, Any]:
    """A model as `/swarm/models` has it."""
    entry: dict[str, Any] = json.loads(json.dumps(asdict(SERVED)))
    return entry | changes


def offer(*hosts: int, name: str = "m", size: int = 1000) -> Offer:
    """A model whose layers take 10 bytes each."""
    changes = {at for at in range(1, len(hosts)) if hosts[at] != hosts[at - 1]}
    borders = frozenset({0, len(hosts), *changes})
    return Offer(name, name, size, hosts, borders, lambda layers: 10 * len(layers))


def chosen(served: list[Offer], known: list[Offer], room: int) -> tuple[str, str] | None:
    choice = choose(served, known, room)
    return None if choice is None else (choice.offer.name, str(choice.layers))


def test_half_of_what_is_free_may_be_taken() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert 0 < machine.room <= machine.free <= machine.memory
    assert Machine(2, 8 * GIB, 3 * GIB).room == 3 * GIB // 2


@pytest.mark.parametrize(
    ("hosts", "room", "layers"),
    [
        ((2, 2, 0, 0, 2, 2), 20, "2..4"),
        ((0, 2, 2, 2, 2, 0), 10, "5..6"),
        ((3, 3, 1, 1, 3, 3), 20, "2..4"),
        ((1, 1, 1, 1, 1, 1), 20, "4..6"),
        ((1, 0, 0, 0, 1, 1), 20, "2..4"),
        ((1, 0, 0, 0, 1, 1), 1000, "0..6"),
    ],
)
def test_the_layers_with_the_fewest_hosts_are_chosen(hosts: tuple[int, ...], room: int, layers: str) -> None:
    assert chosen([offer(*hosts)], [], room) == ("m", layers)


def test_a_gap_comes_before_few_hosts_and_a_swarm_before_the_catalog() -> None:
    gap, thin, new = offer(9, 0, 9, name="gap"), offer(1, 1, 1, name="thin"), offer(0, 0, 0, 0, name="new")
    assert chosen([thin, gap], [new], 30) == ("gap", "0..3")
    assert chosen([thin], [new], 30) == ("thin", "0..3")
    assert chosen([], [new], 30) == ("new", "1..4")


def test_of_the_catalog_the_largest_model_that_fits_whole_is_chosen() -> None:
    small, middle = offer(0, 0, name="small", size=10), offer(0, 0, 0, name="middle", size=30)
    large = offer(*[0] * 9, name="large", size=90)
    assert chosen([], [small, large, middle], 40) == ("middle", "0..3")
    assert chosen([], [small, large, middle], 90) == ("large", "0..9")


def test_where_nothing_fits_nothing_is_chosen() -> None:
    assert chosen([offer(1, 0)], [offer(0, 0)], 9) is None
    assert chosen([], [], GIB) is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 130))
def test_what_is_chosen_fits_and_is_as_good_as_any(hosts: list[int], room: int) -> None:
    choice = choose([offer(*hosts)], [], room)
    count = min(room // 10, len(hosts))
    if count == 0:
        assert choice is None
        return
    assert choice is not None
    assert choice.need <= room
    worths = [1_000_000 // (1 + each) ** 2 for each in hosts]
    best = max(sum(worths[at : at + count]) for at in range(len(hosts) - count + 1))
    assert sum(worths[choice.layers.start : choice.layers.end]) == best
    assert choice.missing == (hosts[choice.layers.start : choice.layers.end].count(0) if any(hosts) else 0)


def test_what_the_swarm_serves_is_sized_by_what_its_hosts_say() -> None:
    (one,) = served_offers([listed()], NOTHING)
    assert (one.ref, one.name, len(one.hosts)) == (SERVED.cid, "big", 28)
    assert one.hosts == (2,) * 7 + (0,) * 7 + (1,) * 14
    assert one.borders == {0, 7, 14, 28}
    assert one.need(LayerRange(0, 3)) == OVERHEAD + 3 * (2 * 10_000_000 + LAYER_CACHE)
    choice = choose([one], [], one.need(LayerRange(0, 7)))
    assert choice == Choice(one, LayerRange(7, 14), one.need(LayerRange(0, 7)))


@pytest.mark.parametrize(
    "changes",
    [
        {"cid": "../../x"},
        {"cid": None},
        {"architecture": "unknown"},
        {"architecture": []},
        {"blocks": 0},
        {"blocks": 2**62},
        {"blocks": True},
        {"size_bytes": 0},
        {"size_bytes": 1e300},
        {"size_bytes": "7"},
        {"cover": [{"layers": "0..29", "hosts": 1}]},
        {"cover": [{"layers": "0..5", "hosts": -1}]},
        {"cover": [{"layers": "0..5", "hosts": float("inf")}]},
        {"cover": [{"layers": 5, "hosts": 1}]},
        {"cover": [7]},
        {"cover": None},
        {"cover": [asdict(Cover("0..28", 0))]},
    ],
)
def test_a_listed_model_that_makes_no_sense_is_left_out(changes: dict[str, Any]) -> None:
    offers = served_offers([listed(**changes), {}, listed()], NOTHING)
    assert [one.ref for one in offers] == [SERVED.cid]


def test_a_list_without_end_is_not_read_to_its_end() -> None:
    assert len(served_offers(itertools.repeat(listed()), NOTHING)) == MAX_OFFERS


def test_a_name_that_peers_chose_becomes_a_plain_one() -> None:
    (one,) = served_offers([listed(name="Evil\n- model: x # [y]")], NOTHING)
    assert one.name == "evil-model-x-y"


def test_the_embedded_model_is_sized_by_its_header() -> None:
    (known,) = catalog_offers(shipped_catalog())
    assert known.ref == "smollm2-135m-instruct-q4_1"
    assert known.borders == {0, 8, 15, 22, 30}
    # A layer has, beside its weights, 3 heads of 64 for keys and for values, in f16, in 8 sessions of 4096 cells.
    cache = 8 * 4096 * 2 * 2 * 3 * 64
    layer = known.need(LayerRange(9, 11)) - known.need(LayerRange(9, 10))
    assert cache < layer < cache + known.size / 30
    assert known.need(LayerRange(0, 30)) < 2 * GIB


def test_a_served_model_of_the_catalog_goes_by_its_name_there() -> None:
    catalog = shipped_catalog()
    entry = catalog.named("smollm2-135m-instruct-q4_1")
    assert entry is not None
    model = listed(
        cid=entry.cid, architecture="llama", blocks=30, cover=[{"layers": "0..8", "hosts": 1}], name="other"
    )
    (one,) = served_offers([model], catalog)
    (known,) = catalog_offers(catalog)
    assert (one.ref, one.name) == (entry.name, entry.name)
    assert one.need(LayerRange(8, 15)) == known.need(LayerRange(8, 15))
    assert one.hosts == (1,) * 8 + (0,) * 22


def test_a_catalog_entry_without_a_size_is_not_suggested(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        "{name: m, title: M, architecture: llama, blocks: 4, quantisation: F16, origin: 'https://e.org/m.gguf',"
        " license: MIT, cuts: [2]}"
    )
    entry = read_catalog(tmp_path).entries[0]
    assert catalog_offers(Catalog((entry,))) == []
    (sized,) = catalog_offers(Catalog((replace(entry, size=4_000),)))
    assert (sized.ref, sized.size, sized.hosts) == ("m", 4_000, (0, 0, 0, 0))
    assert sized.need(LayerRange(0, 1)) == OVERHEAD + 2_000 + LAYER_CACHE
