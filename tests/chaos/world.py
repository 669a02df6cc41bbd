"""The world that a node lives in: a small disk, a network that can be cut, a clock that can be set, and others."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from intelnav.domain.slice import LayerRange
from intelnav.store.cut import cut
from intelnav.store.embedded import embedded_model
from intelnav.store.manifest import Manifest, manifest_of
from tests.daemons import Daemon

NODE, SEEDER, OBSERVER = "10.79.0.2", "10.79.0.1", "10.79.0.3"
PORT = 7717
DISK_BYTES = 72_000_000
CLOCK = Path(__file__).with_name("clock.c")


def can_be_made() -> str:
    """Why such a world cannot be made here; empty if it can."""
    missing = [tool for tool in ("ip", "mount", "cc") if shutil.which(tool) is None]
    if os.geteuid() != 0:
        return "only root can make a network and a disk of its own"
    return f"{' and '.join(missing)} cannot be found" if missing else ""


class World:
    """The node under test in `node`, the seeder that has the whole model, and what the observer saw last."""

    def __init__(self, folder: Path, namespaces: tuple[str, str], clock: Path) -> None:
        self.disk = folder / "disk"
        self._inner, self._outer = namespaces
        self._shift = folder / "shift"
        self._shift.write_bytes(bytes(8))
        preload = {"LD_PRELOAD": str(clock), "CHAOS_CLOCK": str(self._shift)}
        # Only what the node writes lies on the small disk.
        self.node = Daemon(folder / "node", self._inner, preload)
        self.node.folder.mkdir()
        self.node.data.symlink_to(self.disk)
        self.seeder = Daemon(folder / "seeder", self._outer)
        self.seen: dict[str, Any] = {}
        self.longest_overdue = 0.0
        self._observer: subprocess.Popen[str] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the world lets the node do what it is told."""
        return not (self.is_full or self.is_cut or self.shift)

    # The disk.

    @property
    def _filler(self) -> Path:
        return self.disk / "filler"

    @property
    def is_full(self) -> bool:
        return self._filler.exists()

    def fill_disk(self) -> None:
        """Leave no byte of the disk free."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (2**20, 2**12):
                with suppress(OSError):
                    while True:
                        filler.write(bytes(size))

    def free_disk(self) -> None:
        self._filler.unlink(missing_ok=True)

    # The network.

    is_cut = False

    def cut(self) -> None:
        self._link("down")
        self.is_cut = True

    def mend(self) -> None:
        self._link("up")
        self.is_cut = False

    def _link(self, state: str) -> None:
        _ip("-n", self._outer, "link", "set", "chaos", state)

    # The clock.

    @property
    def shift(self) -> int:
        (seconds,) = struct.unpack("q", self._shift.read_bytes())
        return int(seconds)

    @shift.setter
    def shift(self, seconds: int) -> None:
        # In place: the running node has this file mapped.
        with self._shift.open("r+b") as file:
            file.write(struct.pack("q", seconds))

    # The others.

    def digest_of(self, layers: str) -> str:
        """The BLAKE3 of a slice as it is when it is cut straight out of the model."""
        with tempfile.NamedTemporaryFile(dir=self._model.parent, suffix=".gguf") as file:
            cut(self._model, LayerRange.parse(layers), Path(file.name), self._cid)
            return blake3(Path(file.name).read_bytes()).hexdigest()

    def begin(self, model: Path, manifest: Manifest) -> None:
        """Start the seeder and the observer."""
        self._model, self._cid = model, manifest.cid
        self.seeder.configure(
            slices=[{"model": str(model), "layers": "0..1"}],
            network={"listen": f"{SEEDER}:{PORT}", "mdns": False},
            limits={"contribution": "off"},
        )
        self.seeder.start()
        self.seeder.until_ready()
        command = ["ip", "netns", "exec", self._outer, sys.executable, "-m", "tests.chaos.observer"]
        command += [f"{OBSERVER}:{PORT}", f"{SEEDER}:{PORT}", manifest.cid, self.node.peer]
        root = Path(__file__).parents[2]
        self._observer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._observer is not None
        assert self._observer.stdout is not None
        for line in self._observer.stdout:
            self.seen = json.loads(line)
            self.longest_overdue = max([self.longest_overdue, *self.seen["overdue"].values()])

    def end(self) -> None:
        for daemon in (self.node, self.seeder):
            daemon.kill()
        if self._observer is not None:
            self._observer.kill()
            self._observer.wait()

    @property
    def is_observed(self) -> bool:
        return self._observer is not None and self._observer.poll() is None

    def sent(self) -> int:
        """Bytes of models that the seeder gave out."""
        return int(self.seeder.status()["chunks"]["bytes_sent"])


@contextmanager
def world(folder: Path) -> Iterator[tuple[World, Manifest]]:
    """A world with its seeder and observer running, and the node not yet; and the model that there is to serve."""
    clock = folder / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(clock), str(CLOCK), "-ldl"], check=True)
    names = f"chaos-{os.getpid()}-node", f"chaos-{os.getpid()}-rest"
    # Under another name, so that no node takes it out of its own installation.
    data = embedded_model().read_bytes().replace(b"Smollm2 135M", b"Smollm2 136M", 1)
    model = folder / "smollm2.gguf"
    model.write_bytes(data)
    manifest = manifest_of(model)
    with ExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        _ip(
            "link",
            "add",
            "chaos",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            "chaos",
            "netns",
            names[1],
        )
        for name, addresses in zip(names, ((NODE,), (SEEDER, OBSERVER)), strict=True):
            for address in addresses:
                _ip("-n", name, "address", "add", f"{address}/24", "dev", "chaos")
            for device in ("chaos", "lo"):
                _ip("-n", name, "link", "set", device, "up")
        (folder / "disk").mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder / "disk")], check=True
        )
        stack.callback(subprocess.run, ["umount", "--lazy", str(folder / "disk")], check=True)
        made = World(folder, names, clock)
        stack.callback(made.end)
        made.begin(model, manifest)
        yield made, manifest


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
