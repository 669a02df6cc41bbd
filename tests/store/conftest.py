from pathlib import Path

import pytest

from intelnav.store.embedded import embedded_model
from tests.models import tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untied llama of six blocks, with a tensor that belongs to no block."""
    return tiny_model(tmp_path_factory.mktemp("tiny") / "llama.gguf", rope_freqs=True)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real model that comes with the installation."""
    return embedded_model()
