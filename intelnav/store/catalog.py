"""The models that come recommended: `config/catalog/*.yaml`, one file each. Names here stand for files elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from intelnav.config.text import read_yaml
from intelnav.domain.errors import ConfigError
from intelnav.domain.model_ref import ModelRef
from intelnav.store.architectures import ARCHITECTURES
from intelnav.store.cid import is_cid
from intelnav.store.model_file import MAX_BLOCKS

EMBEDDED = "embedded"
MAX_SIZE = 1 << 48
MAX_ENTRY = 1 << 16
MAX_TEXT = 128


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model that can be had. `origin` is a URL, `hf://OWNER/REPO/FILE`, or "embedded" for what is installed along.

    `size` is that of the whole GGUF in bytes and `sha256` its hash in hexadecimal, as published; `cid` is the model's
    id; each None if not known. `cuts` are the layers at which a chain's next node usually begins.
    """

    name: str
    title: str
    architecture: str
    blocks: int
    quantisation: str
    origin: str
    license: str
    cuts: tuple[int, ...]
    size: int | None = None
    sha256: str | None = None
    cid: str | None = None


class Catalog:
    """All entries, by name."""

    def __init__(self, entries: tuple[CatalogEntry, ...]) -> None:
        self.entries = entries

    def named(self, name: str) -> CatalogEntry | None:
        """The entry of that name."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def of_origin(self, origin: str) -> CatalogEntry | None:
        """The entry whose file lies there."""
        return next((entry for entry in self.entries if entry.origin == origin), None)

    def of_cid(self, cid: str) -> CatalogEntry | None:
        """The entry that is known to be this model."""
        return next((entry for entry in self.entries if entry.cid == cid), None)


def shipped_catalog() -> Catalog:
    """What comes with this installation, or with the checkout that it runs from; ConfigError if that is damaged."""
    package = files("intelnav")
    installed = package / "catalog"
    return read_catalog(installed if installed.is_dir() else Path(str(package)).parent / "config/catalog")


def read_catalog(folder: Traversable) -> Catalog:
    """Every `*.yaml` in `folder`, in the order of their names; ConfigError names the file, the key and the fix."""
    try:
        found = sorted(
            (item for item in folder.iterdir() if item.name.endswith(".yaml")), key=lambda item: item.name
        )
        entries = tuple(_read(item) for item in found)
    except OSError as error:
        raise ConfigError(f"the catalog {folder}: {error.strerror}; install intelnav again") from error
    return Catalog(entries)


def _read(item: Traversable) -> CatalogEntry:
    data = item.read_bytes()
    try:
        if len(data) > MAX_ENTRY:
            raise ConfigError(f"larger than {MAX_ENTRY} bytes; write less")
        entry = _entry(read_yaml(data.decode()))
        if item.name != f"{entry.name}.yaml":
            raise ConfigError(f"name = {entry.name!r}: name the file {entry.name}.yaml")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{item}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
    except ConfigError as error:
        raise ConfigError(f"{item}: {error}") from None
    return entry


def _entry(tree: Any) -> CatalogEntry:
    if not isinstance(tree, dict):
        raise ConfigError("holds no keys; write KEY: VALUE lines, as in the other files of the catalog")
    known = [field.name for field in fields(CatalogEntry)]
    for key in tree:
        if key not in known:
            close = get_close_matches(str(key).lower(), known, n=1)
            fix = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            raise ConfigError(f"{str(key)[:60]}: unknown key; {fix}")
    for key in known[: known.index("size")]:
        if key not in tree:
            raise ConfigError(f"{key}: is missing; write {key}: {_WANTED[key]}")
    for problem in _problems(tree):
        raise ConfigError(problem)
    return CatalogEntry(**tree | {"cuts": tuple(tree["cuts"])})


_WANTED = {
    "name": "letters, digits, dot, dash and underscore only, 128 at most",
    "title": "a line of text",
    "architecture": f"one of {', '.join(ARCHITECTURES)}",
    "blocks": f"a number from 1 to {MAX_BLOCKS}",
    "quantisation": "a line of text",
    "origin": f"a URL, hf://OWNER/REPO/FILE, or {EMBEDDED}",
    "license": "a line of text",
    "cuts": "rising layers between the first and the last, for instance [8, 15, 22]",
    "size": "the number of bytes, or leave it out",
    "sha256": "64 digits of 0-9 and a-f, or leave it out",
    "cid": "b3- and 52 characters, or leave it out",
}


def _problems(tree: dict[str, Any]) -> Iterator[str]:
    """What is wrong, one sentence a key."""
    for key, value in tree.items():
        if not _is_sound(key, value, tree):
            shown = repr(value)
            yield f"{key} = {shown if len(shown) <= 80 else shown[:77] + '...'}: write {_WANTED[key]}"


def _is_sound(key: str, value: Any, tree: dict[str, Any]) -> bool:
    match key:
        case "name":
            return _ref(value) == "name"
        case "title" | "quantisation" | "license":
            return isinstance(value, str) and 1 <= len(value) <= MAX_TEXT and value.isprintable()
        case "architecture":
            return isinstance(value, str) and value in ARCHITECTURES
        case "blocks":
            return type(value) is int and 1 <= value <= MAX_BLOCKS
        case "origin":
            return value == EMBEDDED or _ref(value) in ("url", "hub")
        case "cuts":
            blocks = tree["blocks"]
            whole = isinstance(value, list) and all(type(layer) is int for layer in [*value, blocks])
            return whole and all(a < b for a, b in zip([0, *value], [*value, blocks], strict=True))
        case "size":
            return type(value) is int and 1 <= value <= MAX_SIZE
        case "sha256":
            return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")
        case _:
            return isinstance(value, str) and is_cid(value)


def _ref(value: Any) -> str | None:
    """Which kind of model reference a value is."""
    try:
        return ModelRef.parse(value).kind if isinstance(value, str) else None
    except ValueError:
        return None
