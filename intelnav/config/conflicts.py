"""Keys of a config that are fine alone and wrong together."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from intelnav.domain.model_ref import ModelRef

if TYPE_CHECKING:
    from intelnav.config.schema import NodeConfig

MAX_PORT = 65535


class Conflict(ValueError):
    """Keys that are fine alone and wrong together. Each argument is one sentence: `KEY = VALUE: why; fix`."""


def conflicts_of(config: "NodeConfig") -> Iterator[str]:
    """Sentences about keys that are fine alone and wrong together."""
    if config.auto is not None and config.role == "relay":
        yield "role = 'relay': a relay hosts no slices; remove slices: auto, or write role: host"
    if config.auto is not None and config.network.listen is None:
        yield "network.listen = none: peers cannot reach the slices; write HOST:PORT, or remove slices: auto"
    if config.slices and config.role == "relay":
        yield "role = 'relay': a relay hosts no slices; remove slices, or write role: host"
    if config.slices and config.network.listen is None:
        yield "network.listen = none: peers cannot reach the slices; write HOST:PORT, or remove slices"
    if (listen := config.network.listen) is not None and listen.port and listen == config.api.listen:
        yield f"api.listen = {listen}: network.listen has that address already; write another port"
    yield from _chunk_conflicts(config)
    if config.limits.rows > config.limits.context:
        yield f"limits.rows = {config.limits.rows}: must not exceed limits.context, {config.limits.context}"
    for (i, one), (j, other) in combinations(enumerate(config.slices), 2):
        common = max(one.layers.start, other.layers.start) < min(one.layers.end, other.layers.end)
        if common and _same(one.model, other.model):
            yield (
                f"slices[{j}].layers = {other.layers}: overlaps slices[{i}], {one.layers}, of that model;"
                " write ranges that share no layer"
            )
    for (i, first), (j, second) in combinations(enumerate(config.entry), 2):
        if first.name == second.name:
            yield f"entry[{j}].name = {second.name!r}: entry[{i}] has that name already; write another"
    for (i, left), (j, right) in combinations(enumerate(config.network.peers), 2):
        if left.id == right.id:
            yield f"network.peers[{j}].id = {right.id}: is network.peers[{i}] already; join the two"
    for (i, this), (j, that) in combinations(enumerate(config.network.seeds), 2):
        if this == that:
            yield f"network.seeds[{j}].url = {that.url!r}: is network.seeds[{i}] already; remove one"


def _chunk_conflicts(config: "NodeConfig") -> Iterator[str]:
    """Sentences about `store.chunks` beside the other addresses."""
    written, chunks = config.store.chunks, config.chunks
    if chunks is None:
        return
    if chunks.port > MAX_PORT:
        yield f"store.chunks = {written}: there is no port above network.listen's; write HOST:PORT, or none"
    for key, address in (("network.listen", config.network.listen), ("api.listen", config.api.listen)):
        if chunks.port and chunks == address:
            yield f"store.chunks = {written}: {chunks} is {key} already; write another port"


def _same(one: ModelRef, other: ModelRef) -> bool:
    """Whether two references name one model, as far as the config can tell: links to one file do."""
    if one.kind == other.kind == "path":
        return Path(one.value).resolve() == Path(other.value).resolve()
    return one == other
