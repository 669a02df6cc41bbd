"""How much of a model this machine could host: an estimate, on the safe side where it can be told."""

from intelnav import machine
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import footprint
from intelnav.engine.interface import SliceSpec
from intelnav.store.model_file import ModelFile

# Bytes left to the node itself and to the rest of the machine; and to the node, of what is allowed to it alone.
RESERVE = 512 * 2**20
OWN_RESERVE = 128 * 2**20


def machine_memory() -> int:
    """Bytes of main memory that all slices of this node may take together."""
    memory = machine.memory()
    return max(0, min(memory.machine - RESERVE, memory.total - OWN_RESERVE))


def hostable_layers(model: ModelFile, room: SliceSpec, memory: int) -> int:
    """How many consecutive layers of a whole model fit in `memory` bytes, loaded as `room` says.

    Raises ContentError if the header does not tell how much they take.
    """
    low, high = 0, model.blocks
    while low < high:
        tried = (low + high + 1) // 2
        if footprint(model, room, _somewhere(tried, model.blocks)).total <= memory:
            low = tried
        else:
            high = tried - 1
    return low


def hostable_by_size(size: int, blocks: int, memory: int) -> int:
    """The same of a model of which only its size in bytes is known; caches are not counted."""
    return min(blocks, memory * blocks // max(size, 1))


def _somewhere(count: int, blocks: int) -> LayerRange:
    """So many layers, in the middle if they are not nearly all: the ends take more."""
    start = 1 if count < blocks - 1 else 0
    return LayerRange(start, start + count)
