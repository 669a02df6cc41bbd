"""Memory of a node with one middle slice, beyond the slice and its cache."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from intelnav.config import load
from intelnav.domain.slice import LayerRange
from intelnav.store.embedded import embedded_model
from intelnav.store.footprint import cache_bytes
from intelnav.store.model_file import describe
from tests.bench.results import show
from tests.bench.speed import STORY, asked, chain

MIDDLE = 1
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (\d+) *(.*)")


def measure() -> dict[str, Any]:
    """Resident pages of node and worker after an answer; file pages that both map count once, others all."""
    with chain() as running:
        asked(running)(STORY, 64)
        node = running.swarm.members[MIDDLE]
        limits = load(node.config, {}).limits
        pids = [node.pid, *(worker.pid for worker in running.workers(node))]
        files, own = _resident(pids)
        weights = sum(size for path, size in files.items() if path.endswith(".gguf"))
    cache = cache_bytes(
        describe(embedded_model()), LayerRange.parse(node.layers), limits.context, limits.sessions
    )
    total = sum(files.values()) + own
    figures = {
        "total": total,
        "slice": weights,
        "cache": cache,
        "libraries": sum(files.values()) - weights,
        "beyond": total - weights - cache,
    }
    show(
        f"Memory of a node with layers {node.layers}: {len(pids)} processes",
        ["", "MB"],
        [[name, size / 1e6] for name, size in figures.items()],
    )
    return {name: round(size) for name, size in figures.items()}


def _resident(pids: list[int]) -> tuple[dict[str, int], int]:
    """Resident bytes of each mapped file, the larger share where several processes map it, and of all else."""
    files: dict[str, int] = {}
    own = 0
    for pid in pids:
        mapped: dict[str, int] = defaultdict(int)
        path = ""
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if found := _MAPPING.fullmatch(line):
                path = found[2] if found[1] != "0" else ""
            elif line.startswith("Rss:"):
                mapped[path] += 1024 * int(line.split()[1])
        own += mapped.pop("", 0)
        for name, size in mapped.items():
            files[name] = max(files.get(name, 0), size)
    return files, own
