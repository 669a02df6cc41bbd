"""What `intelnav doctor` finds."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. `found` is what there is, `fix` what to do about it: a command, or a sentence; empty if all is well.

    `warn` is what a node can live with, `fail` what keeps it from doing what its config says.
    """

    check: str
    verdict: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""
