"""`python -m tests.sim [--lookups N] [NODES ...]`: the DHT with so many nodes, by default 1,000 and 10,000."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.results import merge, show
from tests.sim.network import LOSS, ROUND_TRIP_MEDIAN, ROUND_TRIP_SIGMA
from tests.sim.plot import draw
from tests.sim.scenario import LOOKUPS, Figures, Plan, in_processes, simulate

FILE = Path("build/sim.json")
PLOT = Path("build/sim.svg")
SIZES = (1000, 10_000)

MODEL = (
    f"Real: the nodes' own code from lookup to contact table, datagrams as encoded, every signature. Simulated: clock "
    f"and network; round trips lognormal, median {1000 * ROUND_TRIP_MEDIAN:.0f} ms, sigma {ROUND_TRIP_SIGMA}; "
    f"{LOSS:.0%} of the datagrams lost; every other node behind a NAT."
)


def main() -> None:
    """The largest swarm has a process to itself, the others share one: together about as long."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=MODEL)
    parser.add_argument(
        "nodes", type=int, nargs="*", default=SIZES, help="how many nodes, in each simulation"
    )
    parser.add_argument("--lookups", type=int, default=LOOKUPS, help="how many right after the deaths")
    given = parser.parse_args()
    *others, largest = [Plan(size, lookups=given.lookups) for size in sorted(given.nodes)]
    print(MODEL)
    cores = max(1, min(2, os.cpu_count() or 1))
    parts: list[list[Figures]] = in_processes(
        [
            lambda: [cell for plan in others for cell in simulate(plan)],
            lambda: simulate(largest, at_once=cores),
        ],
        cores,
    )
    cells = [cell for part in parts for cell in part]
    seconds = time.perf_counter() - began
    show_all(cells)
    merge("cells", {f"{cell['nodes']} nodes, {cell['dead']:.0%} dead": cell for cell in cells}, FILE)
    merge("seconds", {"all": seconds}, FILE)
    PLOT.write_text(draw(cells))
    print(f"Written to {FILE} and {PLOT}, in {seconds:.0f} s.")


def show_all(cells: Sequence[Figures]) -> None:
    """Print the tables."""
    for name, when in (
        ("lookups_at_once", "right after the deaths"),
        ("lookups_after_announcing", "after the living announced again"),
    ):
        show(
            f"What lookups found, {when}",
            ["nodes, dead", "success %", "all hosts %", "records", "stale %", "of the dead %"],
            [_found(cell, cell[name]) for cell in cells],
        )
        show(
            f"What a lookup cost, {when}",
            ["nodes, dead", "rounds", "datagrams", "p99", "without pages", "kB", "p50 ms", "p99 ms"],
            [_cost(cell, cell[name]) for cell in cells],
        )
    show(
        "Traffic of one node: an announcement, every 5 min for each model, before and after; upkeep per second",
        ["nodes, dead", "datagrams", "kB", "after", "kB", "upkeep", "bytes"],
        [_announced(cell) for cell in cells],
    )


def _found(cell: Figures, found: Figures) -> list[Any]:
    return [
        _label(cell),
        f"{100 * found['success']:.2f}",
        f"{100 * found['every_living_host']:.1f}",
        found["records"],
        100 * found["stale"],
        100 * found["of_the_dead"],
    ]


def _cost(cell: Figures, found: Figures) -> list[Any]:
    return [
        _label(cell),
        found["rounds"],
        found["datagrams"],
        found["datagrams_p99"],
        found["datagrams_without_further_pages"],
        found["bytes"] / 1000,
        found["milliseconds_p50"],
        found["milliseconds_p99"],
    ]


def _announced(cell: Figures) -> list[Any]:
    row: list[Any] = [_label(cell)]
    for name in ("announcement_before", "announcement_after"):
        row += [cell[name]["datagrams"], cell[name]["bytes"] / 1000]
    return [*row, cell["upkeep_per_second"]["datagrams"], cell["upkeep_per_second"]["bytes"]]


def _label(cell: Figures) -> str:
    return f"{cell['nodes']:,}, {cell['dead']:.0%}"


if __name__ == "__main__":
    main()
