"""Eight clients at once against one: what continuous batching gives."""

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from tests.bench.results import show
from tests.bench.speed import STORY, WARM_UP, System, asked, chain

CLIENTS = 8
COUNT = 64
ROUNDS = 3


def measure() -> dict[str, Any]:
    """Tokens per second of all clients together, prompts included; medians of paired runs."""
    with chain() as running:
        run = asked(running)
        pairs = [(_rate(run, 1), _rate(run, CLIENTS)) for _ in range(ROUNDS)]
    one, all_of_them = (median(column) for column in zip(*pairs, strict=True))
    gain = median(b / a for a, b in pairs)
    show(
        f"Clients at once ({COUNT} tokens each)",
        ["clients", "tok/s, all together", "÷ one"],
        [["1", one, 1.0], [str(CLIENTS), all_of_them, gain]],
    )
    return {"clients": CLIENTS, "tokens": COUNT, "one": one, "all": all_of_them, "gain": gain}


def _rate(run: System, clients: int) -> float:
    run(STORY, WARM_UP)
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        runs = list(pool.map(lambda number: run(f"{STORY} {number}", COUNT), range(clients)))
    return sum(len(each.tokens) for each in runs) / (time.perf_counter() - start)
