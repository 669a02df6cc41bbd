"""The system unit with a real node, under a real systemd: unit and config as the NixOS module renders them."""

import json
import os
import shutil
from collections.abc import Iterator

import pytest

from intelnav.domain.identity import Identity
from intelnav.units import CONFIG, render, text
from tests.appliance.machine import COMMAND, NODE, Machine, booted, make_tree
from tests.models import tiny_model
from tests.nix.evaluation import Nix, missing
from tests.waiting import until

pytestmark = [pytest.mark.appliance, pytest.mark.timeout(300)]

SETTINGS = {
    "network": {"listen": "127.0.0.1:7717"},
    "backend": {"device": "cpu", "threads": 1},
    "entry": [{"model": "/srv/tiny.gguf", "layers": "0..4", "name": "tiny"}],
}
READY = "1 of 1 slices ready, 0 answers"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    assert os.geteuid() == 0, "systemd-nspawn needs root"
    missing(["nix-instantiate"])
    rendered = Nix(tmp_path_factory.mktemp("nix")).render(SETTINGS, identityFile="/etc/key")
    start = {key: rendered["unit"]["Service"].pop(key) for key in ("LoadCredential", "ExecStartPre")}
    unit = text(rendered["unit"])
    # What is shown here holds for the unit of the command as well.
    assert sorted(unit.split()) == sorted(render("system", node=NODE).split())
    tree = tmp_path_factory.mktemp("machine") / "intelnav-test"
    make_tree(tree)
    config = tree / CONFIG.relative_to("/")
    config.parent.mkdir()
    config.write_text(rendered["file"])
    config.with_name("sound.yaml").write_text(rendered["file"])
    tiny_model(tree / "srv/tiny.gguf", "llama", blocks=4)
    (tree / "etc/systemd/system/intelnav.service").write_text(unit)
    (tree / "etc/key.conf").write_text(text({"Service": start}))
    with booted(tree) as machine:
        yield machine
    shutil.rmtree(tree)


@pytest.fixture(autouse=True)
def node(machine: Machine) -> Iterator[None]:
    """Each test begins with the system's node ready, as the unit itself has it."""
    machine.run("rm", "-rf", "/run/systemd/system/intelnav.service.d")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed", "intelnav.service", check=False)
    machine.run("systemctl", "restart", "intelnav.service")
    assert machine.show("ActiveState", "SubState") == {"ActiveState": "active", "SubState": "running"}
    machine.until(StatusText=READY)
    yield
    machine.run("cp", f"{CONFIG.parent}/sound.yaml", str(CONFIG))


def drop_in(machine: Machine, *lines: str) -> None:
    """Change the unit, for this test."""
    folder = "/run/systemd/system/intelnav.service.d"
    script = f"mkdir -p {folder} && printf '%s\\n' \"$@\" > {folder}/test.conf"
    machine.run("sh", "-c", script, "sh", "[Service]", *lines)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "intelnav.service", check=False)


def test_a_node_answers_within_all_that_the_unit_forbids(machine: Machine) -> None:
    answer = machine.ask("POST", "/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 4})
    assert answer["usage"]["completion_tokens"] == 4
    status = machine.ask("GET", "/status")
    assert status["listen"] == "127.0.0.1:7717"
    pid = machine.show("MainPID")["MainPID"]
    rights = dict(line.split(":\t", 1) for line in machine.run("cat", f"/proc/{pid}/status").splitlines())
    assert (rights["CapBnd"], rights["NoNewPrivs"], rights["Seccomp"]) == ("0" * 16, "1", "2")
    assert "0" not in rights["Uid"].split("\t")
    assert machine.run("stat", "-c", "%a", "-L", "/var/lib/intelnav/peer.key") == "600\n"


def test_a_node_whose_loop_hangs_is_restarted(machine: Machine) -> None:
    drop_in(machine, "WatchdogSec=3", "TimeoutAbortSec=1", "RestartSec=100ms")
    machine.until(StatusText=READY, NRestarts="0")
    before = machine.show("MainPID")
    # It goes on to run, in code that does not end.
    machine.signal("USR2")
    machine.until(NRestarts="1", ActiveState="active", StatusText=READY)
    assert machine.show("MainPID") != before
    assert "Watchdog timeout" in machine.journal()
    assert "Failed with result 'watchdog'" in machine.journal()


def test_a_node_whose_loop_turns_is_left_alone(machine: Machine) -> None:
    drop_in(machine, "WatchdogSec=3", "TimeoutAbortSec=1")
    before = machine.show("MainPID", "NRestarts")
    machine.run("sleep", "8")
    assert machine.show("MainPID", "NRestarts") == before


def test_a_reload_takes_the_file_over_without_a_restart(machine: Machine) -> None:
    before = machine.show("MainPID")
    generation = machine.ask("GET", "/status")["config"]["generation"]
    machine.run("systemctl", "reload", "intelnav.service")
    machine.until(ActiveState="active", SubState="running", StatusText=READY)
    assert machine.ask("GET", "/status")["config"]["generation"] > generation
    assert machine.show("MainPID") == before


def test_a_wrong_edit_shows_in_the_state_of_the_unit(machine: Machine) -> None:
    machine.run("sed", "-i", 's/^{/{"nonsense": 1, /', str(CONFIG))
    machine.run("systemctl", "reload", "intelnav.service")
    wrong = f"{READY}; the config file is not taken over: {CONFIG}: nonsense: unknown key"
    until(lambda: machine.show("StatusText")["StatusText"].startswith(wrong))
    assert machine.show("ActiveState") == {"ActiveState": "active"}


def test_a_node_stops_cleanly_and_keeps_its_state(machine: Machine) -> None:
    peer = machine.ask("GET", "/status")["peer"]
    machine.run("systemctl", "stop", "intelnav.service")
    assert machine.show("ActiveState", "Result", "ExecMainStatus") == {
        "ActiveState": "inactive",
        "Result": "success",
        "ExecMainStatus": "0",
    }
    machine.run("systemctl", "start", "intelnav.service")
    assert machine.ask("GET", "/status")["peer"] == peer


def test_a_key_that_is_given_is_the_nodes_own(machine: Machine) -> None:
    made = machine.ask("GET", "/status")["peer"]
    key = Identity(bytes(range(32)))
    machine.run("python3", "-c", "open('/etc/key', 'wb').write(bytes(range(32)))")
    machine.run("chmod", "600", "/etc/key")
    drop_in(machine, *machine.run("tail", "-n", "+2", "/etc/key.conf").splitlines())
    machine.until(StatusText=READY)
    assert machine.ask("GET", "/status")["peer"] == str(key.peer) != made
    assert machine.run("stat", "-c", "%a", "-L", "/var/lib/intelnav/peer.key") == "600\n"


def test_a_config_that_is_wrong_is_not_tried_forever(machine: Machine) -> None:
    machine.run("sed", "-i", 's/^{/{"nonsense": 1, /', str(CONFIG))
    drop_in(machine, "RestartSec=100ms")
    machine.until(ActiveState="failed", NRestarts="5")
    assert "nonsense" in machine.journal()


def test_a_user_installs_a_unit_of_their_own(machine: Machine) -> None:
    machine.run("useradd", "--create-home", "--uid", "1000", "me")
    machine.run("sh", "-c", "mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/me")

    def as_user(*command: str, runtime: str = "/run/user/1000", check: bool = True) -> str:
        rights = ("setpriv", "--reuid=1000", "--regid=1000", "--init-groups")
        variables = ("env", "HOME=/home/me", f"XDG_RUNTIME_DIR={runtime}")
        return machine.run(*rights, *variables, "sh", "-c", f"cd && {' '.join(command)} 2>&1", check=check)

    as_user("echo 'role: relay' > node.yaml; echo 'network: {listen: 127.0.0.1:7801}' >> node.yaml")
    # Before the user's systemd runs.
    refused = as_user(str(COMMAND), "service", "install", check=False)
    assert "this user has no running systemd" in refused, refused

    machine.run("systemctl", "start", "user@1000.service")
    said = as_user(str(COMMAND), "service", "install")
    assert "/home/me/.config/systemd/user/intelnav.service is written and the node runs" in said
    found = json.loads(as_user(str(COMMAND), "service", "status", "--json"))
    assert (found["state"], found["detail"], found["enabled"]) == ("active", "running", "enabled")
    assert (found["says"], found["restarts"]) == ("no slices, 0 answers", 0)
    assert json.loads(as_user(str(COMMAND), "status", "--json"))["listen"] == "127.0.0.1:7801"
    as_user("systemctl", "--user", "reload", "intelnav")
    assert json.loads(as_user(str(COMMAND), "service", "status", "--json"))["pid"] == found["pid"]
    as_user(str(COMMAND), "service", "uninstall")
    found = json.loads(as_user(str(COMMAND), "service", "status", "--json"))
    assert (found["installed"], found["pid"]) == (False, None)
    assert as_user("test -e .local/share/intelnav/peer.key && echo kept") == "kept\n"
