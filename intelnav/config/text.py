"""Text of a config file -> plain mappings and lists; no text can run code or grow beyond its own size."""

import tomllib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from intelnav.domain.errors import ConfigError

FILE_BYTES = 2**20
DEPTH = 12

Tree = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML without tags, repeated keys, deep nesting, and aliases of whole lists or mappings."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        if getattr(event, "tag", None) is not None:
            raise _refused("a tag is not allowed here: remove it", event)
        self.depth += 1
        if self.depth > DEPTH:
            raise _refused(f"nested more than {DEPTH} deep: a config never is", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(event, yaml.AliasEvent) and not isinstance(node, yaml.ScalarNode):
            raise _refused("an alias of a list or mapping is not allowed: write it out", event)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key must be a word", key)
            if key.value in seen:
                raise _refused(f"the key {key.value[:40]!r} stands here twice: remove one", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _refused(reason: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=at.start_mark)


# Dates are no type of any setting: a name such as 2026-01-01 stays text.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str) -> Any:
    """The value that YAML `text` holds; ConfigError says where it is wrong."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 -- _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{place}{error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"no YAML: {str(error)[:200]}") from error


def read_toml(text: str) -> Tree:
    """The table that TOML `text` holds; ConfigError says where it is wrong."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"no TOML: {str(error)[:200]}") from error


def read_file(path: Path) -> Tree:
    """The mapping in a `.yaml`, `.yml` or `.toml` file; an empty file is an empty mapping."""
    readers = {".yaml": read_yaml, ".yml": read_yaml, ".toml": read_toml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path}: a config file is YAML or TOML; name it .yaml or .toml")
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise ConfigError(f"larger than {FILE_BYTES} bytes; name the right file, or write less")
        tree = reader(data.decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; write the path of a file that can be read") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return as_mapping(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def as_mapping(tree: object) -> Tree:
    """What a config holds as a mapping; an empty one is an empty mapping, and anything else a ConfigError."""
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError("holds no keys; write KEY: VALUE lines, as in config/node.yaml")
    return tree
