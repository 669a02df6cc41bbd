"""Whether a slice can be hosted beside what the config says, before anything is done for it."""

from collections.abc import Sequence
from pathlib import Path

from anyio import to_thread
from pydantic import ValidationError

from intelnav.api.control import Conflict
from intelnav.config import NodeConfig, SliceConfig
from intelnav.config.problems import sentences
from intelnav.controller.shelf import Shelf
from intelnav.domain.errors import ConfigError
from intelnav.domain.slice import LayerRange
from intelnav.wanted import check_layers


async def joinable(
    model: str,
    layers: LayerRange,
    folder: Path | None,
    config: NodeConfig,
    hosted: Sequence[SliceConfig],
    shelf: Shelf,
) -> SliceConfig:
    """The slice as the config would name it. Relative paths start at `folder`, else where the node was started.

    Raises ConfigError if there is no such model or it has no such layers, Conflict for what the config could not have
    beside the slices that are `hosted`. A model that is not here yet is believed to have the layers.
    """
    try:
        slice = SliceConfig.model_validate(
            {"model": model, "layers": layers}, context={"folder": folder or Path.cwd()}
        )
    except ValidationError as error:
        raise ConfigError("; ".join(str(detail["ctx"]["error"]) for detail in error.errors())) from None
    await check_layers("join", slice.model, layers)
    blocks = await to_thread.run_sync(shelf.blocks_of, slice.model)
    if blocks is not None and layers.end > blocks:
        raise ConfigError(f"{model} has layers 0..{blocks}; choose a range within them")
    fields = {key: getattr(config, key) for key in NodeConfig.model_fields}
    try:
        NodeConfig.model_validate(fields | {"slices": (*hosted, slice), "auto": None})
    except ValidationError as error:
        raise Conflict("; ".join(sentences(error, {}))) from None
    return slice
