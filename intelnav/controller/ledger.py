"""How much memory this node has promised to its own slices: their caches fill long after they were loaded."""

from collections.abc import Hashable

import psutil

from intelnav.domain.errors import EngineError
from intelnav.engine.footprint import Footprint, gib

# Bytes left to the node itself and to the rest of the machine.
RESERVE = 512 * 2**20


class MemoryLedger:
    """Bytes of main memory promised to slices, each under its holder; `room` is what all of them may take together."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._promised: dict[Hashable, int] = {}

    @classmethod
    def of_machine(cls) -> "MemoryLedger":
        """A ledger over the memory of this machine, less a reserve."""
        return cls(psutil.virtual_memory().total - RESERVE)

    def promise(self, holder: Hashable, need: Footprint) -> None:
        """Enter what a slice needs; EngineError with the figures if it does not fit beside the others.

        Alone it always fits: its worker judges that, which knows the GPUs.
        """
        others = sum(self._promised.values())
        if others and others + need.total > self._room:
            raise EngineError(
                f"the slice needs {need}, beside {gib(others)} GiB of this node's other slices, where "
                f"{gib(self._room)} GiB are all there is: host fewer layers, or lower sessions or context"
            )
        self._promised[holder] = need.total

    def refund(self, holder: Hashable) -> None:
        """Strike out what a holder was promised, if anything."""
        self._promised.pop(holder, None)
