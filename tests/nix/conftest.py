from pathlib import Path

import pytest

from tests.nix.evaluation import Nix, missing


@pytest.fixture
def nix(tmp_path: Path) -> Nix:
    """Nix with an empty store."""
    missing(["nix", "nix-instantiate"])
    return Nix(tmp_path / "nix")
