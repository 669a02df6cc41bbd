"""`intelnav doctor` on this machine: with what it finds in a home of its own, and beside a real node."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from intelnav.cli import doctor_node
from intelnav.cli.doctor_files import data_dir
from intelnav.cli.doctor_machine import clock, memory
from intelnav.config import NodeConfig
from intelnav.keyfile import load_or_create
from tests.cli.conftest import Cli
from tests.daemons import daemons
from tests.fakes.network import NEIGHBOURS
from tests.models import tiny_model

Json = dict[str, Any]

PEER = "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq"


def free_port() -> int:
    """A port with a free one above it; nobody else in this test takes either."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def checked(cli: Cli, config: str, *options: str, code: int = 0, **environ: str) -> dict[str, Json]:
    """What the doctor says of a config, by check. A node with it keeps to the folder `data` beside it."""
    file = cli.home / "node.yaml"
    file.write_text(f"data_dir: ./data\n{config}")
    result = cli("doctor", "--json", "--config", str(file), *options, **environ)
    assert result.returncode == code, result
    report = json.loads(result.stdout)
    assert report["ok"] == (code == 0)
    checks = {check["check"]: check for check in report["checks"]}
    assert len(checks) == len(report["checks"])
    for check in checks.values():
        assert check["found"]
        assert bool(check["fix"]) or check["verdict"] == "ok", check
    return checks


def verdicts(checks: dict[str, Json]) -> dict[str, str]:
    return {name: check["verdict"] for name, check in checks.items() if check["verdict"] != "ok"}


def test_a_fresh_machine_is_well_but_for_what_only_a_node_can_tell(cli: Cli) -> None:
    checks = checked(cli, "network: {listen: '127.0.0.1:0'}")
    assert verdicts(checks) | {"clock": "warn"} == {
        "node": "warn",
        "clock": "warn",
        "reachability": "warn",
        "DHT": "warn",
    }
    assert "llama-cpp-python 0." in checks["engine"]["found"]
    assert not (cli.home / "data").exists()


def test_people_see_marks_and_fixes(cli: Cli) -> None:
    (cli.home / "data").mkdir(mode=0o700)
    (cli.home / "data/peer.key").write_bytes(bytes(32))
    (cli.home / "data/peer.key").chmod(0o640)
    (cli.home / "node.yaml").write_text("data_dir: ./data\nnetwork: {listen: none}\n")
    result = cli("doctor", "--config", "node.yaml")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    key = cli.home / "data/peer.key"
    at = lines.index(f"FAIL peer.key: {key} has mode 0640")
    assert lines[at + 1] == f"     fix: chmod 600 {key}"
    assert "ok   network.listen: none" in lines
    assert lines[-1].endswith(" checks: 1 failed, 4 with a warning.") or "1 failed" in lines[-1]


def test_the_command_that_it_names_mends_the_key(cli: Cli) -> None:
    data = cli.home / "data"
    peer = load_or_create(data / "peer.key").peer
    (data / "peer.key").chmod(0o644)
    check = checked(cli, "network: {listen: none}", code=1)["peer.key"]
    assert (check["verdict"], check["fix"]) == ("fail", f"chmod 600 {data}/peer.key")
    assert os.system(check["fix"]) == 0
    check = checked(cli, "network: {listen: none}")["peer.key"]
    assert (check["verdict"], check["found"]) == ("ok", f"{peer}, mode 0600")
    (data / "peer.key").write_bytes(b"short")
    check = checked(cli, "network: {listen: none}", code=1)["peer.key"]
    assert "holds 5 bytes, not 32" in check["found"]


def test_a_wrong_config_is_told_and_what_depends_on_it_is_not_passed_over(cli: Cli) -> None:
    checks = checked(cli, "role: boss", code=1)
    assert checks["config"]["verdict"] == "fail"
    assert "role = 'boss': write 'host' or 'relay'" in checks["config"]["found"]
    assert checks["everything else"]["verdict"] == "warn"


def test_a_device_that_is_not_offered_is_told_with_what_is(cli: Cli) -> None:
    check = checked(cli, "backend: {device: rocm}\nnetwork: {listen: none}", code=1)["engine"]
    assert check["verdict"] == "fail"
    assert "GGML_HIP" in check["fix"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [("raise ImportError('no such symbol')", "no such symbol"), ("import os; os.abort()", "-6")],
)
def test_an_engine_that_cannot_be_loaded_is_told(cli: Cli, broken: str, said: str) -> None:
    (cli.home / "broken/llama_cpp").mkdir(parents=True)
    (cli.home / "broken/llama_cpp/__init__.py").write_text(broken)
    real = find_spec("llama_cpp")
    assert real is not None
    assert real.origin is not None
    (cli.home / "broken/llama_cpp/lib").symlink_to(Path(real.origin).parent / "lib")
    path = os.pathsep.join([str(cli.home / "broken"), cli.environ["PYTHONPATH"]])
    check = checked(cli, "network: {listen: none}", code=1, PYTHONPATH=path)["engine"]
    assert check["verdict"] == "fail"
    assert said in check["found"]
    assert "pip install" in check["fix"]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_another_program_holds_is_told(cli: Cli, kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        check = checked(cli, f"network: {{listen: '127.0.0.1:{port}'}}\nstore: {{chunks: none}}", code=1)
    word = "TCP" if kind == socket.SOCK_STREAM else "UDP"
    listen = check["network.listen"]
    assert (listen["verdict"], listen["found"]) == (
        "fail",
        f"{word} 127.0.0.1:{port} is held by another program",
    )


def test_an_address_of_another_machine_is_told(cli: Cli) -> None:
    check = checked(cli, "network: {listen: none}\napi: {listen: '192.0.2.1:8080'}", code=1)["api.listen"]
    assert (check["verdict"], check["fix"]) == ("fail", "write 0.0.0.0:8080")


def test_a_folder_of_another_user_or_open_to_others_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    assert data_dir(tmp_path).verdict == "ok"
    tmp_path.chmod(0o770)
    found = data_dir(tmp_path)
    assert (found.verdict, found.fix) == ("warn", f"chmod go-w {tmp_path}")
    tmp_path.chmod(0o700)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    found = data_dir(tmp_path)
    assert (found.verdict, found.fix.startswith(f"sudo chown -R {user + 1} {tmp_path}")) == ("fail", True)
    assert data_dir(tmp_path / "a/b").verdict == "ok"
    assert not (tmp_path / "a").exists()


def test_a_quota_that_the_disk_has_not_is_told(cli: Cli) -> None:
    check = checked(cli, "network: {listen: none}\nstore: {max_bytes: 900000 TB}")["disk"]
    assert (check["verdict"], check["fix"].startswith("write store.max_bytes: ")) == ("warn", True)


def test_a_damaged_store_is_told(cli: Cli) -> None:
    manifests = cli.home / "data/store/manifests"
    manifests.mkdir(parents=True)
    for folder in ("blobs", "slices", "files"):
        (manifests.parent / folder).mkdir()
    assert checked(cli, "network: {listen: none}")["store"]["verdict"] == "ok"
    (manifests / f"b3-{PEER}.json").write_text("{}")
    check = checked(cli, "network: {listen: none}", code=1)["store"]
    assert check["verdict"] == "fail"
    assert f"b3-{PEER}.json: its manifest is damaged" in check["found"]


@contextmanager
def web(date: str | None) -> Iterator[str]:
    """A web server that says that it is `date`."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(200)
            if date is not None:
                self.send_header("Date", date)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/a.seeds"
        finally:
            server.shutdown()
            thread.join()


def with_seeds(*urls: str) -> NodeConfig:
    return NodeConfig.model_validate({"network": {"seeds": [{"url": url, "key": PEER} for url in urls]}})


@pytest.mark.parametrize(
    ("seconds", "verdict", "word"), [(0, "ok", ""), (600, "fail", "behind"), (-600, "fail", "ahead of")]
)
def test_the_clock_is_compared_with_a_server(seconds: float, verdict: str, word: str) -> None:
    with web(formatdate(time.time() + seconds, usegmt=True)) as url:
        found = clock(with_seeds(url))
    assert found.verdict == verdict
    assert word in found.found
    assert "127.0.0.1" in found.found


def test_a_clock_that_cannot_be_compared_is_no_silent_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert (clock(NodeConfig()).verdict, "could not be compared" in clock(NodeConfig()).found) == (
        "warn",
        True,
    )
    dead = f"http://127.0.0.1:{free_port()}/"
    with web(None) as silent, web("yesterday") as wrong:
        found = clock(with_seeds(dead, silent, wrong))
        assert found.verdict == "warn"
        assert all(url in found.found for url in (dead, silent, wrong))
        with web(formatdate(usegmt=True)) as right:
            assert clock(with_seeds(dead, silent, wrong, right)).verdict == "ok"


def test_memory_that_is_not_there_is_told() -> None:
    auto = NodeConfig.model_validate({"slices": "auto", "auto": {"memory": "900 TB"}})
    assert memory(auto, None).verdict == "fail"
    part = {"model": "m", "layers": "0..1", "memory_estimate_bytes": 5_000_000}
    # A slice that serves others and an own entry is there once.
    assert "take about 5.0 MB" in memory(NodeConfig(), {"slices": [part], "entry": [part]}).found


STATUS: Json = {
    "role": "host",
    "peer": PEER,
    "version": "1",
    "uptime_seconds": 9.0,
    "slices": [{"model": "m", "layers": "0..1", "state": "ready", "reason": ""}],
    "entry": [],
}


@pytest.mark.parametrize(
    ("state", "reason", "verdict"),
    [("ready", "", "ok"), ("fetching", "", "warn"), ("failed", "no source has it", "fail")],
)
def test_slices_that_are_not_ready_are_told(state: str, reason: str, verdict: str) -> None:
    part = {"model": "m", "layers": "0..1", "state": state, "reason": reason}
    found = doctor_node.node(NodeConfig(), STATUS | {"slices": [part]})
    assert (found.verdict, reason in found.found) == (verdict, True)


def test_a_node_that_tells_its_config_file_is_checked_against_it() -> None:
    assert doctor_node.config_file({"config": {"file": "/etc/node.yaml"}}) == Path("/etc/node.yaml")
    assert [doctor_node.config_file(each) for each in (None, {}, {"config": {"file": None}})] == [None] * 3


WIDE = NodeConfig.model_validate({"network": {"listen": "0.0.0.0:7717", "bootstrap": ["192.0.2.9:1"]}})


def told(known: object, config: NodeConfig = WIDE) -> dict[str, str]:
    found = [doctor_node._reachability(config, asdict(known)), doctor_node._contacts(config, asdict(known))]  # type: ignore[call-overload]
    return {each.check: each.verdict for each in found}


def test_whether_others_reach_it_is_told_as_far_as_it_is_known() -> None:
    assert told(NEIGHBOURS) == {"reachability": "warn", "DHT": "ok"}
    assert told(replace(NEIGHBOURS, seen_at=None))["reachability"] == "warn"
    own = next(
        each.address
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family == socket.AF_INET
    )
    assert told(replace(NEIGHBOURS, seen_at=f"{own}:7717"))["reachability"] == "ok"
    assert told(replace(NEIGHBOURS, seen_at=f"{own}:7718"))["reachability"] == "warn"
    hidden = NodeConfig.model_validate({"network": {"listen": "none"}})
    assert told(NEIGHBOURS, hidden)["reachability"] == "ok"


def test_knowing_nobody_is_a_failure_for_who_was_told_of_somebody() -> None:
    alone = replace(NEIGHBOURS, contacts=(), links=())
    assert told(alone)["DHT"] == "fail"
    assert told(alone, NodeConfig())["DHT"] == "warn"


@pytest.mark.timeout(120)
def test_a_running_node_is_seen_to_be_well(cli: Cli, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny.gguf", "llama", blocks=4)
    with daemons(tmp_path, "one") as (daemon,):
        port = free_port()
        daemon.configure(
            slices=[{"model": str(model), "layers": "0..4"}],
            network={"listen": f"127.0.0.1:{port}"},
            store={"chunks": f"127.0.0.1:{free_port()}"},
            limits={"sessions": 1, "context": 64, "rows": 32},
        )
        daemon.start()
        daemon.until_ready()
        result = cli("doctor", "--json", "--config", str(daemon.folder / "node.yaml"))
        checks = {check["check"]: check for check in json.loads(result.stdout)["checks"]}
        assert result.returncode == 0, result.stdout
        assert verdicts(checks) | {"clock": "warn"} == {"clock": "warn", "DHT": "warn"}
        assert checks["node"]["found"].endswith("1 slices, all ready")
        assert checks["network.listen"]["found"] == f"127.0.0.1:{port}, held by the node that runs"
        assert checks["store.chunks"]["found"].endswith("held by the node that runs")
        assert "loaded slices take about" in checks["memory"]["found"]
        daemon.stop()
        assert daemon.process is None
        stopped = cli("doctor", "--json", "--config", str(daemon.folder / "node.yaml"))
        checks = {check["check"]: check for check in json.loads(stopped.stdout)["checks"]}
        assert checks["node"]["verdict"] == "warn"
        assert checks["network.listen"]["found"] == f"127.0.0.1:{port} is free"
