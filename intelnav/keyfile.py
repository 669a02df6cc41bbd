"""The node's key on disk ([I1] in docs/protocol.md): its 32-byte Ed25519 seed, for its owner's eyes only."""

import os
import secrets
import shlex
import stat
from pathlib import Path

from intelnav.domain.errors import ConfigError
from intelnav.domain.identity import Identity

_SEED = 32


def load_or_create(path: Path) -> Identity:
    """The identity in `path`; if there is no such file, a new one that is safe on disk before this returns.

    Raises ConfigError, with the fix, for a file that others may use, has another length or cannot be opened.
    """
    try:
        if not path.exists():
            _create(path)
        return Identity(_read(path))
    except OSError as error:
        raise ConfigError(
            f"key file {path}: {error.strerror}; make it a file that this user can read"
        ) from error


def _read(path: Path) -> bytes:
    # A pipe in place of the file would block the start for ever.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"key file {path} is not a regular file: name another one")
        if status.st_mode & 0o077:
            raise ConfigError(
                f"key file {path} is open to other users: run chmod 600 {shlex.quote(str(path))}"
            )
        seed = file.read(_SEED + 1)
    if len(seed) != _SEED:
        wrong = f"key file {path} holds {status.st_size} bytes, not {_SEED}"
        raise ConfigError(f"{wrong}: restore it, or remove it to become a new peer")
    return seed


def _create(path: Path) -> None:
    """Write a fresh seed beside `path` and link it there, so that `path` is never seen half written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(secrets.token_bytes(_SEED))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first, and its key is the one to use
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
