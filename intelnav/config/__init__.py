"""One declarative file, and `INTELNAV_...` variables over it, -> a frozen NodeConfig, or all problems."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from intelnav.config.problems import Place, sentences
from intelnav.config.schema import (
    DATA_DIR,
    ApiConfig,
    AutoConfig,
    BackendConfig,
    EntryConfig,
    LimitsConfig,
    LogConfig,
    NetworkConfig,
    NodeConfig,
    PeerConfig,
    PeerSlice,
    SeedConfig,
    SliceConfig,
    StoreConfig,
)
from intelnav.config.text import FILE_BYTES, Tree, as_mapping, read_file, read_toml, read_yaml
from intelnav.domain.errors import ConfigError

__all__ = [
    "DATA_DIR",
    "PREFIX",
    "ApiConfig",
    "AutoConfig",
    "BackendConfig",
    "EntryConfig",
    "LimitsConfig",
    "LogConfig",
    "NetworkConfig",
    "NodeConfig",
    "PeerConfig",
    "PeerSlice",
    "SeedConfig",
    "SliceConfig",
    "StoreConfig",
    "as_tree",
    "load",
    "parse",
]

PREFIX = "INTELNAV_"
"""What the name of a variable begins with that overrides a key."""
_SHOWN = 30


def load(path: Path | None, environ: Mapping[str, str]) -> NodeConfig:
    """The config in `path` (none is needed), with the variables in `environ` laid over it.

    `INTELNAV_LIMITS__SESSIONS=4` is `limits.sessions`. Values are YAML, and a list is given as a whole.
    Relative paths start at the folder of the file. Raises ConfigError that lists every problem.
    """
    tree = read_file(path) if path is not None else {}
    return _config(tree, path, environ, str(path or "environment"))


def parse(
    text: str, style: Literal["yaml", "toml"], path: Path | None, environ: Mapping[str, str]
) -> NodeConfig:
    """The config that `text` would be if it stood in the file `path`; otherwise as `load`."""
    if len(text.encode(errors="replace")) > FILE_BYTES:
        raise ConfigError(f"larger than {FILE_BYTES} bytes; a config never is")
    return _config(
        as_mapping(read_toml(text) if style == "toml" else read_yaml(text)), path, environ, "config"
    )


def _config(tree: Tree, path: Path | None, environ: Mapping[str, str], where: str) -> NodeConfig:
    origins = _override(tree, environ)
    folder = path.absolute().parent if path is not None else Path.cwd()
    try:
        return NodeConfig.model_validate(tree, context={"folder": folder})
    except ValidationError as error:
        problems = list(sentences(error, origins))
        if len(problems) == 1:
            raise ConfigError(f"{where}: {problems[0]}") from error
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        lines = [f"{where}: {len(problems)} problems", *problems[:_SHOWN], *more]
        raise ConfigError("\n  ".join(lines)) from error


def as_tree(value: Any) -> Any:
    """A config, or a part of one, as plain values, which `load` reads as the same config."""
    match value:
        case BaseModel():
            tree = {key: as_tree(getattr(value, key)) for key in type(value).model_fields}
            if isinstance(value, NodeConfig):
                tree["slices"] = "auto" if value.auto is not None else tree["slices"]
            return tree
        case tuple():
            return [as_tree(item) for item in value]
        case None | bool() | int() | float():
            return value
    return str(value)


def _override(tree: Tree, environ: Mapping[str, str]) -> dict[Place, str]:
    """Lay the variables over `tree`; returns which one each overridden place came from.

    A variable without `__` that names no key is left alone: container platforms set some of their own.
    """
    origins: dict[Place, str] = {}
    for variable in sorted(environ):
        *sections, key = variable.removeprefix(PREFIX).lower().split("__")
        if not variable.startswith(PREFIX) or not (sections or key in NodeConfig.model_fields):
            continue
        target = tree
        for section in sections:
            if target.get(section) is None:
                target[section] = {}
            target = target[section]
            if not isinstance(target, dict):
                raise ConfigError(f"{variable}: {section} is no section; override all of it instead")
        try:
            target[key] = read_yaml(environ[variable])
        except ConfigError as error:
            raise ConfigError(f"{variable} = {environ[variable][:80]!r}: {error}") from error
        origins[(*sections, key)] = variable
    return origins
