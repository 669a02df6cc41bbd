"""`intelnav-node` as a process: what it refuses, and how it leaves."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from intelnav.domain.slice import LayerRange
from intelnav.store.cut import cut
from intelnav.store.manifest import manifest_of
from tests.models import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", "llama", blocks=6)


def node(folder: Path, **settings: object) -> "subprocess.Popen[str]":
    """A node with these settings; its data lies in `folder`."""
    config = folder / "node.yaml"
    config.write_text(
        yaml.safe_dump({"data_dir": str(folder / "data"), "network": {"listen": None}, **settings})
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("INTELNAV_")}
    command = [sys.executable, "-m", "intelnav.start", "--config", str(config)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def refusal(process: "subprocess.Popen[str]") -> str:
    """What a node says that does not start."""
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback" not in said
    return said


@contextmanager
def running(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """The node once its log says that it is up."""
    assert process.stderr is not None
    try:
        assert any(" is up" in line for line in process.stderr)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("section", "key"),
    [("slices", r"slices\[0\]\.layers = 4\.\.9"), ("entry", r"entry\[0\]\.layers = 0\.\.9")],
)
def test_layers_that_the_model_does_not_have_are_refused_by_key(
    tmp_path: Path, model: Path, section: str, key: str
) -> None:
    layers = "4..9" if section == "slices" else "0..9"
    settings: dict[str, object] = {section: [{"model": str(model), "layers": layers}]}
    said = refusal(node(tmp_path, network={"listen": "127.0.0.1:0"}, **settings))
    assert re.search(key + r".*choose a range within 0\.\.6", said), said


def test_a_slice_gives_just_its_own_layers(tmp_path: Path, model: Path) -> None:
    part = tmp_path / "part.gguf"
    cut(model, LayerRange(2, 5), part, manifest_of(model).cid)
    said = refusal(
        node(tmp_path, slices=[{"model": str(part), "layers": "2..4"}], network={"listen": "127.0.0.1:0"})
    )
    assert "is a slice, with just layers 2..5; write 2..5" in said


def test_a_port_that_is_taken_is_refused_by_key(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refusal(node(tmp_path, network={"listen": address}))
    assert f"network.listen: {address}" in said


def test_a_key_that_others_may_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "peer.key").write_bytes(bytes(32))
    (tmp_path / "data" / "peer.key").chmod(0o644)
    assert "chmod 600" in refusal(node(tmp_path))


def test_a_second_node_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with running(node(tmp_path)):
        assert "in use by another node" in refusal(node(tmp_path))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_node_leaves_when_told_to_and_comes_back(tmp_path: Path, model: Path, sent: signal.Signals) -> None:
    settings: dict[str, object] = {"entry": [{"model": str(model), "layers": "0..6", "name": "tiny"}]}
    for _ in range(2):
        with running(node(tmp_path, **settings)) as process:
            transport = httpx.HTTPTransport(uds=str(tmp_path / "data" / "control.sock"))
            with httpx.Client(transport=transport, base_url="http://node") as client:
                assert client.get("/status").json()["entry"][0]["name"] == "tiny"
            process.send_signal(sent)
            process.communicate(timeout=15)
            assert process.returncode == 0
    assert not (tmp_path / "data" / "control.sock").exists()


def test_the_control_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    with running(node(tmp_path)):
        assert (tmp_path / "data" / "control.sock").stat().st_mode & 0o777 == 0o600
