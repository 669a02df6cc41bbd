"""Checks of `intelnav doctor` on what a node keeps on the disk."""

import os
import shutil
import stat
import tempfile
from pathlib import Path
from shlex import quote

from intelnav.cli.finding import Finding
from intelnav.cli.terminal import size_text
from intelnav.config import NodeConfig
from intelnav.domain.errors import IntelNavError

# Less than this is as good as full.
LEAST_DISK = 256 * 10**6


def data_dir(folder: Path) -> Finding:
    """Whether the node can write its folder, and nobody else can."""
    check = "data_dir"
    try:
        status = folder.stat()
    except FileNotFoundError:
        above = next(parent for parent in folder.parents if parent.exists())
        if os.access(above, os.W_OK | os.X_OK):
            return Finding(check, "ok", f"{folder} is not there yet; the first start makes it")
        return Finding(
            check,
            "fail",
            f"{folder} cannot be made in {above}",
            f"sudo install -d -o $USER {quote(str(folder))}",
        )
    except OSError as error:
        return Finding(check, "fail", f"{folder}: {error.strerror}", "write another data_dir")
    name = quote(str(folder))
    if status.st_uid != os.getuid():
        found = f"{folder} is owned by user {status.st_uid}, and this is user {os.getuid()}"
        return Finding(check, "fail", found, f"sudo chown -R {os.getuid()} {name}, or run this as its owner")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return Finding(check, "fail", f"{folder} cannot be written: {error.strerror}", f"chmod u+rwx {name}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Finding(check, "warn", f"others may write {folder}", f"chmod go-w {name}")
    return Finding(check, "ok", f"{folder} can be written, {size_text(shutil.disk_usage(folder).free)} free")


def key(path: Path) -> Finding:
    """Whether the node's key can be read, by its owner alone."""
    from intelnav.keyfile import load_or_create

    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            return Finding("peer.key", "fail", f"{path} has mode {mode:04o}", f"chmod 600 {quote(str(path))}")
        return Finding("peer.key", "ok", f"{load_or_create(path).peer}, mode {mode:04o}")
    except FileNotFoundError:
        return Finding("peer.key", "ok", f"{path} is not there yet; the first start makes it")
    except (IntelNavError, OSError) as error:
        return Finding("peer.key", "fail", str(error), "restore the file, or remove it to become a new peer")


def disk(config: NodeConfig) -> Finding:
    """Whether the disk has room for what the store may take."""
    folder = config.data_dir
    while not folder.exists():
        folder = folder.parent
    free, store = shutil.disk_usage(folder).free, config.data_dir / "store"
    used = sum(path.lstat().st_blocks * 512 for path in store.rglob("*") if path.is_file())
    quota = config.store.max_bytes
    allowed = "no quota" if quota is None else f"a quota of {size_text(quota)}"
    found = f"the store takes {size_text(used)} with {allowed}, {size_text(free)} are free"
    if free < LEAST_DISK:
        return Finding("disk", "fail", found, "free some room, or move data_dir to another disk")
    if quota is not None and quota - used > free:
        return Finding(
            "disk", "warn", found, f"write store.max_bytes: {size_text(used + free // 2)}, or free some room"
        )
    return Finding("disk", "ok", found)


def store(root: Path) -> Finding:
    """Whether what the store holds can be right. Nothing is hashed."""
    from intelnav.store.glance import glance

    if not root.exists():
        return Finding("store", "ok", "nothing is in it yet")
    try:
        slices, faults = glance(root)
    except OSError as error:
        return Finding(
            "store", "fail", f"{error.filename or root}: {error.strerror}", f"ls -la {quote(str(root))}"
        )
    if faults:
        found = "\n".join(f"{fault.path}: {fault.reason}" for fault in faults)
        return Finding(
            "store",
            "fail",
            found,
            "intelnav models verify, on the running node: it fetches again what is damaged",
        )
    return Finding(
        "store",
        "ok",
        f"{len(slices)} slices have the right header and size; `intelnav models verify` hashes them",
    )
