"""What somebody sees who reads every byte between the nodes."""

import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from intelnav.domain.hidden import Dtype
from intelnav.engine import tensor
from intelnav.wire.codec import encode
from intelnav.wire.messages import ForwardHidden
from tests.sandbox import Sandbox, sandbox
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)

PROMPT = "My secret plan is to travel to Reykjavik on the ninth of November and"


@dataclass
class Tap:
    """A TCP proxy in front of a node; `seen` holds every byte in either direction."""

    target: tuple[str, int]
    seen: list[bytes] = field(default_factory=list)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                inner, _ = self.listener.accept()
            except OSError:
                return
            outer = socket.create_connection(self.target)
            for source, sink in ((inner, outer), (outer, inner)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.seen.append(data)
                sink.sendall(data)
        except OSError:
            return
        finally:
            sink.close()


@contextmanager
def tapped_entry(swarm: Sandbox) -> Iterator[tuple[Sandbox, list[Tap]]]:
    """A second entry of the swarm that knows every peer by a tap's address only, and tells the peers the same."""
    members = swarm.swarm.members
    config = yaml.safe_load(members[0].config.read_text())
    taps = []
    for peer in config["network"]["peers"]:
        host, port = peer["address"].split(":")
        taps.append(Tap((host, int(port))))
        peer["address"] = taps[-1].address
        threading.Thread(target=taps[-1].run, daemon=True).start()
    entry = replace(members[0], name="tapped", folder=members[0].folder.with_name("tapped"))
    config["data_dir"] = "./tapped"
    entry.config.write_text(yaml.safe_dump(config))
    with (
        entry.log.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "intelnav.node", "--config", entry.config], stderr=log
        ) as process,
    ):
        tapped = Sandbox(replace(swarm.swarm, members=(replace(entry, pid=process.pid), *members[1:])))
        try:
            _wait_ready(tapped, process, entry.log)
            yield tapped, taps
        finally:
            process.terminate()
            for tap in taps:
                tap.listener.close()


def _wait_ready(swarm: Sandbox, process: "subprocess.Popen[bytes]", log: Path) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with swarm.client() as client:
                return client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    until(is_ready, 60)


def compressed(data: bytes) -> float:
    return len(zlib.compress(data, 9)) / len(data)


def test_unencrypted_forwards_would_show_in_the_measure() -> None:
    rows = np.random.default_rng(0).standard_normal((64, 576)).astype(np.float32)
    forwards = [
        b"".join(encode(ForwardHidden(bytes(16), at, at, tensor.encode(row[None], Dtype.F32), None, 0)))
        for at, row in enumerate(rows)
    ]
    assert compressed(b"".join(forwards)) < 0.999


def test_the_wire_shows_neither_prompt_nor_text_nor_activations(tmp_path: Path) -> None:
    with sandbox(tmp_path / "s", dtype="f32") as swarm, tapped_entry(swarm) as (tapped, taps):
        reply = tapped.complete(PROMPT, max_tokens=64)
        wire = [b"".join(tap.seen) for tap in taps]
    assert len(reply.tokens) > 8
    for bytes_of_link in wire:
        # Each hop took 64 hidden states of 576 floats: the tap really sat on the path.
        assert len(bytes_of_link) > len(reply.tokens) * 576 * 4
        words = [*PROMPT.split(), *reply.text.split(), "forward_hidden", "payload", "session", "tokens"]
        assert [word for word in words if len(word) > 4 and word.encode() in bytes_of_link] == []
        # Activations, as floats of similar size, compress; what is on the wire does not.
        assert compressed(bytes_of_link) > 0.999
