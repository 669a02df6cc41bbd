"""The JSON Schema and the page of the config: made from the models, and true to what `load` takes."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from intelnav.config import NodeConfig, as_tree
from intelnav.config.reference import json_schema, page
from intelnav.config.text import read_yaml
from tests.test_config import EXAMPLES, PEER, SECTIONS, switched_on

ROOT = Path(__file__).parents[1]
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def accepts(tree: object) -> bool:
    return bool(VALIDATOR.is_valid(tree))


def loads(tree: object) -> NodeConfig | None:
    """The config that this tree is, if it is one."""
    try:
        return NodeConfig.model_validate(tree)
    except ValidationError:
        return None


def test_what_is_committed_is_what_is_made() -> None:
    fix = "run `make docs-config`"
    assert json.loads((ROOT / "config/node.schema.json").read_text()) == json_schema(), fix
    assert (ROOT / "docs/config.md").read_text() == page(), fix


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def described(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"NodeConfig": schema, **schema["$defs"]}


def test_every_key_is_described() -> None:
    schema = json_schema()
    for name, section in described(schema).items():
        assert section["description"]
        for key, form in section["properties"].items():
            # A section says itself what it is.
            is_section = "$ref" in form or any("$ref" in each for each in form.get("anyOf", ()))
            assert form.get("description") or is_section, f"{name}.{key}"
            assert name in ("NodeConfig",) or not is_section


def test_every_key_is_on_the_page_with_its_variable() -> None:
    text = page()
    for variable in ("INTELNAV_ROLE", "INTELNAV_LIMITS__GRACE_SECONDS", "INTELNAV_AUTO__MEMORY"):
        assert text.count(f"`{variable}`") == 1
    keys = sum(len(section["properties"]) for section in described(json_schema()).values())
    assert text.count("\n| `") == keys


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_valid_and_name_the_schema(path: Path) -> None:
    text = path.read_text()
    tree = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    VALIDATOR.validate(tree)
    named = text.splitlines()[0].rpartition("=")[2].rpartition(" ")[2]
    assert (path.parent / named).is_file()


def test_the_reference_example_is_valid_with_all_of_it_switched_on() -> None:
    VALIDATOR.validate(yaml.safe_load(switched_on()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "role: relay",
        "slices: auto",
        "slices: auto\nauto:",
        "slices: auto\nauto: {memory: 4 GiB, models: [tiny, 'hf://a/b/c.gguf']}",
        "slices:\nentry:\nnetwork:\n  peers:\nlimits:",
        "slices: [{model: tiny, layers: ' 8..15 ', sessions: null}]",
        "entry: [{model: 'https://h/m.gguf', layers: 0..8, name: null}]",
        f"entry: [{{model: b3-{PEER}, layers: 0..8, head: entry}}]",
        "network: {listen: none, dtype: i8, mdns: false}",
        "network: {listen: '[::1]:0', bootstrap: [node.example:1]}",
        f"network: {{seeds: [{{url: 'http://localhost/a', key: {PEER}}}]}}",
        f"network: {{peers: [{{id: {PEER}, address: 'a:1', chunks: null, slices: null}}]}}",
        "store: {max_bytes: 20 GB, rate: 1.5 mb/s, chunks: none}",
        "store: {max_bytes: 12345, rate: none, chunks: '10.0.0.2:80'}",
        "limits: {idle_seconds: 0.5, contribution: off}",
        "limits: {contribution: 'off', grace_seconds: 0}",
    ],
)
def test_what_loads_is_accepted(text: str) -> None:
    tree = read_yaml(text)
    assert loads(tree) is not None
    VALIDATOR.validate(tree)


@pytest.mark.parametrize(
    "text",
    [
        "role: boss",
        "rolle: host",
        "[]",
        "backend: {threads: two}",
        "backend: {threads: -1}",
        "backend: {device: gpu}",
        "slices: all",
        "slices: [null]",
        "slices: [{model: tiny}]",
        "slices: [{layers: 8..15}]",
        "slices: [{model: tiny, layers: 8-15}]",
        "slices: [{model: 'ftp://h/m', layers: 8..15}]",
        "slices: [{model: tiny, layers: 8..15, sessions: 0}]",
        "auto: {memory: 1 GB}",
        "slices: auto\nauto: {memory: lots}",
        "entry: [{model: tiny, layers: 0..8, name: a b}]",
        "entry: [{model: tiny, layers: 0..8, head: me}]",
        "network: {listen: 7717}",
        "network: {listen: here}",
        "network: {mdns: 1}",
        "network: {dtype: f8}",
        "network: {bootstrap: ['a:0']}",
        "network: {bootstrap: 'a:1'}",
        "network: {peers: [{id: me, address: 'a:1'}]}",
        f"network: {{peers: [{{id: {PEER}}}]}}",
        f"network: {{seeds: [{{url: 'ftp://a/b', key: {PEER}}}]}}",
        "store: {max_bytes: much}",
        "store: {max_bytes: 0}",
        "store: {max_bytes: true}",
        "store: {rate: fast}",
        "limits: {sessions: 257}",
        "limits: {idle_seconds: 0}",
        "limits: {contribution: on}",
        "log: {level: loud}",
    ],
)
def test_what_is_plainly_wrong_is_refused_by_both(text: str) -> None:
    tree = read_yaml(text)
    assert not isinstance(tree, dict) or loads(tree) is None
    assert not accepts(tree)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.sampled_from(
        ["auto", "none", "host", "relay", "off", "cpu", "f16", "info", "human", "tail", "enforce"]
    )
    | st.sampled_from(["tiny", "0..8", "8..15", "a:1", "a:0", "[::1]:7717", "hf://a/b/c", "https://a/b"])
    | st.sampled_from(["20 GB", "10 MB/s", PEER, f"b3-{PEER}", "./", "/tmp"])
)
KEYS = st.sampled_from(
    sorted({key for part in described(json_schema()).values() for key in part["properties"]})
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(sections=st.dictionaries(SECTIONS, TREES, max_size=3))
@settings(max_examples=500)
def test_whatever_loads_is_accepted(sections: dict[str, object]) -> None:
    if loads(sections) is not None:
        VALIDATOR.validate(sections)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, object]:
    """Trees made from the schema itself: for each key left out or one of its values."""
    schema = json_schema()

    def value(form: dict[str, Any]) -> object:
        if "$ref" in form:
            return section(schema["$defs"][form["$ref"].rpartition("/")[2]])
        if "anyOf" in form:
            return value(draw(st.sampled_from(form["anyOf"])))
        if "const" in form:
            return form["const"]
        if "enum" in form:
            return draw(st.sampled_from(form["enum"]))
        kind = form["type"] if isinstance(form["type"], str) else draw(st.sampled_from(form["type"]))
        match kind:
            case "null":
                return None
            case "boolean":
                return draw(st.booleans())
            case "integer" | "number":
                return draw(st.integers(max(1, int(form.get("minimum", 1))), int(form["maximum"])))
            case "array":
                return [value(form["items"]) for _ in range(draw(st.integers(0, 2)))]
            case "object":
                return section(form)
        return draw(st.from_regex(form["pattern"], fullmatch=True, alphabet=st.characters(max_codepoint=126)))

    def section(form: dict[str, Any]) -> dict[str, object]:
        required = form.get("required", ())
        return {
            key: value(part)
            for key, part in form["properties"].items()
            if key in required or draw(st.booleans())
        }

    return section(schema)


@given(tree=configs())
@settings(max_examples=100)
def test_what_comes_out_of_a_config_reads_as_the_same_config(tree: dict[str, object]) -> None:
    config = loads(tree)
    if config is None:
        return
    shown = as_tree(config)
    VALIDATOR.validate(shown)
    assert loads(shown) == config
