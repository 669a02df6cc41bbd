import json
from dataclasses import replace
from pathlib import Path

import pytest

from intelnav.cli.init_file import Decision, check_target, config_text, write
from intelnav.cli.suggestion import Choice, Machine, Offer
from intelnav.config import NodeConfig, load
from intelnav.config.text import read_yaml
from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange

CID = "b3-" + "q" * 52
MACHINE = Machine(4, 16_000_000_000, 8_000_000_000)
LISTEN = Address("0.0.0.0", 7717)


def choice(layers: str, ref: str = "small", name: str = "small") -> Choice:
    offer = Offer(ref, name, 1000, (0,) * 12, frozenset({0, 12}), len)
    return Choice(offer, LayerRange.parse(layers), 1_500_000_000)


def written(folder: Path, decision: Decision) -> NodeConfig:
    """What the node reads in the file."""
    path = folder / "node.yaml"
    write(path, decision, {}, force=False)
    assert [item.name for item in folder.iterdir()] == ["node.yaml"]
    return load(path, {})


def test_a_host_of_the_first_layers_answers_with_them(tmp_path: Path) -> None:
    config = written(tmp_path, Decision(MACHINE, choice("0..7"), LISTEN, (Address("192.0.2.9", 7717),)))
    assert config.role == "host"
    assert [(each.model, each.layers) for each in config.slices] == [
        (ModelRef("name", "small"), LayerRange(0, 7))
    ]
    assert [(each.name, each.model, each.layers) for each in config.entry] == [
        ("small", ModelRef("name", "small"), LayerRange(0, 7))
    ]
    assert config.network.listen == LISTEN
    assert config.network.bootstrap == (Address("192.0.2.9", 7717),)
    expected = NodeConfig()
    assert (config.data_dir, config.limits, config.store) == (
        expected.data_dir,
        expected.limits,
        expected.store,
    )


@pytest.mark.parametrize(("layers", "entries"), [("0..12", [("small", "0..12")]), ("5..12", [])])
def test_a_model_of_the_swarm_goes_by_its_id(
    tmp_path: Path, layers: str, entries: list[tuple[str, str]]
) -> None:
    config = written(tmp_path, Decision(MACHINE, choice(layers, ref=CID), LISTEN, ()))
    assert [(each.model, str(each.layers)) for each in config.slices] == [(ModelRef("cid", CID), layers)]
    assert [(each.name, str(each.layers)) for each in config.entry] == entries
    assert config.network.bootstrap == ()


def test_a_relay_hosts_nothing(tmp_path: Path) -> None:
    config = written(tmp_path, Decision(MACHINE, None, Address("::", 7718), (Address("::1", 1),)))
    assert (config.role, config.slices, config.entry) == ("relay", (), ())
    assert config.network.listen == Address("::", 7718)
    assert config.network.bootstrap == (Address("::1", 1),)


@pytest.mark.parametrize("chosen", [choice("5..12", ref=CID), choice("5..12"), None])
def test_what_is_commented_out_can_be_switched_on(tmp_path: Path, chosen: Choice | None) -> None:
    text = config_text(Decision(MACHINE, chosen, LISTEN, ()), tmp_path / "node.yaml")
    for line in ("- model:", "  layers:", "  name:", "- 192.0.2.9"):
        text = text.replace(f"# {line}", line)
    (tmp_path / "node.yaml").write_text(text)
    config = load(tmp_path / "node.yaml", {})
    assert [str(each.layers) for each in config.entry] == ["0..1" if chosen is None else "0..5"]
    assert config.entry[0].name == ("NAME" if chosen is None else "small")
    assert config.network.bootstrap == (Address("192.0.2.9", 7717),)


def test_no_name_breaks_out_of_the_file(tmp_path: Path) -> None:
    address = Address('a"]\n- b: [\\', 7717)
    path = tmp_path / "x\nrole: relay # .yaml"
    text = config_text(Decision(MACHINE, choice("0..7", name="a\nrole: relay"), LISTEN, (address,)), path)
    tree = read_yaml(text)
    assert tree.keys() == {"role", "slices", "entry", "network"}
    assert tree["role"] == "host"
    assert tree["network"]["bootstrap"] == [str(address)]
    assert tree["entry"][0]["name"] == "a\nrole: relay"


def test_what_the_node_would_refuse_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    decision = Decision(MACHINE, None, Address("0.0.0.0", 65535), ())
    with pytest.raises(
        ConfigError, match=r"node\.yaml: store\.chunks = auto: there is no port above"
    ) as caught:
        write(path, decision, {}, force=False)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="INTELNAV_LIMITS__SESSIONS"):
        write(path, replace(decision, listen=LISTEN), {"INTELNAV_LIMITS__SESSIONS": "none"}, force=False)
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_unless_it_is_to_go(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("mine")
    decision = Decision(MACHINE, None, LISTEN, ())
    with pytest.raises(ConfigError, match="add --force"):
        write(path, decision, {}, force=False)
    with pytest.raises(ConfigError, match="INTELNAV_ROLE"):
        write(path, decision, {"INTELNAV_ROLE": "boss"}, force=True)
    assert path.read_text() == "mine"
    write(path, decision, {}, force=True)
    assert load(path, {}).role == "relay"


def test_a_link_to_nowhere_is_a_file_as_well(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="add --force"):
        check_target(tmp_path / "node.yaml", force=False)


def test_folders_are_made_and_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    decision = Decision(MACHINE, None, LISTEN, ())
    write(tmp_path / "a" / "b" / "node.yml", decision, {}, force=False)
    assert load(tmp_path / "a" / "b" / "node.yml", {}).role == "relay"
    (tmp_path / "file").touch()
    (tmp_path / "folder.yaml").mkdir()
    for path in (tmp_path / "file" / "node.yaml", tmp_path / "folder.yaml", tmp_path / f"{'x' * 300}.yaml"):
        with pytest.raises(ConfigError, match="name another file with --config"):
            write(path, decision, {}, force=True)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "file", "folder.yaml"]


@pytest.mark.parametrize("name", ["node.toml", "node", ".yaml", "node.yaml.bak"])
def test_a_file_that_the_node_would_not_read_as_yaml_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"name it \.yaml"):
        check_target(tmp_path / name, force=True)


def test_the_text_says_how_to_run_it(tmp_path: Path) -> None:
    text = config_text(Decision(MACHINE, choice("0..7"), LISTEN, ()), tmp_path / "own.yaml")
    assert "intelnav-node --config own.yaml" in text
    assert "4 cores and 16.0 GB" in text
    assert max(map(len, text.splitlines())) <= 120
    assert json.dumps("small") in text
