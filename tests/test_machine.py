"""What a node may use of its machine, where control groups allow it less; tests/appliance has it in a container."""

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from intelnav import machine
from intelnav.controller.capacity import machine_memory
from intelnav.machine import Memory, cores, memory

MIB = 2**20


@pytest.fixture(autouse=True)
def large_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight cores, 16 GiB, of which half is in use, and no groups yet; the folder to put them in."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 16 if logical else 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    sizes = SimpleNamespace(total=16384 * MIB, available=8192 * MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: sizes)
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def write(folder: Path, **files: str) -> None:
    """Files by their names, with `_` for the first dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text + "\n")


def test_without_groups_it_is_all_of_it() -> None:
    assert cores() == 8
    assert memory() == Memory(16384 * MIB, 8192 * MIB, 16384 * MIB)


@pytest.mark.parametrize("path", ["/", "/docker/abc", "/../../gone"])
def test_a_container_has_what_its_group_allows(large_machine: Path, path: str) -> None:
    (large_machine / "membership").write_text(f"0::{path}\n")
    used = {
        "memory_current": str(500 * MIB),
        "memory_stat": f"anon 1\ninactive_file {200 * MIB}\nactive_file 0",
    }
    write(large_machine, cpu_max="250000 100000", memory_max=str(768 * MIB), **used)
    assert cores() == 2
    assert memory() == Memory(768 * MIB, 468 * MIB, 16384 * MIB)


def test_what_is_around_a_group_limits_it_too(large_machine: Path) -> None:
    (large_machine / "membership").write_text("0::/system.slice/intelnav.service\n")
    inner = large_machine / "system.slice/intelnav.service"
    write(inner, cpu_max="max 100000", memory_max="max", memory_current="5")
    write(inner.parent, cpu_max="50000 100000", memory_max=str(64 * MIB), memory_current=str(80 * MIB))
    assert cores() == 1
    assert memory() == Memory(64 * MIB, 0, 16384 * MIB)


@pytest.mark.parametrize("path", ["/", "/docker/abc"])
def test_groups_of_version_1(large_machine: Path, path: str) -> None:
    (large_machine / "membership").write_text(
        f"5:memory:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/\n"
    )
    write(large_machine / "cpu", cpu_cfs_quota_us="300000", cpu_cfs_period_us="100000")
    write(
        large_machine / "memory",
        memory_limit_in_bytes=str(600 * MIB),
        memory_usage_in_bytes=str(100 * MIB),
        memory_stat=f"inactive_file 7\ntotal_inactive_file {20 * MIB}\ntotal_active_file {10 * MIB}",
    )
    assert cores() == 3
    assert memory() == Memory(600 * MIB, 530 * MIB, 16384 * MIB)


def test_groups_without_limits(large_machine: Path) -> None:
    (large_machine / "membership").write_text("5:memory:/\n4:cpu:/\n0::/\n")
    write(large_machine, cpu_max="max 100000", memory_max="max", memory_current="5")
    write(large_machine / "cpu", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    write(large_machine / "memory", memory_limit_in_bytes="9223372036854771712", memory_usage_in_bytes="5")
    assert cores() == 8
    assert memory() == Memory(16384 * MIB, 8192 * MIB, 16384 * MIB)


def test_a_service_may_be_slowed_down_before_it_is_ended(large_machine: Path) -> None:
    (large_machine / "membership").write_bytes(b"0::/\n")
    write(large_machine, memory_max="max", memory_high=str(300 * MIB), memory_current=str(100 * MIB))
    assert memory() == Memory(300 * MIB, 200 * MIB, 16384 * MIB)


def test_names_of_groups_are_any_bytes(large_machine: Path) -> None:
    (large_machine / "membership").write_bytes(b"0::/\xff\n")
    write(large_machine, memory_max=str(64 * MIB), memory_current="0", memory_stat="active_file none")
    assert memory().total == 64 * MIB


@pytest.mark.parametrize(
    ("allowed", "slices"), [(16384, 16384 - 512), (16300, 16384 - 512), (768, 640), (100, 0)]
)
def test_what_slices_may_take(large_machine: Path, allowed: int, slices: int) -> None:
    (large_machine / "membership").write_text("0::/\n")
    write(large_machine, memory_max=str(allowed * MIB), memory_current="0")
    assert machine_memory() == slices * MIB


@pytest.mark.parametrize("text", ["", "nonsense", "100000 0", "1", "a b", "1 2 3"])
def test_what_makes_no_sense_is_passed_over(large_machine: Path, text: str) -> None:
    (large_machine / "membership").write_text("0::/\n")
    write(large_machine, cpu_max=text, memory_max=text, memory_current=text, memory_stat=text)
    assert cores() in (1, 8)
    assert memory().total in (1, 16384 * MIB)


def test_a_process_may_be_bound_to_some_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5})
    assert cores() == 3
