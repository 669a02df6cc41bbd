"""The simulation at a size that takes seconds: what must hold at any size, and that a seed says all."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from tests.sim.__main__ import show_all
from tests.sim.clock import virtual_time
from tests.sim.network import Network
from tests.sim.plot import draw
from tests.sim.scenario import Plan, simulate

DEAD = 0.3


@pytest.fixture(scope="module")
def cell() -> dict[str, Any]:
    """Two hundred nodes of which three in ten die."""
    return simulate(Plan(200, dead=(DEAD,), lookups=40, later=20, idle=5))[0]


def test_lookups_find_the_living_hosts_though_contacts_died(cell: dict[str, Any]) -> None:
    for found in (cell["lookups_at_once"], cell["lookups_after_announcing"]):
        assert found["count"] > 0
        assert found["success"] == 1
        assert found["every_living_host"] == 1
        assert found["stale"] == 0


def test_a_lookup_stays_within_its_bounds(cell: dict[str, Any]) -> None:
    for found in (cell["lookups_at_once"], cell["lookups_after_announcing"]):
        # A request and its answer; 60 requests and 5 s are the limits of a lookup. On average it is to take 40.
        assert found["datagrams_without_further_pages"] <= found["datagrams"] <= 40
        assert found["datagrams"] <= found["datagrams_p99"] <= 120
        assert found["milliseconds_p50"] <= found["milliseconds_p99"] <= 5000
        # No datagram has more than 1,200 bytes, and half of them are requests of at least 600.
        assert 300 * found["datagrams"] < found["bytes"] <= 1200 * found["datagrams"]


def test_the_dead_are_told_from_the_living(cell: dict[str, Any]) -> None:
    before, after = cell["announcement_before"], cell["announcement_after"]
    assert before["count"] == 15
    assert 0 < after["count"] < before["count"]
    assert cell["lookups_at_once"]["of_the_dead"] > 0


def test_a_seed_gives_the_same_figures_each_time() -> None:
    plan = Plan(50, dead=(DEAD,), lookups=10, later=5, idle=2)
    assert simulate(plan) == simulate(plan)
    assert simulate(plan) != simulate(Plan(50, dead=(DEAD,), lookups=10, later=5, idle=2, seed=2))


def test_figures_make_a_table_and_a_plot(
    cell: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A narrow terminal wraps the figures.
    monkeypatch.setenv("COLUMNS", "300")
    show_all([cell])
    shown = capsys.readouterr().out
    assert "200, 30%" in shown
    assert f"{100 * cell['lookups_at_once']['success']:.2f}" in shown
    larger = {**cell, "nodes": 2000}
    root = ET.fromstring(draw([cell, larger]))
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [2] * 6


def test_round_trips_are_as_stated() -> None:
    with virtual_time(1) as loop:
        network = Network(loop, 1)
        delays = sorted(2000 * network.delay(number, number + 1) for number in range(4000))
    assert 74 < delays[2000] < 92
    assert 220 < delays[3960] < 330
