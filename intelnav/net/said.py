"""What a node has said in the DHT, kept in a file: one that crashed takes it back, and is newer than its own past."""

import json
import logging
import os
from pathlib import Path

from intelnav.dht.keys import KEY_BYTES

log = logging.getLogger(__name__)

MAX_KEYS = 4096
_MAX_SEQ = 2**62
_MAX_FILE = 1024 * 1024


class Said:
    """The keys under which something stands that was not taken back yet, and the highest `seq` that was used.

    `path` is None for a node that keeps no file. A file that is missing or spoilt holds nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.seq, self._keys = _read(path) if path is not None else (0, set())

    def standing(self) -> frozenset[bytes]:
        """Where something stands."""
        return frozenset(self._keys)

    def next_seq(self, unix: float) -> int:
        """A number above all before, whatever the clock was set to meanwhile; milliseconds where that will do."""
        self.seq = max(self.seq + 1, int(unix * 1000))
        return self.seq

    def note(self, key: bytes, *, stands: bool) -> None:
        """Something was written for `key`, or taken back for good. A full disk is no reason to stop."""
        if stands:
            self._keys.add(key)
        else:
            self._keys.discard(key)
        if self._path is None:
            return
        content = {"seq": self.seq, "keys": sorted(key.hex() for key in self._keys)}
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not synced: it is for a crash of this process, and a slow disk must not hold up its answers.
            draft = self._path.with_name(f".{self._path.name}.tmp")
            draft.write_text(json.dumps(content))
            os.replace(draft, self._path)
        except OSError as error:
            log.warning("what was announced cannot be kept in %s: %s", self._path, error.strerror)


def _read(path: Path) -> tuple[int, set[bytes]]:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_FILE))
        seq, keys = content["seq"], {bytes.fromhex(key) for key in content["keys"][:MAX_KEYS]}
        if type(seq) is not int or not 0 <= seq < _MAX_SEQ or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError("a seq or a key is out of bounds")
    except FileNotFoundError:
        return 0, set()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.warning(
            "%s does not tell what was announced (%s); it will be written anew", path, str(error)[:100]
        )
        return 0, set()
    return seq, keys
