"""Slices that travel: nodes with empty stores fetch just what they need, from each other or out of a remote GGUF."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil
import pytest
import yaml

from intelnav.cli.swarm_nodes import free_ports
from intelnav.domain.identity import Identity
from intelnav.domain.slice import LayerRange
from intelnav.store.embedded import embedded_model
from intelnav.store.gguf_reader import read_header
from intelnav.store.manifest import Manifest, manifest_of, needed
from tests.daemons import Daemon, daemons
from tests.hub import head, serving
from tests.reference import PlainLlama
from tests.taps import Tap, tapped

pytestmark = pytest.mark.timeout(240)

PROMPT = "Once upon a time, in a village by the sea, there lived"
RANGES = ("0..8", "8..15", "15..22", "22..30")
# Of the bundles of a slice, on the wire and on disk.
OVERHEAD = 1.05


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model under another name, so that no node takes it out of its own installation."""
    data = embedded_model().read_bytes()
    named = data.replace(b"Smollm2 135M", b"Smollm2 136M", 1)
    assert named != data
    path = tmp_path_factory.mktemp("model") / "smollm2.gguf"
    path.write_bytes(named)
    return path


@pytest.fixture(scope="module")
def manifest(model: Path) -> Manifest:
    return manifest_of(model)


def bundles(manifest: Manifest, layers: str) -> int:
    return sum(blob.size for blob in needed(manifest, LayerRange.parse(layers)))


def on_disk(folder: Path) -> int:
    """Bytes that the disk gives to all files below."""
    return sum(512 * path.lstat().st_blocks for path in folder.rglob("*") if path.is_file())


@contextmanager
def seeded(
    folder: Path, model: Path, manifest: Manifest, *names: str
) -> Iterator[tuple[list[Daemon], list[Tap]]]:
    """A node that has the whole model and serves its tail, and others with empty stores that know it by a tap each."""
    with ExitStack() as stack:
        seeder, *others = stack.enter_context(daemons(folder, "seeder", *names))
        link, chunks, *ports = free_ports(2 + len(others))
        seeder.configure(
            slices=[{"model": str(model), "layers": RANGES[3]}],
            network={"listen": f"127.0.0.1:{link}"},
            store={"chunks": f"127.0.0.1:{chunks}"},
        )
        seeder.start()
        seeder.until_ready()
        taps = [stack.enter_context(tapped("127.0.0.1", chunks)) for _ in others]
        known = [peer_of(seeder, link, manifest, RANGES[3])]
        for daemon, layers, port, tap in zip(others, RANGES[1:3], ports, taps, strict=False):
            daemon.configure(
                slices=[{"model": manifest.cid, "layers": layers}],
                network={
                    "listen": f"127.0.0.1:{port}",
                    "peers": [peer_of(seeder, link, manifest, RANGES[3], tap)],
                },
                store={"chunks": "none"},
            )
            known.append(peer_of(daemon, port, manifest, layers))
        if len(others) > len(RANGES[1:3]):
            others[-1].configure(
                entry=[{"model": manifest.cid, "layers": RANGES[0], "name": "smollm2"}],
                network={
                    "listen": "none",
                    "dtype": "f32",
                    "peers": [peer_of(seeder, link, manifest, RANGES[3], taps[-1]), *known[1:]],
                },
            )
        yield [seeder, *others], taps


def peer_of(
    daemon: Daemon, port: int, manifest: Manifest, layers: str, tap: Tap | None = None
) -> dict[str, object]:
    """A node as the config of another names it."""
    peer: dict[str, object] = {
        "id": daemon.peer,
        "address": f"127.0.0.1:{port}",
        "slices": [{"model": manifest.cid, "layers": layers}],
    }
    return peer if tap is None else peer | {"chunks": tap.address}


def test_each_node_fetches_just_its_slice_and_the_answer_is_that_of_the_whole_model(
    tmp_path: Path, model: Path, manifest: Manifest
) -> None:
    with seeded(tmp_path, model, manifest, "b", "c", "entry") as (nodes, taps):
        for daemon in nodes[1:]:
            daemon.start()
        for daemon, layers, tap in zip(nodes[1:], (*RANGES[1:3], RANGES[0]), taps, strict=True):
            status = daemon.until_ready()
            (part,) = status["slices"] or status["entry"]
            wanted = bundles(manifest, layers)
            assert part["progress"]["done_bytes"] == wanted
            assert part["progress"]["dropped"] == []
            assert wanted < sum(map(len, tap.seen)) <= OVERHEAD * wanted
            assert wanted < on_disk(daemon.data / "store") <= OVERHEAD * wanted
        answer = nodes[-1].ask(PROMPT, "smollm2", 48)
        assert [hop["layers"] for hop in answer["intelnav"]["chain"]] == list(RANGES)
        expected = PlainLlama(model, 512).greedy(PROMPT, 48)
    assert answer["intelnav"]["tokens"] == expected


def test_what_was_fetched_is_not_fetched_again(tmp_path: Path, model: Path, manifest: Manifest) -> None:
    with seeded(tmp_path, model, manifest, "b") as ((seeder, b), (tap,)):
        b.start()
        b.until_ready()
        assert b.stop() == 0
        seeder.stop()
        before = len(tap.seen)
        b.start()
        b.until_ready()
        assert len(tap.seen) == before
        # It also keeps what it has when its worker dies.
        assert b.process is not None
        (worker,) = psutil.Process(b.process.pid).children()
        worker.kill()
        b.until(lambda status: status["slices"][0]["failures"] == 1)
        b.until_ready()
        assert len(tap.seen) == before


def test_a_slice_is_read_straight_out_of_a_remote_gguf(
    tmp_path: Path, model: Path, manifest: Manifest
) -> None:
    data, sent = model.read_bytes(), []

    def ranged(handler: BaseHTTPRequestHandler) -> None:
        start, end = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        told = f"bytes {start}-{end}/{len(data)}"
        head(handler, 206, Content_Length=end + 1 - start, Content_Range=told)
        sent.append(end + 1 - start)
        handler.wfile.write(data[start : end + 1])

    with serving() as hub, daemons(tmp_path, "host") as (host,):
        hub.behaviours["/smollm2.gguf"] = ranged
        # What `curl http://HOST/v1/models/CID/manifest` gives, put beside the file by whoever publishes it.
        hub.files["/smollm2.gguf.manifest.json"] = manifest.to_bytes()
        host.configure(
            slices=[{"model": hub.url("/smollm2.gguf"), "layers": RANGES[1]}],
            network={"listen": "127.0.0.1:0"},
        )
        host.start()
        (part,) = host.until_ready()["slices"]
    assert part["cid"] == manifest.cid
    header = min(tensor.offset for tensor in read_header(model).tensors)
    wanted = bundles(manifest, RANGES[1])
    assert wanted < sum(sent) <= OVERHEAD * wanted + header


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of as many bytes as is asked for, in place of the one before, with what is on it."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    place = tmp_path / "disk"
    place.mkdir()

    def sized(size: int) -> Path:
        options = f"size={size}" + (",remount" if place.is_mount() else "")
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
        return place

    try:
        yield sized
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_stops_one_slice_and_no_other(
    tmp_path: Path, model: Path, manifest: Manifest, small_disk: Callable[[int], Path]
) -> None:
    first, second = bundles(manifest, RANGES[1]), bundles(manifest, RANGES[2])
    room = 4_000_000
    host = Daemon(small_disk(first + room))
    with ExitStack() as stack:
        stack.callback(host.kill)
        held = [{"model": str(model), "layers": RANGES[1]}]
        network = {"listen": "127.0.0.1:0"}
        host.configure(slices=held, network=network)
        host.start()
        host.until_ready()
        host.stop()
        host.configure(slices=[*held, {"model": str(model), "layers": RANGES[2]}], network=network)
        host.start()
        status = host.until(lambda status: status["slices"][1]["state"] == "failed")
        assert "bytes do not fit" in status["slices"][1]["reason"]
        assert "free the disk" in status["slices"][1]["reason"]
        status = host.until(lambda status: status["slices"][0]["state"] == "ready")
        small_disk(first + second + room)
        host.until_ready()


def test_a_source_that_lies_is_named_and_the_slice_comes_from_the_honest_one(
    tmp_path: Path, model: Path, manifest: Manifest
) -> None:
    with seeded(tmp_path, model, manifest, "b") as ((_, b), (tap,)), serving() as liar:

        def flipped(handler: BaseHTTPRequestHandler) -> None:
            start, end = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
            told = f"bytes {start}-{end}/{1 << 40}"
            head(handler, 206, Content_Length=end + 1 - start, Content_Range=told)
            handler.wfile.write(bytes(end + 1 - start))

        for blob in needed(manifest, LayerRange.parse(RANGES[1])):
            liar.behaviours[f"/v1/blobs/{blob.cid}"] = flipped
        config = yaml.safe_load((b.folder / "node.yaml").read_text())
        config["network"]["peers"].append(
            {"id": str(Identity(bytes(32)).peer), "address": "127.0.0.1:1", "chunks": liar.address}
        )
        b.configure(**config)
        b.start()
        (part,) = b.until_ready()["slices"]
        progress = part["progress"]
        assert [dropped["source"] for dropped in progress["dropped"]] == [f"http://{liar.address}"]
        assert progress["sources"] == {f"http://{tap.address}": bundles(manifest, RANGES[1])}
