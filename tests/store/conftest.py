from collections.abc import Iterator
from pathlib import Path

import pytest

from intelnav.store.blobs import Store
from intelnav.store.embedded import embedded_model
from tests.models import tiny_model
from tests.store.holdings import Donor, donor_of


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untied llama of six blocks, with a tensor that belongs to no block."""
    return tiny_model(tmp_path_factory.mktemp("tiny") / "llama.gguf", rope_freqs=True)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real model that comes with the installation."""
    return embedded_model()


@pytest.fixture
def donor(tiny: Path, tmp_path: Path) -> Iterator[Donor]:
    """A store that has all of the tiny model in a file of the user."""
    with donor_of(tiny, tmp_path / "donor") as donor:
        yield donor


@pytest.fixture
def real(smollm2: Path, tmp_path: Path) -> Iterator[Donor]:
    """A store that has all of SmolLM2, whose blocks are larger than a piece."""
    with donor_of(smollm2, tmp_path / "real") as donor:
        yield donor


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store without a quota."""
    with Store.open(tmp_path / "store", None) as store:
        yield store
