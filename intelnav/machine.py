"""What this process may use of its machine: all of it, or what its container or service is allowed."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# Linux's control groups of version 2 and, where a machine still has them, of version 1.
_GROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
# What a group reads from files is counted for it, and given up when memory runs short.
_SPARE = {"inactive_file", "active_file"}, {"total_inactive_file", "total_active_file"}


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory in bytes: all there is for this process, what of it can still be had, and what the machine has."""

    total: int
    available: int
    machine: int


def cores() -> int:
    """Physical cores that this process may keep busy, at least 1."""
    found = [psutil.cpu_count(logical=False) or psutil.cpu_count() or 1]
    with suppress(AttributeError):
        found.append(len(os.sched_getaffinity(0)))
    return max(1, min(found + [int(quota) for quota in _quotas()]))


def memory() -> Memory:
    """The memory of the machine, or less where a control group allows less."""
    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    for limit, used in _limits():
        total = min(total, limit)
        available = min(available, max(0, limit - used))
    return Memory(total, available, machine.total)


def _quotas() -> Iterator[float]:
    """How many processors' time each group has."""
    for folder in _folders("cpu"):
        for words in (
            _words(folder / "cpu.max"),
            _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"),
        ):
            # Without a limit the quota is `max` or -1.
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
                yield int(words[0]) / int(words[1])


def _limits() -> Iterator[tuple[int, int]]:
    """Bytes that each group may use, and those that it uses and cannot give up."""
    for folder in _folders("memory"):
        for limit, used, spare in (
            ("memory.max", "memory.current", _SPARE[0]),
            ("memory.high", "memory.current", _SPARE[0]),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", _SPARE[1]),
        ):
            most, now = _words(folder / limit), _words(folder / used)
            if len(most) == len(now) == 1 and (most[0] + now[0]).isdecimal():
                stat = _words(folder / "memory.stat")
                of_files = sum(
                    int(size)
                    for name, size in zip(stat[::2], stat[1::2], strict=False)
                    if name in spare and size.isdecimal()
                )
                yield int(most[0]), max(0, int(now[0]) - of_files)


def _folders(controller: str) -> Iterator[Path]:
    """The folders of the groups that this process is in, and of those around them."""
    with suppress(OSError):
        for line in _MEMBERSHIP.read_text(errors="replace").splitlines():
            _, names, path = line.split(":", 2)
            if names and controller not in names.split(","):
                continue
            root = _GROUPS / controller if names else _GROUPS
            inside = root / path.lstrip("/")
            # Within a container its own group is the root, and what the path names is not there.
            yield from (folder for folder in (inside, *inside.parents) if folder.is_relative_to(root))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").split()
    except OSError:
        return []
