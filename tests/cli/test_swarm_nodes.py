import fcntl
import socket
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from intelnav.cli import swarm_nodes
from intelnav.cli.swarm_files import Member, Swarm, locked
from intelnav.cli.swarm_nodes import Plan, layer_ranges, start, stop
from intelnav.config import load
from intelnav.domain.errors import ConfigError, IntelNavError
from intelnav.store.cut import cut
from tests.models import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of six layers."""
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", blocks=6)


def running_below(root: Path) -> list[psutil.Process]:
    """Every node and worker of a swarm in `root`, recorded or not."""
    members = (Member(name, root / name, 0, "", "", None) for name in ("entry", "peer-1", "peer-2"))
    return [process for member in members for process in member.processes()]


@pytest.mark.parametrize(
    ("cuts", "nodes", "ranges"),
    [
        ((), 2, "0..3 3..6"),
        ((), 4, "0..2 2..3 3..4 4..6"),
        ((), 6, "0..1 1..2 2..3 3..4 4..5 5..6"),
        ((1, 5), 4, "0..1 1..5 5..6"),
    ],
)
def test_each_layer_has_one_node(model: Path, cuts: tuple[int, ...], nodes: int, ranges: str) -> None:
    assert " ".join(map(str, layer_ranges(model, cuts, nodes))) == ranges


@pytest.mark.parametrize(
    ("cuts", "nodes", "reason"),
    [
        ((), 7, "--nodes 7: tiny.gguf has 6 layers; ask for as many at most"),
        ((0, 3), 0, "--cuts 0,3: write rising numbers from 1 to 5"),
        ((3, 6), 0, "--cuts 3,6: write rising numbers from 1 to 5"),
        ((3, 3), 0, "--cuts 3,3: write rising"),
        ((4, 2), 0, "--cuts 4,2: write rising"),
        ((-1,), 0, "--cuts -1: write rising"),
    ],
)
def test_cuts_that_cannot_be_are_refused(model: Path, cuts: tuple[int, ...], nodes: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        layer_ranges(model, cuts, nodes)
    assert reason in str(caught.value)


def test_a_slice_is_no_model_to_cut(model: Path, tmp_path: Path) -> None:
    (whole,) = layer_ranges(model, (), 1)
    part = tmp_path / "part.gguf"
    cut(model, type(whole)(0, 3), part, "b3-" + "a" * 52)
    with pytest.raises(ConfigError, match=r"holds layers 0..3 of 6: name a whole model"):
        layer_ranges(part, (), 2)


def test_the_configs_tell_each_node_its_layers_and_one_address_to_start_from(
    model: Path, tmp_path: Path
) -> None:
    plan = Plan(model, layer_ranges(model, (2, 4), 0), "i8", "entry", 3)
    entry, first, second = swarm_nodes._configured(tmp_path, plan)
    config = load(entry.config, {})
    assert (config.slices, config.network.listen, config.network.dtype) == ((), None, "i8")
    assert (str(config.entry[0].layers), config.entry[0].head) == ("0..2", "entry")
    assert config.backend.threads == 3
    assert config.data_dir == entry.folder
    start = load(first.config, {}).network.listen
    assert config.network.bootstrap == (start,)
    for member, bootstrap in ((first, ()), (second, (start,))):
        host = load(member.config, {})
        assert host.network.bootstrap == bootstrap
        assert host.network.peers == config.network.peers == ()
        assert [str(held.layers) for held in host.slices] == [member.layers]
        assert host.entry == ()
    assert (first.layers, second.layers) == ("2..4", "4..6")


def test_free_ports_are_not_those_that_the_kernel_gives_to_clients() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = swarm_nodes.free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        assert not low <= port <= high
        with closing(socket.socket()) as listener:
            listener.bind(("127.0.0.1", port))


def test_a_root_whose_sockets_would_have_too_long_a_path_is_refused(model: Path, tmp_path: Path) -> None:
    root = tmp_path / ("x" * 100)
    with locked(root), pytest.raises(ConfigError, match="write a shorter path"):
        start(root, Plan(model, layer_ranges(model, (), 2)), lambda _: None)


def test_a_node_that_ends_at_its_start_takes_the_others_down(model: Path, tmp_path: Path) -> None:
    reports: list[str] = []
    (tmp_path / "peer-1").mkdir()
    with (tmp_path / "peer-1/lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(IntelNavError, match=r"(?s)peer-1 ended at its start:\n.*in use by another node"):
            start(tmp_path, Plan(model, layer_ranges(model, (), 3), threads=1), reports.append)
    assert reports[0].startswith("0 of 3 nodes are ready, loading entry (0..2)")
    assert Swarm.load(tmp_path) is None
    assert list(tmp_path.glob("*/control.sock")) == []
    assert running_below(tmp_path) == []


def test_a_slice_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    odd = tiny_model(tmp_path / "odd.gguf", blocks=2, extra={"attention.head_count": 3})
    with pytest.raises(IntelNavError, match=r"cannot load layers|ended at its start"):
        start(tmp_path, Plan(odd, layer_ranges(odd, (), 2), threads=1), lambda _: None)
    assert Swarm.load(tmp_path) is None
    assert running_below(tmp_path) == []


def test_stopping_what_has_stopped_is_no_error(model: Path, tmp_path: Path) -> None:
    swarm = Swarm(
        tmp_path, "m", tuple(swarm_nodes._configured(tmp_path, Plan(model, layer_ranges(model, (), 2))))
    )
    swarm.save()
    assert stop(swarm) == 0
    assert Swarm.load(tmp_path) is None
    assert stop(swarm) == 0


def test_nodes_run_what_is_installed_wherever_they_are_started(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "intelnav").mkdir()
    (tmp_path / "intelnav/__init__.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    swarm = start(tmp_path / "root", Plan(model, layer_ranges(model, (), 2), threads=1), print)
    assert stop(swarm) > 0
