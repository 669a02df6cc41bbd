"""`python -m tests.bench [NAME ...]`: run all benchmarks, or those that are named."""

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import agreement, converge, crowd, fetch, hops, memory, sizes, speed, wire
from tests.bench.results import FILE, merge

BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "speed": speed.measure,
    "sizes": sizes.measure,
    "hops": hops.measure,
    "wire": wire.measure,
    "memory": memory.measure,
    "agreement": agreement.measure,
    "crowd": crowd.measure,
    "fetch": fetch.measure,
    "converge": converge.measure,
}
# A chain hands over between processes at every token, so it loses more to busy cores than one process does.
BUSY = 0.5


def main() -> None:
    """Each part is written when it is done, so that what was measured survives an interruption."""
    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"Other programs use this machine (load {load:.1f}): ratios below suffer from it.")
    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load": load,
    }
    merge("machine", machine)
    for name in names:
        merge(name, BENCHMARKS[name]())
    print(f"Written to {FILE}.")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
