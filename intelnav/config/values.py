"""Values that a config file writes as text, read into the domain's own types."""

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema

from intelnav.domain.advert import Address
from intelnav.domain.identity import PeerId
from intelnav.domain.model_ref import ModelRef, looks_like_a_path
from intelnav.domain.slice import LayerRange

SOCKET_BYTES = 107
"""Longest path that a Unix socket can have, in bytes, on every Linux."""

URL_CHARACTERS = 2048
MAX_BYTES = 2**60
_BYTES = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?([KMGT]i?)?B?", re.IGNORECASE)
_POWERS = " kmgt"


def _text(kind: type, parse: Callable[[str], object]) -> PlainValidator:
    """A value that is written as text and kept as `kind`."""

    def read(value: object) -> object:
        if isinstance(value, kind):
            return value
        if not isinstance(value, str):
            raise ValueError("text is wanted here")
        return parse(value)

    return PlainValidator(read)


def _path(value: object, info: ValidationInfo) -> Path:
    """The absolute path, with `~` filled in. A relative one starts at the folder of the config file."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("a path is wanted here")
    folder: Path = (info.context or {}).get("folder", Path())
    try:
        return Path(os.path.abspath(folder / Path(value).expanduser()))
    except RuntimeError as error:
        raise ValueError("whose home folder that is cannot be found out; write the path in full") from error


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    """Whether `path` is of that kind; one that cannot even be looked at (too long, no permission) is not."""
    try:
        return kind(path)
    except OSError:
        return False


def _model(value: object, info: ValidationInfo) -> ModelRef:
    """A file that exists, or what a model can be called. Whether such a model is known turns out when it runs."""
    if isinstance(value, ModelRef):
        return value
    if isinstance(value, str) and "://" in value:
        return ModelRef.parse(value)
    path = _path(value, info)
    if _is(path, Path.is_file):
        return ModelRef("path", str(path))
    if isinstance(value, Path) or looks_like_a_path(str(value)):
        raise ValueError(f"there is no file {str(path)[:200]}; write the path of a GGUF file")
    return ModelRef.parse(str(value))


def _bytes(value: object) -> int | None:
    """A number of bytes: a whole number, or text such as "20 GB" (powers of 1000) or "20 GiB" (of 1024)."""
    if value is None or value == "none":
        return None
    if isinstance(value, str) and (match := _BYTES.fullmatch(value.strip())):
        unit = (match[2] or "").lower()
        scale = (1024 if unit.endswith("i") else 1000) ** _POWERS.index(unit[:1] or " ")
        value = round(float(match[1]) * scale)
    if type(value) is not int:
        raise ValueError('write a number of bytes, for instance "20 GB", or none')
    if not 0 < value <= MAX_BYTES:
        raise ValueError(f"write a number from 1 to {MAX_BYTES}, or none")
    return value


def _rate(value: object) -> int | None:
    """Bytes a second, written as `_bytes` are, with or without `/s`."""
    try:
        return _bytes(value.strip().removesuffix("/s") if isinstance(value, str) else value)
    except ValueError:
        raise ValueError('write bytes per second, for instance "10 MB/s", or none') from None


def _data_dir(value: object, info: ValidationInfo) -> Path:
    path = _path(value, info)
    if _is(path, Path.exists) and not _is(path, Path.is_dir):
        raise ValueError(f"{path} is not a folder; write another path")
    if (size := len(os.fsencode(path / "control.sock"))) > SOCKET_BYTES:
        raise ValueError(
            f"the path of control.sock in it has {size} bytes, and that of a socket may have {SOCKET_BYTES};"
            " write a shorter path"
        )
    return path


def _listen(value: object) -> Address | None:
    if value is None or isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError("write HOST:PORT, for instance 127.0.0.1:7717, or none")
    return None if value == "none" else Address.parse(value)


def _dialled(text: str) -> Address:
    address = Address.parse(text)
    if address.port == 0:
        raise ValueError("port 0 cannot be dialled; write the port that the peer listens on")
    return address


def is_loopback(host: str) -> bool:
    """Whether a host name or IP address means this machine alone; another name is not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"


def _url(text: object) -> str:
    """An address of a file on the web. Without TLS only on this machine."""
    if not isinstance(text, str):
        raise ValueError("text is wanted here")
    parts = urlsplit(text)
    host, _ = parts.hostname, parts.port
    plain = text.isascii() and text.isprintable() and " " not in text and len(text) <= URL_CHARACTERS
    if (
        not plain
        or not host
        or parts.scheme not in ("https", "http")
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ValueError("write https://HOST/PATH, without user name and fragment")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("http is for this machine alone; write https://")
    return text


def _written(title: str, pattern: str, *, none: bool = False, number: bool = False) -> WithJsonSchema:
    """How a value stands in a config file, for editors; `pattern` takes all that is read, and may take more.

    `title` says it to people. With `none` there may be the word none as well, or null; with `number` a whole number.
    """
    forms: list[dict[str, object]] = [{"type": "string", "pattern": f"^\\s*({pattern})\\s*$"}]
    if number:
        forms.append({"type": "integer", "minimum": 1, "maximum": MAX_BYTES})
    if none:
        forms += [{"const": "none"}, {"type": "null"}]
    return WithJsonSchema({"title": title, **(forms[0] if len(forms) == 1 else {"anyOf": forms})})


_ADDRESS = ".+:[0-9]+"
_SIZE = r"[0-9]{1,9}(\.[0-9]{1,6})? ?([KkMmGgTt][Ii]?)?[Bb]?"
_PEER = _written("id", "[a-z2-7]{52}")

Layers = Annotated[
    LayerRange,
    _text(LayerRange, LayerRange.parse),
    Field(examples=["8..15"]),
    _written("START..END", r"[0-9]{1,6}\.\.[0-9]{1,6}"),
]
Peer = Annotated[
    PeerId, _text(PeerId, PeerId.parse), Field(examples=["the id in that peer's `intelnav status`"]), _PEER
]
Dialled = Annotated[
    Address,
    _text(Address, _dialled),
    Field(examples=["192.0.2.7:7717"]),
    _written("HOST:PORT", ".+:0*[1-9][0-9]*"),
]
Url = Annotated[
    str,
    PlainValidator(_url),
    Field(examples=["https://example.org/intelnav.seeds"]),
    _written("URL", r"[Hh][Tt][Tt][Pp][Ss]?://[^\s#@]+"),
]
SeedKey = Annotated[
    PeerId, _text(PeerId, PeerId.parse), Field(examples=["what `intelnav seeds key` prints"]), _PEER
]
Listen = Annotated[
    Address | None, PlainValidator(_listen), _written("HOST:PORT or none", _ADDRESS, none=True)
]
"""TOML has no null, so that the word `none` stands for it."""
Chunks = Annotated[
    Address | Literal["auto"] | None,
    PlainValidator(lambda v: v if v == "auto" else _listen(v)),
    _written("auto, HOST:PORT or none", f"auto|{_ADDRESS}", none=True),
]
Model = Annotated[
    ModelRef,
    PlainValidator(_model),
    Field(examples=["./model.gguf"]),
    _written("path, name, CID, URL or hf://OWNER/REPO/FILE", r"(https?://|hf://|(?![\s\S]*://))[\s\S]+"),
]
Bytes = Annotated[
    int | None,
    PlainValidator(_bytes),
    _written('bytes, for instance "20 GB", or none', _SIZE, none=True, number=True),
]
Rate = Annotated[
    int | None,
    PlainValidator(_rate),
    _written('bytes per second, for instance "10 MB/s", or none', f"{_SIZE}(/s)?", none=True, number=True),
]
DataDir = Annotated[Path, PlainValidator(_data_dir), _written("path", r"[\s\S]+")]
