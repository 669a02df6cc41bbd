"""Events, one after the other, on a real node; and what must hold whatever happens."""

import time
from dataclasses import dataclass, field
from signal import SIGHUP, SIGKILL
from typing import Any

import psutil
from blake3 import blake3

from intelnav.domain.slice import LayerRange
from intelnav.store.folder import Folder
from intelnav.store.manifest import Manifest, needed
from tests.chaos.events import POOL, Event, Kind, events
from tests.chaos.world import NODE, PORT, SEEDER, World
from tests.waiting import until

# A failed slice waits for a minute at most, an advert that nobody kept for 15 s, and then there is work to do.
CONVERGE_SECONDS = 120.0
# A slice may be announced for so long after it is gone: the withdrawal has to be looked up, too.
OVERDUE_SECONDS = 10.0
# What a kill, a cut or a cancelled fetch may lose: what was under way of each source's run.
UNFINISHED_BYTES = 20_000_000


@dataclass
class Tally:
    """What happened, and what it took: seconds until all was as the file says, and bytes that came over the network."""

    counts: dict[Kind, int] = field(default_factory=dict)
    settled: list[float] = field(default_factory=list)
    fetched: int = 0
    allowed: int = 0


class Run:
    """One node through its events."""

    def __init__(self, world: World, manifest: Manifest) -> None:
        self._world = world
        self._node = world.node
        self._manifest = manifest
        self._folder = Folder(self._node.data / "store")
        self._wanted: tuple[str, ...] = ()
        self._sessions = 8
        # The text of the file if the last edit made it a bad one.
        self._bad = False
        # What was wanted at the last check as well.
        self._before: tuple[str, ...] = ()
        self._complete: set[str] = set()
        self._digests = {layers: world.digest_of(layers) for layers in POOL}
        self._spoilt: set[str] = set()
        self.tally = Tally()

    def go(self, seed: int, count: int) -> Tally:
        """All events, and then the world is given back for good."""
        self._write()
        self._node.start()
        until(lambda: self._node.get("/health") is not None)
        for number, event in enumerate(events(seed, count)):
            try:
                self.tally.counts[event.kind] = self.tally.counts.get(event.kind, 0) + 1
                getattr(self, event.kind.replace(" ", "_"))(event)
                self._check()
                time.sleep(event.pause)
            except AssertionError as error:
                raise AssertionError(
                    f"seed {seed}, event {number}, {event}: {error}\n{self._node.log[-6000:]}"
                ) from error
        self.settle(Event("settle"))
        tally = self.tally
        assert tally.fetched <= tally.allowed, (
            f"seed {seed}: {tally.fetched} bytes fetched, {tally.allowed} expected"
        )
        return tally

    # The events; each has the name of its kind.

    def edit(self, event: Event) -> None:
        self._wanted, self._sessions, self._bad = event.layers, event.sessions, False
        self._write()

    def bad_edit(self, event: Event) -> None:
        # A node that starts on a bad file ends, and says why.
        until(lambda: self._node.get("/health") is not None)
        self._bad = True
        (self._node.folder / "node.yaml").write_text(event.text)

    def hang_up(self, _: Event) -> None:
        # A process that does not listen yet would die of it.
        if self._node.get("/health") is not None:
            assert self._node.process is not None
            self._node.process.send_signal(SIGHUP)

    def kill_worker(self, event: Event) -> None:
        workers = self._workers()
        if workers:
            workers[int(event.pick * len(workers))].kill()

    def corrupt(self, event: Event) -> None:
        """Change a byte, cut off half, or remove the file."""
        there = sorted(path for _, _, path in self._folder.slices())
        if not there:
            return
        path = there[int(event.pick * len(there))]
        self._spoilt.add(path.name)
        self.tally.allowed += path.stat().st_size
        match int(event.pick * 997) % 3:
            case 0:
                with path.open("r+b") as file:
                    file.seek(path.stat().st_size * 2 // 3)
                    byte = file.read(1)
                    file.seek(-1, 1)
                    file.write(bytes([byte[0] ^ 1]))
            case 1:
                # A new file: the worker that has the old one mapped would be killed for it, which is another event.
                half = path.read_bytes()[: path.stat().st_size // 2]
                path.unlink()
                try:
                    path.write_bytes(half)
                except OSError:
                    path.unlink(missing_ok=True)
            case _:
                path.unlink()

    def fill_disk(self, _: Event) -> None:
        self._world.fill_disk()

    def free_disk(self, _: Event) -> None:
        self._world.free_disk()

    def cut(self, _: Event) -> None:
        self._world.cut()
        self.tally.allowed += UNFINISHED_BYTES

    def mend(self, _: Event) -> None:
        self._world.mend()

    def clock(self, event: Event) -> None:
        self._world.shift = event.shift

    def kill_node(self, _: Event) -> None:
        assert self._node.process is not None
        workers = self._workers()
        self._node.process.send_signal(SIGKILL)
        self._node.process.wait()
        alive = psutil.wait_procs(workers, timeout=20)[1]
        assert not alive, f"workers outlived their node: {alive}"
        self.tally.allowed += UNFINISHED_BYTES
        # A node does not start on a bad file, and says so; whoever starts it mends the file first.
        if self._bad:
            self._bad = False
            self._write()
        self._node.start()

    def leave(self, event: Event) -> None:
        """Give one slice up until the file is next loaded."""
        report = self._node.get("/status")
        held = [part["layers"] for part in report["slices"]] if report else []
        if held:
            layers = held[int(event.pick * len(held))]
            with self._node.client() as client:
                client.post("/leave", json={"model": self._manifest.cid, "layers": layers})

    def settle(self, _: Event) -> None:
        """Give the world back, and wait until all is as the file says."""
        world = self._world
        world.free_disk()
        world.mend()
        world.shift = 0
        self._bad = False
        self._write()
        began = time.monotonic()
        # What was left by hand comes back with the next load of the file.
        until(lambda: self._node.get("/health") is not None)
        self.hang_up(Event("hang up"))
        try:
            until(self._is_as_the_file_says, CONVERGE_SECONDS)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; {self._damage()}; wanted {self._wanted}; {self._node.get('/status')}; {world.seen}"
            ) from None
        self.tally.settled.append(time.monotonic() - began)
        # What is damaged and not wanted stays so until it is.
        self._spoilt -= {f"{layers.replace('..', '-')}.gguf" for layers in self._wanted}
        self.tally.fetched = world.sent()

    # What must hold.

    def _is_as_the_file_says(self) -> bool:
        assert self._node.process is not None
        assert self._node.process.poll() is None, "the node ended"
        status = self._node.get("/status")
        if status is None or not status["config"]["valid"]:
            return False
        parts = {part["layers"]: part for part in status["slices"]}
        return (
            set(parts) == set(self._wanted)
            and all(part["state"] == "ready" for part in parts.values())
            and all(part["sessions"] == self._sessions for part in parts.values())
            and self._world.seen.get("announced") == sorted(self._wanted)
            and not self._damage()
        )

    def _check(self) -> None:
        """No slice that is not served is announced for long; no slice that is wanted loses its bytes."""
        world = self._world
        assert world.is_observed, "the observer ended"
        assert world.longest_overdue < OVERDUE_SECONDS, f"announced, and not served: {world.seen}"
        assert self._node.process is not None
        assert self._node.process.poll() is None, "the node ended"
        there = {path.name for _, _, path in self._folder.slices()}
        lost = self._complete - there - self._spoilt
        for name in lost:
            layers = name.removesuffix(".gguf").replace("-", "..")
            # Bytes that nobody wants may go when others need the room.
            stayed = layers in self._wanted and layers in self._before
            assert not stayed, f"the bytes of {layers} are gone"
            self.tally.allowed += self._bytes_of(layers)
        for name in there - self._complete:
            self.tally.allowed += self._bytes_of(name.removesuffix(".gguf").replace("-", ".."))
        self._complete, self._before = there, self._wanted

    def _damage(self) -> str:
        """What is wrong with the files of wanted slices; empty if nothing is."""
        for _, layers, path in self._folder.slices():
            if str(layers) in self._wanted:
                digest = blake3(path.read_bytes()).hexdigest()
                if self._digests[str(layers)] != digest:
                    return f"{path.name} is not what it was"
        return ""

    def _bytes_of(self, layers: str) -> int:
        return sum(blob.size for blob in needed(self._manifest, LayerRange.parse(layers)))

    def _workers(self) -> list[psutil.Process]:
        assert self._node.process is not None
        try:
            return psutil.Process(self._node.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _write(self) -> None:
        """Write the file in one step, as editors do."""
        self._node.configure(
            slices=[{"model": self._manifest.cid, "layers": layers} for layers in self._wanted],
            network={"listen": f"{NODE}:{PORT}", "bootstrap": [f"{SEEDER}:{PORT}"], "mdns": False},
            limits={"contribution": "off", "sessions": self._sessions, "grace_seconds": 2},
        )


def report(tally: Tally) -> dict[str, Any]:
    """Its figures."""
    settled = sorted(tally.settled)
    return {
        "events": sum(tally.counts.values()),
        "counts": tally.counts,
        "settled": len(settled),
        "median_seconds": round(settled[len(settled) // 2], 2),
        "longest_seconds": round(settled[-1], 2),
        "fetched_bytes": tally.fetched,
        "allowed_bytes": tally.allowed,
    }


def chaos(world: World, manifest: Manifest, seed: int, count: int) -> Tally:
    """A whole run; raises AssertionError with the seed and the event at which something did not hold."""
    return Run(world, manifest).go(seed, count)
