"""The node's data directory, which one node at a time may use."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from intelnav.domain.errors import ConfigError


@contextmanager
def only_node(data_dir: Path) -> Iterator[None]:
    """Hold the data directory; raises ConfigError if another node does."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"data_dir {data_dir} is in use by another node: stop it, or give this one a data_dir of its own"
            ) from None
        yield
