"""What the layers of a model take of the memory, before anything of it is here but its description."""

from intelnav.controller.auto import Candidate
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import Footprint, footprint
from intelnav.engine.interface import SliceSpec
from intelnav.store.model_file import ModelFile


def candidate(ref: ModelRef, cid: str, model: ModelFile, room: SliceSpec) -> Candidate:
    """A model that `slices: auto` may pick from, loaded as `room` says. Raises ContentError as `footprint` does."""
    each = [_of(model, room, block) for block in range(model.blocks)]
    layers = [one.weights + one.cache for one in each]
    # The ends also take the embedding, or the head.
    layer = max(layers[1:-1] or layers)
    return Candidate(
        ref,
        cid,
        model.blocks,
        layer,
        fixed=max(one.compute for one in each),
        first=max(0, layers[0] - layer),
        last=max(0, layers[-1] - layer),
    )


def _of(model: ModelFile, room: SliceSpec, block: int) -> Footprint:
    return footprint(model, room, LayerRange(block, block + 1))
