"""Which slices get memory: those that the config names first. Caches fill long after a slice was loaded."""

from collections.abc import Iterable
from dataclasses import dataclass

from intelnav.controller.state import ObservedSlice, WantedSlice


@dataclass(slots=True)
class Admission:
    """Bytes of main memory: `room` is what all slices may take together.

    `taken` is what they have or is kept for them, `staying` the part of it that stays once all that goes is gone.
    """

    room: int
    taken: int
    staying: int

    @classmethod
    def of(cls, pairs: Iterable[tuple[WantedSlice | None, ObservedSlice]], room: int) -> "Admission":
        """What is so before anything is admitted; each slice with what the config says of it, if anything."""
        admission = cls(room, 0, 0)
        for slice, there in pairs:
            admission.taken += _held(there)
            admission.staying += _held(there) if stays(slice, there) else 0
        return admission

    def admit(self, need: int) -> str:
        """Give a slice `need` bytes, or say what it waits for; empty if it got them.

        Alone it always fits: its worker judges that, which knows the GPUs. What fits once the going are gone is kept
        free, so that none that is asked for later takes it.
        """
        if self.taken == 0 or self.taken + need <= self.room:
            self.taken += need
            self.staying += need
            return ""
        lacking = (
            f"waits for memory: needs {_gib(need)} GiB beside {_gib(self.taken)} GiB of other slices or kept for "
            f"them, where {_gib(self.room)} GiB are all there is; host fewer layers, or lower sessions or context"
        )
        self._keep(need, need)
        return lacking

    def readmit(self, need: int, held: int) -> None:
        """Keep `need` bytes free for a slice that has `held` and is loaded anew once it gave them back."""
        self._keep(need, max(0, need - held))

    def _keep(self, need: int, more: int) -> None:
        if self.staying == 0 or self.staying + need <= self.room:
            self.taken += more
            self.staying += need


def stays(slice: WantedSlice | None, there: ObservedSlice) -> bool:
    """Whether what runs of a slice, or is started, is as the config has it."""
    if slice is None or there.doing in ("unloading", "cancelling"):
        return False
    return there.loaded is None or there.loaded.room == slice.room


def _held(there: ObservedSlice) -> int:
    if there.loaded is not None:
        return there.loaded.memory
    return (there.need or 0) if there.doing in ("loading", "cancelling") else 0


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"
