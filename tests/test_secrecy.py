"""What somebody sees who reads every byte between the nodes."""

import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from intelnav.cli.swarm_nodes import stop
from intelnav.domain.hidden import Dtype
from intelnav.engine import tensor
from intelnav.logs import FIELDS
from intelnav.wire.codec import encode
from intelnav.wire.messages import ForwardHidden
from tests.sandbox import Sandbox, sandbox
from tests.taps import Tap, tapped
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)

PROMPT = "My secret plan is to travel to Reykjavik on the ninth of November and"


@contextmanager
def tapped_entry(swarm: Sandbox) -> Iterator[tuple[Sandbox, list[Tap]]]:
    """A second entry of the swarm that knows every peer by a tap's address only, and tells the peers the same."""
    members = swarm.swarm.members
    config = yaml.safe_load(members[0].config.read_text())
    stack = ExitStack()
    taps = []
    peers = []
    for member in members[1:]:
        assert member.listen is not None
        host, port = member.listen.split(":")
        taps.append(stack.enter_context(tapped(host, int(port))))
        offer = {"model": config["entry"][0]["model"], "layers": member.layers}
        peers.append({"id": member.peer, "address": taps[-1].address, "slices": [offer]})
    # What the config says of a peer counts more than its advert in the DHT.
    config["network"]["peers"] = peers
    entry = replace(members[0], name="tapped", folder=members[0].folder.with_name("tapped"))
    config["data_dir"] = "./tapped"
    entry.config.write_text(yaml.safe_dump(config))
    with (
        stack,
        entry.log.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "intelnav.node", "--config", entry.config], stderr=log
        ) as process,
    ):
        watched = Sandbox(replace(swarm.swarm, members=(replace(entry, pid=process.pid), *members[1:])))
        try:
            _wait_ready(watched, process, entry.log)
            yield watched, taps
        finally:
            process.terminate()


def _wait_ready(swarm: Sandbox, process: "subprocess.Popen[bytes]", log: Path) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with swarm.client() as client:
                return client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    until(is_ready, 60)


@contextmanager
def talkative(swarm: Sandbox) -> Iterator[tuple[Sandbox, list[Path]]]:
    """The nodes of a swarm anew, with logs of all that they could tell."""
    stop(swarm.swarm)
    logs, members = [], []
    with ExitStack() as stack:
        for member in swarm.swarm.members:
            config = yaml.safe_load(member.config.read_text())
            member.config.write_text(yaml.safe_dump(config | {"log": {"level": "debug", "format": "json"}}))
            logs.append(member.folder / "debug.log")
            log = stack.enter_context(logs[-1].open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "intelnav.node", "--config", member.config], stderr=log
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            members.append(replace(member, pid=process.pid))
            _wait_ready(Sandbox(replace(swarm.swarm, members=(members[-1],))), process, logs[-1])
        yield Sandbox(replace(swarm.swarm, members=tuple(members))), logs


def test_no_log_shows_prompt_text_tokens_or_activations(tmp_path: Path) -> None:
    with sandbox(tmp_path / "s", cuts="10,20", dtype="f32") as quiet, talkative(quiet) as (swarm, logs):
        until(lambda: _answers(swarm), 30)
        reply = swarm.complete(PROMPT, max_tokens=64)
        # What goes wrong is told of as well: an answer that is broken off, one that cannot begin, and a dead worker.
        events = swarm.events(PROMPT, max_tokens=512)
        next(events)
        events.close()
        with swarm.client() as client:
            assert client.post("/v1/completions", json=swarm.body(PROMPT * 400)).status_code == 400
            assert (
                client.post("/v1/completions", json=swarm.body(PROMPT, temperature=PROMPT)).status_code == 400
            )
        broken = swarm.events(PROMPT, max_tokens=512)
        next(broken)
        for worker in swarm.workers(swarm.swarm.members[-1]):
            worker.kill()
        with pytest.raises(KeyError):
            # An error has no choices.
            for event in broken:
                event["choices"]
        said = [log.read_text() for log in logs]
    assert len(reply.tokens) > 8
    secrets = [word for word in PROMPT.split() if len(word) > 5]
    secrets += [reply.text[at : at + 12] for at in range(len(reply.text) - 11)]
    kinds = set()
    for text in said:
        lines = [json.loads(line) for line in text.splitlines()]
        kinds |= {line["logger"] for line in lines if line["level"] == "debug"}
        shown = "\n".join(str(value) for line in lines for value in line.values())
        assert [secret for secret in secrets if secret in shown] == []
        for line in lines:
            assert line.keys() <= {"time", "level", "logger", "message", *FIELDS}
            # Neither a list of token ids nor of floats, nor bytes of a matrix.
            assert not re.search(r"(-?\d+(\.\d+)?[,;\s]+){4}", line["message"]), line
            assert not re.search(r"[0-9a-f]{33,}|(\\x[0-9a-f]{2}){4}|[A-Za-z0-9+/]{60,}", line["message"]), (
                line
            )
            assert len(line["message"]) < 400, line
    # The logs were those of nodes that tell of sessions and rings.
    assert {"intelnav.chain.hop", "intelnav.chain.ring"} <= kinds


def _answers(swarm: Sandbox) -> bool:
    with swarm.client() as client:
        return client.post("/v1/completions", json=swarm.body("Hello", max_tokens=1)).status_code == 200


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
    with sandbox(tmp_path / "s", dtype="f32") as swarm, tapped_entry(swarm) as (watched, taps):
        reply = watched.complete(PROMPT, max_tokens=64)
        wire = [b"".join(tap.seen) for tap in taps]
    assert len(reply.tokens) > 8
    for bytes_of_link in wire:
        # Each hop took 64 hidden states of 576 floats: the tap really sat on the path.
        assert len(bytes_of_link) > len(reply.tokens) * 576 * 4
        words = [*PROMPT.split(), *reply.text.split(), "forward_hidden", "payload", "session", "tokens"]
        assert [word for word in words if len(word) > 4 and word.encode() in bytes_of_link] == []
        # Activations, as floats of similar size, compress; what is on the wire does not.
        assert compressed(bytes_of_link) > 0.999
