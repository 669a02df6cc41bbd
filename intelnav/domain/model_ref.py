"""How a person names a model: by its id, by a name, or by where its file lies."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from intelnav.domain.errors import ConfigError

HUB = "hf://"
HUB_ADDRESS = "https://huggingface.co"
_CID_START = "b3-"
_CID = re.compile(r"b3-[a-z2-7]{52}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HUB_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_URL = 2048


@dataclass(frozen=True, slots=True)
class ModelRef:
    """One way to name a model. `value` is a CID, a name, an absolute path, an `http(s)://` URL or `hf://OWNER/REPO/FILE`.

    Two that are equal mean one model; two that differ may do so as well.
    """

    kind: Literal["cid", "name", "path", "url", "hub"]
    value: str

    @classmethod
    def parse(cls, text: str) -> "ModelRef":
        """Read anything but a path; raises ValueError that says what could stand there."""
        if _CID.fullmatch(text):
            return cls("cid", text)
        if text.startswith(HUB):
            return cls("hub", _hub(text))
        if text.startswith(("http://", "https://")):
            return cls("url", _url(text))
        if text.startswith(_CID_START):
            raise ValueError("a CID is b3- and 52 characters of a-z and 2-7; copy all of it")
        if "://" in text:
            raise ValueError("a model is read from http://, https:// or hf:// only")
        if _is_name(text):
            return cls("name", text)
        raise ValueError("write a path, a URL, hf://OWNER/REPO/FILE, a model's name or its CID")

    def __str__(self) -> str:
        return self.value


def origin_url(ref: ModelRef, environ: Mapping[str, str]) -> str:
    """The address that a reference of the kind "url" or "hub" stands for; ConfigError for any other.

    HF_ENDPOINT in `environ` is the hub's address if it is set, as for the hub's own tools.
    """
    if ref.kind == "url":
        return ref.value
    if ref.kind != "hub":
        raise ConfigError(f"{ref} is no place to import from: write a path, a URL or hf://OWNER/REPO/FILE")
    endpoint = (environ.get("HF_ENDPOINT") or HUB_ADDRESS).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"HF_ENDPOINT = {endpoint[:200]!r}: write http(s)://HOST, or leave it out")
    owner, repository, *file = ref.value.removeprefix(HUB).split("/")
    return f"{endpoint}/{owner}/{repository}/resolve/main/{'/'.join(file)}"


def looks_like_a_path(text: str) -> bool:
    """Whether `text` must mean a file, rather than a model's name, URL or CID."""
    return "://" not in text and (
        "/" in text or text.startswith((".", "~")) or text.lower().endswith(".gguf")
    )


def model_name(text: str) -> str:
    """What to call a model that is known by this path, URL, title or name: `[a-z0-9_-]`, at most 128 characters.

    A name stays as it is.
    """
    last = text.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    stem = re.sub(r"(?i)\.gguf$", "", last)
    if stem == last == text and (_CID.fullmatch(text) or _is_name(text)):
        return text
    name = re.sub(r"[^a-z0-9_]+", "-", stem.lower()).strip("-_")[:128]
    return name if _is_name(name) else "model"


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and not text.startswith(_CID_START)


def _hub(text: str) -> str:
    parts = text.removeprefix(HUB).split("/")
    if len(parts) < 3 or not all(map(_HUB_PART.fullmatch, parts)):
        raise ValueError(
            f"{text[:200]!r} is no file on the hub: write hf://OWNER/REPO/FILE, "
            "for instance hf://Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_k_m.gguf"
        )
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound or len(text) > _MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"{text[:200]!r} is no URL: write http(s)://HOST/PATH, with what is unusual in it as %XX"
        )
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError(
            "a URL with a user, a password or a # in it is not taken: it would be shown to others"
        )
    return text
