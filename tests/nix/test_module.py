"""The NixOS module: what it renders is what the node and systemd take, and what is wrong is refused as it is built."""

import json
from pathlib import Path
from typing import Any

import pytest

from intelnav.config import NodeConfig, as_tree, load
from intelnav.config_file import restart_keys
from intelnav.units import settings
from tests.nix.evaluation import PACKAGE, ROOT, Json, Nix

PEER = "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq"
SLICE = {"model": "smollm2-135m-instruct-q4_1", "layers": "8..15"}
AT = "services.intelnav.settings"

# Every key of the file, each with another value than its default.
EVERY: Json = {
    "role": "host",
    "backend": {"device": "cpu", "gpu_layers": 3, "threads": 2},
    "slices": [SLICE | {"sessions": 4, "context": 512}],
    "entry": [{"model": "big", "layers": "0..8", "name": "mine", "head": "entry"}],
    "network": {
        "listen": "0.0.0.0:9000",
        "dtype": "f32",
        "bootstrap": ["192.0.2.9:7717"],
        "seeds": [{"url": "https://example.org/intelnav.seeds", "key": PEER}],
        "mdns": False,
        "peers": [{"id": PEER, "address": "192.0.2.7:7717", "chunks": "192.0.2.7:1", "slices": [SLICE]}],
    },
    "store": {"max_bytes": "20 GB", "rate": "10 MB/s", "chunks": "0.0.0.0:9005"},
    "api": {"listen": "127.0.0.1:8080"},
    "limits": {
        "sessions": 3,
        "context": 1024,
        "rows": 64,
        "idle_seconds": 12.5,
        "grace_seconds": 0,
        "connections": 5,
        "contribution": "off",
    },
    "log": {"level": "debug", "format": "json"},
}


def config(folder: Path, rendered: Json) -> NodeConfig:
    """What the node makes of a rendered file."""
    file = folder / "node.yaml"
    file.write_text(rendered["file"])
    return load(file, {})


def loaded(folder: Path, rendered: Json) -> Json:
    """The same as a tree."""
    tree: Json = as_tree(config(folder, rendered))
    return tree


def test_nothing_set_is_an_empty_file_with_the_nodes_defaults(nix: Nix, tmp_path: Path) -> None:
    rendered = nix.render({})
    assert rendered["file"] == "{}"
    assert (rendered["warnings"], rendered["allowedTCPPorts"], rendered["allowedUDPPorts"]) == ([], [], [])
    assert loaded(tmp_path, rendered)["network"]["listen"] == "127.0.0.1:7717"


def test_every_key_of_the_file_is_an_option_and_arrives(nix: Nix, tmp_path: Path) -> None:
    schema = json.loads((ROOT / "config/node.schema.json").read_text())
    # The unit says where the data lies, and slices of its own choice exclude those of EVERY.
    assert schema["properties"].keys() - {"data_dir", "auto"} == EVERY.keys()
    for key in ("backend", "network", "store", "api", "limits", "log"):
        section = schema["$defs"][schema["properties"][key]["$ref"].rpartition("/")[2]]
        assert section["properties"].keys() == EVERY[key].keys()
    rendered = nix.render(EVERY)
    assert json.loads(rendered["file"]) == EVERY
    written = tmp_path / "written.yaml"
    written.write_text(json.dumps(EVERY))
    assert loaded(tmp_path, rendered) == as_tree(load(written, {}))


def test_the_example_of_the_page_holds(nix: Nix, tmp_path: Path) -> None:
    page = (ROOT / "docs/nixos.md").read_text()
    example = tmp_path / "flake.nix"
    example.write_text(page.partition("```nix\n")[2].partition("```")[0])
    done = nix(
        *("nix-instantiate", "--eval", "--strict", "--json", "--expr"),
        f"""
        let found = (import {example}).outputs {{
          nixpkgs.lib.nixosSystem = system: system;
          intelnav.nixosModules.default = null;
        }};
        in (builtins.elemAt found.nixosConfigurations.host.modules 1).services.intelnav
        """,
    )
    assert done.returncode == 0, done.stderr
    definition = json.loads(done.stdout)
    rendered = nix.render(**definition)
    assert loaded(tmp_path, rendered)["slices"][0]["layers"] == "8..15"
    assert rendered["allowedTCPPorts"] == [7717, 7718]


def test_slices_of_the_nodes_own_choice(nix: Nix, tmp_path: Path) -> None:
    tree = loaded(tmp_path, nix.render({"slices": "auto", "auto": {"memory": "4 GiB", "models": ["m"]}}))
    assert tree["slices"] == "auto"
    assert tree["auto"] == {"memory": 4 << 30, "models": ["m"]}


def test_the_unit_is_the_one_of_the_command(nix: Nix) -> None:
    ours = settings("system")
    start = {"ExecStart": f"{PACKAGE}/bin/intelnav-node --config /etc/intelnav/node.yaml"}
    assert nix.render({})["unit"] == ours | {"Service": start | ours["Service"]}


@pytest.mark.parametrize("device", ["cuda", "vulkan", "rocm"])
def test_a_gpu_is_let_in_and_nothing_else(nix: Nix, device: str) -> None:
    service = nix.render({"backend": {"device": device}})["unit"]["Service"]
    ours = settings("system")["Service"]
    assert {key for key in service if service[key] != ours.get(key)} == {
        *("ExecStart", "DeviceAllow", "DevicePolicy", "SupplementaryGroups"),
        *("PrivateDevices", "MemoryDenyWriteExecute"),
    }
    assert (service["PrivateDevices"], service["DevicePolicy"]) == (False, "closed")


@pytest.mark.parametrize("network", [{}, {"listen": "0.0.0.0:7717"}], ids=["alone", "on a network"])
@pytest.mark.parametrize(
    "edit",
    [
        {},
        {"role": "relay"},
        {"network": {"listen": "127.0.0.1:7718"}},
        {"network": {"listen": "0.0.0.0:7717"}},
        {"network": {"seeds": [{"url": "https://example.org/intelnav.seeds", "key": PEER}]}},
        {"network": {"mdns": False}},
        {"network": {"bootstrap": ["127.0.0.1:7719"]}},
        {"network": {"bootstrap": ["192.0.2.9:7717"]}},
        {"network": {"peers": [{"id": PEER, "address": "192.0.2.7:7717", "slices": [SLICE]}]}},
        {"network": {"dtype": "f32"}},
        {"store": {"chunks": "none"}},
        {"store": {"rate": "10 MB/s"}},
        {"api": {"listen": "127.0.0.1:8080"}},
        {"log": {"level": "debug"}},
        {"log": {"format": "json"}},
        {"backend": {"threads": 2}},
        {"entry": [SLICE | {"layers": "0..8"}]},
        {"limits": {"sessions": 3}},
    ],
    ids=str,
)
def test_an_edit_restarts_the_node_just_where_it_counts_from_the_next_start_on(
    nix: Nix, tmp_path: Path, edit: Json, network: Json
) -> None:
    settings = edit | {"network": network | edit.get("network", {})}
    before, after = nix.render({"network": network}), nix.render(settings)
    waiting = restart_keys(config(tmp_path, before), config(tmp_path, after))
    assert (before["restartTriggers"] != after["restartTriggers"]) == bool(waiting)
    assert (before["reloads"] != after["reloads"]) == (settings != {"network": network})


def test_a_key_comes_as_a_credential(nix: Nix) -> None:
    service = nix.render({}, identityFile="/run/secrets/peer.key")["unit"]["Service"]
    assert service["LoadCredential"] == ["peer.key:/run/secrets/peer.key"]
    assert service["ExecStartPre"].endswith("/bin/install -m 600 %d/peer.key %S/intelnav/peer.key")


def test_the_firewall_opens_what_peers_need(nix: Nix) -> None:
    rendered = nix.render(EVERY, openFirewall=True)
    assert (rendered["allowedTCPPorts"], rendered["allowedUDPPorts"]) == ([9000, 9005], [9000])
    rendered = nix.render({"network": {"listen": "[::]:7717"}}, openFirewall=True)
    assert (rendered["allowedTCPPorts"], rendered["allowedUDPPorts"]) == ([7717, 7718], [7717, 5353])
    assert nix.render(EVERY)["allowedTCPPorts"] == []


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"api": {"listen": "0.0.0.0:8080"}}, f"{AT}.api.listen = 0.0.0.0:8080: whoever reaches it can use"),
        ({"backend": {"device": "auto"}}, f"{AT}.backend.device = auto: this unit shows the node no GPU"),
        ({"api": {"listen": "127.0.0.1:8080"}}, ""),
        ({"api": {"listen": "[::1]:8080"}}, ""),
    ],
)
def test_what_is_risky_is_a_warning(nix: Nix, settings: Json, warning: str) -> None:
    warnings = nix.render(settings)["warnings"]
    assert [text[: len(warning)] for text in warnings] == ([warning] if warning else [])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"limits": {"sessions": "8"}},
            f"{AT}.limits.sessions' is not of type `null or signed integer from 1",
        ),
        ({"limits": {"sessions": 0}}, f"{AT}.limits.sessions' is not of type `null or signed integer from 1"),
        ({"limits": {"sessions": 257}}, "from 1 to 256'. Definition value: 257"),
        ({"limits": {"idle_seconds": 0}}, "is not of type `null or number above 0 to 86400'"),
        ({"role": "boss"}, f'{AT}.role\' is not of type `null or one of ["host","relay"]\''),
        ({"network": {"listen": "7717"}}, f"{AT}.network.listen' is not of type `null or HOST:PORT or none'"),
        ({"network": {"mdns": "no"}}, f"{AT}.network.mdns' is not of type `null or boolean'"),
        (
            {"network": {"peers": [{"id": "x", "address": "h:1"}]}},
            "peers.[definition 1-entry 1].id' is not of",
        ),
        ({"slices": "all"}, f"{AT}.slices' is not of type"),
        ({"slices": [SLICE | {"layers": "8-15"}]}, ".layers' is not of type `START..END'. Definition value"),
        ({"store": {"max_bytes": "lots"}}, f"{AT}.store.max_bytes' is not of type `null or bytes"),
    ],
)
def test_a_wrong_type_is_refused_by_its_key(nix: Nix, settings: Json, said: str) -> None:
    refusal = nix.refusal(settings)
    assert refusal.startswith("A definition for option `services.intelnav.settings.")
    assert said in refusal


@pytest.mark.parametrize(
    ("settings", "options", "unknown"),
    [
        ({"limits": {"sesions": 8}}, {}, f"{AT}.limits.sesions"),
        ({"colour": "blue"}, {}, f"{AT}.colour"),
        ({"slices": [SLICE | {"model_": "m"}]}, {}, f"{AT}.slices.[definition 1-entry 1].model_"),
        ({}, {"setings": {}}, "services.intelnav.setings"),
    ],
)
def test_an_unknown_option_is_refused_by_its_name(
    nix: Nix, settings: Json, options: dict[str, Any], unknown: str
) -> None:
    assert nix.refusal(settings, **options).startswith(f"The option `{unknown}' does not exist.")


def test_a_slice_without_a_model_is_refused(nix: Nix) -> None:
    refusal = nix.refusal({"slices": [{"layers": "8..15"}]})
    assert refusal.startswith(
        f"The option `{AT}.slices.[definition 1-entry 1].model' was accessed but has no"
    )


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ({"role": "relay", "slices": [SLICE]}, {}, f"{AT}.role = relay: a relay hosts no slices"),
        ({"role": "relay", "slices": "auto"}, {}, f"{AT}.role = relay: a relay hosts no slices"),
        ({"slices": [SLICE], "network": {"listen": "none"}}, {}, f"{AT}.network.listen = none: peers cannot"),
        ({"slices": "auto", "network": {"listen": "none"}}, {}, f"{AT}.network.listen = none: peers cannot"),
        ({"auto": {"memory": "4 GiB"}}, {}, f'{AT}.auto: has an effect with slices = "auto" only'),
        ({"data_dir": "/srv/intelnav"}, {}, f"{AT}.data_dir: the unit keeps the node's data in /var/lib"),
        ({"slices": [SLICE | {"model": "./m.gguf"}]}, {}, "./m.gguf: starts at the folder of a file in /etc"),
        (
            {"slices": "auto", "auto": {"models": ["~/m.gguf"]}},
            {},
            "~/m.gguf: starts at the folder of a file",
        ),
        (
            {"entry": [{"model": "/home/me/m", "layers": "0..8"}]},
            {},
            "/home/me/m: the unit sees neither homes",
        ),
        ({"entry": [{"model": "m", "layers": "1..8"}]}, {}, f"{AT}.entry: an entry runs the front layers"),
        ({"backend": {"device": "metal"}}, {}, f"{AT}.backend.device = metal: is for macOS"),
        (
            {},
            {"openFirewall": True},
            "services.intelnav.openFirewall: the node listens on this machine alone",
        ),
        ({}, {"identityFile": "peer.key"}, "services.intelnav.identityFile = peer.key: write the whole path"),
        (
            {},
            {"identityFile": "STORE/peer.key"},
            "services.intelnav.identityFile: everybody can read what is in",
        ),
    ],
)
def test_a_failed_assertion_says_what_to_do(nix: Nix, settings: Json, options: Json, said: str) -> None:
    store = str(nix.folder / "store")
    refusal = nix.refusal(settings, **{key: _in(store, value) for key, value in options.items()})
    assert refusal.startswith("Failed assertions: - ")
    assert said in refusal
    # One thing is wrong, and one thing is said.
    assert refusal.count(" - services.") == 1


def _in(store: str, value: Any) -> Any:
    return value.replace("STORE", store) if isinstance(value, str) else value
