"""The sockets that HTTP is served on."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import anyio

from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError


@contextlib.contextmanager
def unix_listener(path: Path) -> Iterator[socket.socket]:
    """A socket bound to `path` that only its owner can open; the file is removed at the end.

    Raises ConfigError if a live node holds the path, or if it cannot be bound.
    """
    _clear(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # Changing the mode after bind() would leave a moment in which others can connect.
        umask = os.umask(0o177)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise ConfigError(f"cannot listen on {path}: {error.strerror or error}") from None
        finally:
            os.umask(umask)
        listener.listen()
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove the socket file of a node that is gone; raises ConfigError if it is anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is in the way: it is no socket; remove it, or choose another directory")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ConfigError(f"cannot tell whether a node is running on {path}: {error.strerror}") from None
    raise ConfigError(f"another node is running on {path}: stop it, or give this one another directory")


async def tcp_listener(address: Address) -> socket.socket:
    """A socket that listens on the first address that the host name stands for; raises ConfigError."""
    try:
        found = await anyio.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, *_, name = found[0]
        return socket.create_server(name[:2], family=family)
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {error.strerror or error}") from None
    except (ValueError, OverflowError):
        raise ConfigError(f"cannot listen on {address}: no host has such a name or port") from None
