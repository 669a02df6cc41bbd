"""The node's config file while it runs: noticed when it changes, and believed only if all of it is right."""

import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
from anyio import to_thread

from intelnav.api.replies import rfc3339
from intelnav.config import NodeConfig, load, parse
from intelnav.domain.errors import ConfigError, IntelNavError

# How often the file's status is read. A change counts once it stood still for one turn: it may be half written.
POLL_SECONDS = 0.25
RETRY_SECONDS = 10.0

# What the node binds, opens or tells others at its start.
_AT_START = (
    ("role",),
    ("data_dir",),
    ("network", "listen"),
    ("network", "seeds"),
    ("network", "mdns"),
    ("store", "chunks"),
    ("api", "listen"),
    ("log", "format"),
)

Look = tuple[int, ...] | None


class ConfigFile:
    """A config and the file that it came from; `path` is None for a node that was started without one.

    `config` is what counts: the last file that was right, but for the keys in `restart`, which are as they were at the
    start. `generation` counts the files that were accepted; `error` says what is wrong with a later one.
    """

    def __init__(self, path: Path | None, environ: Mapping[str, str], started: NodeConfig) -> None:
        self.config = started
        self.generation = 1
        self.error: str | None = None
        self.restart: tuple[str, ...] = ()
        self.loaded_at = time.time()
        self.path = path
        self._environ = environ
        self._started = started
        self._read = self._look()

    async def changed(self) -> None:
        """Return once the file is another than the one that was last read, and is not being written any more.

        A file that was wrong may become right without a change of its own, by what it names: it is due in a while.
        """
        last = self._read
        with anyio.move_on_after(math.inf if self.error is None else RETRY_SECONDS):
            while True:
                await anyio.sleep(POLL_SECONDS)
                now = self._look()
                if now == last != self._read:
                    return
                last = now

    async def load(self, check: Callable[[NodeConfig], Awaitable[None]]) -> bool:
        """Read the file again; whether it says anything else than what counted before.

        Raises ConfigError for what is wrong with it, which is kept in `error`; nothing else changes then. `check`
        raises IntelNavError for what only turns out at the files that the config names.
        """
        self._read = self._look()
        try:
            found = await to_thread.run_sync(load, self.path, self._environ)
            await check(found)
        except (IntelNavError, OSError) as error:
            self.error = str(error)
            raise ConfigError(str(error)) from error
        self.restart = restart_keys(self._started, found)
        before, self.config = self.config, _kept(self._started, found)
        self.generation += 1
        self.error = None
        self.loaded_at = time.time()
        return self.config != before

    async def parsed(self, text: str, style: Literal["yaml", "toml"]) -> tuple[NodeConfig, tuple[str, ...]]:
        """What would count if the file had this text, and the keys that would wait for a restart; ConfigError."""
        found = await to_thread.run_sync(parse, text, style, self.path, self._environ)
        return _kept(self._started, found), restart_keys(self._started, found)

    def status(self) -> dict[str, Any]:
        """What `/status` shows of it."""
        return {
            "file": str(self.path) if self.path is not None else None,
            "generation": self.generation,
            "valid": self.error is None,
            "error": self.error,
            "loaded_at": rfc3339(self.loaded_at),
            "restart": list(self.restart),
        }

    def _look(self) -> Look:
        """What changes with the file, wherever links lead; None while it is not there."""
        if self.path is None:
            return None
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def restart_keys(started: NodeConfig, found: NodeConfig) -> tuple[str, ...]:
    """The keys of `found` that count from the next start on, because they differ from those at this one."""
    keys = [".".join(place) for place in _AT_START if _at(started, place) != _at(found, place)]
    if started.network.is_local != found.network.is_local and "network.listen" not in keys:
        # Whether this node is on a network at all is settled with its sockets.
        named = (("network", "bootstrap"), ("network", "peers"))
        keys += [".".join(place) for place in named if _at(started, place) != _at(found, place)]
    return tuple(keys)


def _at(config: NodeConfig, place: Sequence[str]) -> object:
    value: Any = config
    for key in place:
        value = getattr(value, key)
    return value


def _kept(started: NodeConfig, found: NodeConfig) -> NodeConfig:
    """`found`, but with what cannot change while the node runs as it was at its start."""
    network = found.network.model_copy(
        update={key: getattr(started.network, key) for key in ("listen", "seeds", "mdns")}
    )
    return found.model_copy(
        update={
            "role": started.role,
            "data_dir": started.data_dir,
            "network": network,
            "store": found.store.model_copy(update={"chunks": started.store.chunks}),
            "api": started.api,
            "log": found.log.model_copy(update={"format": started.log.format}),
        }
    )
