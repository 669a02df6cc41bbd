from itertools import pairwise
from pathlib import Path

import pytest

from intelnav.domain.slice import LayerRange
from intelnav.store.cut import cut
from intelnav.store.embedded import embedded_model

CID = "b3-" + "a" * 52
CUTS = (0, 8, 15, 22, 30)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A real model, whose numbers are known not to depend on the batch."""
    return embedded_model()


@pytest.fixture(scope="session")
def slices(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """That model in four slices."""
    folder = tmp_path_factory.mktemp("slices")
    paths = [folder / f"{start}-{end}.gguf" for start, end in pairwise(CUTS)]
    for path, (start, end) in zip(paths, pairwise(CUTS), strict=True):
        cut(smollm2, LayerRange(start, end), path, CID)
    return paths
