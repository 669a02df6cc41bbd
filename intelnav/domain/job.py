"""Work that takes a while, for whoever watches it."""

from dataclasses import dataclass


@dataclass(slots=True)
class JobProgress:
    """How far some work is: what it does at the moment, and how many of how many bytes of that are done.

    It is written by the work and read by anyone at any time; `total` is 0 as long as it is not known.
    """

    stage: str = "starting"
    done: int = 0
    total: int = 0

    def enter(self, stage: str, total: int, done: int = 0) -> None:
        """Begin another part of the work."""
        self.stage, self.total, self.done = stage, total, done

    def as_json(self) -> dict[str, str | int]:
        """All of it as plain JSON."""
        return {"stage": self.stage, "done_bytes": self.done, "total_bytes": self.total}
