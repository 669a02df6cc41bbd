import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from intelnav.config import AutoConfig, NodeConfig, load
from intelnav.config.text import DEPTH, FILE_BYTES
from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError
from intelnav.domain.hidden import Dtype
from intelnav.domain.identity import PeerId
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange

EXAMPLES = sorted(
    path for path in (Path(__file__).parents[1] / "config").iterdir() if path.suffix in (".yaml", ".toml")
)
PEER = "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq"
TINY = ModelRef("name", "tiny")
HOST = "slices: [{model: ./m.gguf, layers: 8..15}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an (empty) model file in it."""
    (tmp_path / "m.gguf").touch()
    return tmp_path


def read(folder: Path, text: str, name: str = "node.yaml", **environ: str) -> NodeConfig:
    (folder / name).write_text(text)
    return load(folder / name, environ)


def test_no_file_is_needed() -> None:
    config = load(None, {})
    assert config.role == "host"
    assert config.data_dir == Path.home() / ".local/share/intelnav"
    assert config.control_socket == config.data_dir / "control.sock"
    assert config.network.listen == Address("127.0.0.1", 7717)
    assert (config.slices, config.entry, config.network.peers, config.api.listen) == ((), (), (), None)


def test_text_becomes_values_of_the_domain(folder: Path) -> None:
    config = read(
        folder,
        f"""
        data_dir: data
        slices:
          - {{model: ./m.gguf, layers: 8..15}}
        entry:
          - {{model: m.gguf, layers: 0..8, head: entry}}
        network:
          listen: "[::1]:7718"
          dtype: bf16
          bootstrap: ["10.0.0.9:7717"]
          seeds: [{{url: "https://example.org/a.seeds", key: {PEER}}}]
          peers:
            - id: {PEER}
              address: "10.0.0.2:7717"
              chunks: "10.0.0.2:7718"
              slices: [{{model: b3-{PEER}, layers: 15..30}}]
        limits: {{idle_seconds: 2}}
        """,
    )
    assert config.data_dir == folder / "data"
    assert config.slices[0].model == config.entry[0].model == ModelRef("path", str(folder / "m.gguf"))
    assert config.slices[0].layers == LayerRange(8, 15)
    assert (config.entry[0].name, config.entry[0].head) == ("m", "entry")
    assert config.network.listen == Address("::1", 7718)
    assert config.network.dtype is Dtype.BF16
    assert config.network.bootstrap == (Address("10.0.0.9", 7717),)
    (seeds,) = config.network.seeds
    assert (seeds.url, seeds.key) == ("https://example.org/a.seeds", PeerId(bytes(range(32))))
    (peer,) = config.network.peers
    assert peer.id == PeerId(bytes(range(32)))
    assert peer.address == Address("10.0.0.2", 7717)
    assert peer.slices[0].model == ModelRef("cid", f"b3-{PEER}")
    assert peer.chunks == Address("10.0.0.2", 7718)
    assert config.limits.idle_seconds == 2


@pytest.mark.parametrize(
    ("network", "local"),
    [
        ("{}", True),
        ("{listen: none}", True),
        ("{listen: 'localhost:1', bootstrap: ['127.9.9.9:1', '[::1]:1']}", True),
        ("{listen: '0.0.0.0:7717'}", False),
        ("{listen: '[::]:7717'}", False),
        ("{listen: 'node.example:7717'}", False),
        ("{bootstrap: ['127.0.0.1:1', '192.0.2.1:1']}", False),
        (f"{{seeds: [{{url: 'http://127.0.0.1/', key: {PEER}}}]}}", False),
        (f"{{peers: [{{id: {PEER}, address: '192.0.2.1:1'}}]}}", False),
        (f"{{peers: [{{id: {PEER}, address: '127.0.0.1:1'}}]}}", True),
    ],
)
def test_a_node_that_is_told_of_loopback_alone_is_local(folder: Path, network: str, local: bool) -> None:
    assert read(folder, f"network: {network}").network.is_local is local


@pytest.mark.parametrize("written", ["off", "'off'"])
def test_off_is_a_word_here(folder: Path, written: str) -> None:
    assert read(folder, f"limits: {{contribution: {written}}}").limits.contribution == "off"


def test_a_config_is_frozen(folder: Path) -> None:
    config = read(folder, HOST)
    with pytest.raises(ValueError, match="frozen"):
        config.role = "relay"


def test_toml_says_the_same_as_yaml(folder: Path) -> None:
    toml = '[network]\nlisten = "none"\n[[entry]]\nmodel = "m.gguf"\nlayers = "0..8"\n'
    yaml = "network: {listen: null}\nentry: [{model: m.gguf, layers: 0..8}]\n"
    assert read(folder, toml, "node.toml") == read(folder, yaml)


def test_keys_whose_values_are_commented_out_have_their_defaults(folder: Path) -> None:
    assert read(folder, "slices:\nentry:\nnetwork:\n  peers:\napi:\nlimits:\n") == load(None, {})
    assert read(folder, "# nothing\n") == load(None, {})


def test_an_alias_of_a_plain_value_is_allowed(folder: Path) -> None:
    config = read(
        folder, "slices: [{model: &m m.gguf, layers: 8..15}]\nentry: [{model: *m, layers: 0..8, name: a}]"
    )
    assert config.entry[0].model == config.slices[0].model


@pytest.mark.parametrize(
    ("file", "name"),
    [("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct-q4_1"), ("模型.gguf", "model")],
)
def test_a_model_is_named_after_its_file(folder: Path, file: str, name: str) -> None:
    (folder / file).touch()
    assert read(folder, f"entry: [{{model: {file}, layers: 0..8}}]").entry[0].name == name


@pytest.mark.parametrize(
    ("model", "kind", "name"),
    [
        (f"b3-{PEER}", "cid", f"b3-{PEER}"),
        ("qwen2.5-0.5b-instruct-q4_k_m", "name", "qwen2.5-0.5b-instruct-q4_k_m"),
        ("https://models.example/a/Tiny.GGUF?download=true", "url", "tiny"),
        ("hf://Qwen/Qwen2.5-3B-Instruct-GGUF/qwen2.5-3b.gguf", "hub", "qwen2-5-3b"),
    ],
)
def test_a_model_need_not_be_a_file(folder: Path, model: str, kind: str, name: str) -> None:
    (entry,) = read(folder, f"entry: [{{model: '{model}', layers: 0..8}}]").entry
    assert (entry.model.kind, entry.model.value, entry.name) == (kind, model, name)


def test_a_file_goes_before_a_name(folder: Path) -> None:
    (folder / "tiny").touch()
    config = read(folder, "slices: [{model: tiny, layers: 0..8}, {model: other, layers: 0..8}]")
    assert [slice_.model for slice_ in config.slices] == [
        ModelRef("path", str(folder / "tiny")),
        ModelRef("name", "other"),
    ]


@pytest.mark.parametrize(
    ("written", "bytes_"),
    [
        ("20 GB", 20 * 10**9),
        ("20GiB", 20 * 2**30),
        ("1.5 kb", 1500),
        ("2M", 2 * 10**6),
        ("7", 7),
        ("7 B", 7),
        (12345, 12345),
        ("none", None),
        (None, None),
    ],
)
def test_bytes_are_a_number_or_a_text_with_a_unit(written: object, bytes_: int | None, folder: Path) -> None:
    config = read(folder, json.dumps({"store": {"max_bytes": written, "rate": written}}))
    assert (config.store.max_bytes, config.store.rate) == (bytes_, bytes_)
    if isinstance(written, str) and bytes_ is not None:
        assert read(folder, f"store: {{rate: {written}/s}}").store.rate == bytes_


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", Address("127.0.0.1", 7718)),
        ("network: {listen: 0.0.0.0:9000}", Address("0.0.0.0", 9001)),
        ("network: {listen: 127.0.0.1:0}", Address("127.0.0.1", 0)),
        ("network: {listen: none}", None),
        ("store: {chunks: none}", None),
        ("network: {listen: none}\nstore: {chunks: 10.0.0.2:80}", Address("10.0.0.2", 80)),
    ],
)
def test_chunks_are_given_out_beside_where_peers_are_met(
    folder: Path, text: str, address: Address | None
) -> None:
    assert read(folder, text).chunks == address


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_load(path: Path, tmp_path: Path) -> None:
    (tmp_path / "smollm2.gguf").touch()
    (tmp_path / path.name).write_bytes(path.read_bytes())
    load(tmp_path / path.name, {})


def test_the_reference_example_shows_the_defaults() -> None:
    path = next(path for path in EXAMPLES if path.name == "node.yaml")
    assert load(path, {}) == load(None, {})


def test_everything_in_the_reference_example_can_be_switched_on(tmp_path: Path) -> None:
    (tmp_path / "smollm2.gguf").touch()
    config = read(tmp_path, switched_on())
    assert config.slices
    assert config.entry
    assert config.network.peers[0].slices
    assert config.network.bootstrap
    assert config.network.seeds


def test_the_reference_example_names_every_key_there_is() -> None:
    # Slices are named or left to the node; the example shows both.
    auto = re.search(r"(?m)^# auto:\n(#  .*\n)+", switched_on())
    assert auto is not None
    shown = [
        *_paths(yaml.safe_load(switched_on())),
        *_paths(yaml.safe_load(re.sub("(?m)^# ", "", auto[0]))),
    ]
    assert set(shown) == set(_known(NodeConfig))


@pytest.mark.parametrize(
    ("text", "auto"),
    [
        ("slices: auto", AutoConfig()),
        ("slices: auto\nauto:", AutoConfig()),
        ("slices: auto\nauto: {memory: 2 GiB, models: [tiny]}", AutoConfig(memory=2**31, models=(TINY,))),
    ],
)
def test_slices_can_be_left_to_the_node(folder: Path, text: str, auto: AutoConfig) -> None:
    config = read(folder, text)
    assert (config.slices, config.auto) == ((), auto)


def switched_on() -> str:
    """The reference example with its commented lists read as values."""
    text = next(path for path in EXAMPLES if path.name == "node.yaml").read_text()
    return re.sub(r"(?m)^( +)# (?=- |  )", r"\1", text)


def _paths(value: object, place: str = "") -> Iterator[str]:
    """Where a parsed file has a key: `limits.rows`; items of a list count as one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{place}{key}"
            yield from _paths(inner, f"{place}{key}.")
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item, place)


def _known(section: type[BaseModel], place: str = "") -> Iterator[str]:
    """Where the schema has a key."""
    for key, field in section.model_fields.items():
        yield f"{place}{key}"
        inner = (get_args(field.annotation) or (field.annotation,))[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _known(inner, f"{place}{key}.")


def test_variables_override_the_file(folder: Path) -> None:
    config = read(
        folder,
        "limits: {sessions: 2, rows: 16}\nbackend:\n",
        INTELNAV_LIMITS__SESSIONS="4",
        INTELNAV_ROLE="relay",
        INTELNAV_BACKEND__DEVICE="cpu",
        INTELNAV_NETWORK__LISTEN="null",
        INTELNAV_ENTRY="[{model: m.gguf, layers: 0..8}]",
    )
    assert (config.limits.sessions, config.limits.rows) == (4, 16)
    assert (config.role, config.backend.device, config.network.listen) == ("relay", "cpu", None)
    assert config.entry[0].model == ModelRef("path", str(folder / "m.gguf"))


def test_other_variables_are_left_alone() -> None:
    assert load(None, {"INTELNAV_NODE": "x", "INTELNAV_PORT": "tcp://10.0.0.1:80", "ROLE": "relay"}) == load(
        None, {}
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"INTELNAV_LIMITS__ROWS": "0"},
            "limits.rows = 0 (from INTELNAV_LIMITS__ROWS): write a number from 1 on",
        ),
        (
            {"INTELNAV_NETWROK__LISTEN": "none"},
            "netwrok: unknown key (from INTELNAV_NETWROK__LISTEN); did you mean network?",
        ),
        ({"INTELNAV_LIMITS__ROWS__X": "0", "INTELNAV_LIMITS__ROWS": "1"}, "rows is no section"),
        ({"INTELNAV_SLICES": "[{"}, "INTELNAV_SLICES = '[{': line 1"),
    ],
)
def test_a_bad_variable_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("role: boss", "role = 'boss': write 'host' or 'relay'"),
        ("rolle: host", "rolle: unknown key; did you mean role?"),
        ("Role: host", "Role: unknown key; did you mean role?"),
        (
            "zzz: 1",
            "zzz: unknown key; known here: role, data_dir, backend, slices, auto, entry, network, store, api, limits,",
        ),
        ("3: 1", "3: a key must be a word"),
        ("data_dir: 5", "data_dir = 5: a path is wanted here"),
        ("data_dir: m.gguf", "m.gguf is not a folder; write another path"),
        ("data_dir: ~nobody-has-this-name/x", "write the path in full"),
        (f"data_dir: /{'x' * 100}", "has 114 bytes, and that of a socket may have 107; write a shorter path"),
        ("backend: 5", "backend = 5: write a mapping of keys to values"),
        (
            "backend: {device: gpu}",
            "device = 'gpu': write 'auto', 'cpu', 'cuda', 'vulkan', 'metal' or 'rocm'",
        ),
        ("backend: {thread: 1}", "backend.thread: unknown key; did you mean threads?"),
        ("backend: {threads: -1}", "backend.threads = -1: write a number from 0 on"),
        ("backend: {threads: two}", "backend.threads = 'two': write a whole number"),
        ("backend: {threads: true}", "backend.threads = True: write a whole number"),
        ("backend: {threads: 1.5}", "backend.threads = 1.5: write a whole number"),
        ("backend: {gpu_layers: 10001}", "backend.gpu_layers = 10001: write a number up to 10000"),
        ("slices: all", "slices = 'all': write a list"),
        ("auto: {memory: 1}", "auto: has an effect with slices: auto only"),
        ("slices: auto\nrole: relay", "role = 'relay': a relay hosts no slices; remove slices: auto"),
        ("slices: auto\nnetwork: {listen: none}", "network.listen = none: peers cannot reach the slices"),
        ("slices: auto\nauto: {memory: lots}", "auto.memory = 'lots': write a number of bytes"),
        (
            "slices: [{model: m.gguf, layers: 0..1, context: 1}]",
            "slices[0].context = 1: write a number from 16",
        ),
        ("slices: [all]", "slices[0] = 'all': write a mapping of keys to values"),
        ("slices: [{model: m.gguf}]", "slices[0].layers: is missing; write layers: 8..15"),
        ("slices: [{layers: 8..15}]", "slices[0].model: is missing; write model: ./model.gguf"),
        ("slices: [{model: no.gguf, layers: 8..15}]", "slices[0].model = 'no.gguf': there is no file /"),
        ("slices: [{model: /m, layers: 8..15}]", "slices[0].model = '/m': there is no file /m; write"),
        ("slices: [{model: ~/m, layers: 8..15}]", "slices[0].model = '~/m': there is no file /"),
        ("slices: [{model: a b, layers: 8..15}]", "slices[0].model = 'a b': write a path, a URL, hf://"),
        ("slices: [{model: 7, layers: 8..15}]", "slices[0].model = 7: a path is wanted here"),
        ("slices: [{model: 'ftp://h/m', layers: 8..15}]", "a model is read from http://, https:// or hf://"),
        ("slices: [{model: 'http://', layers: 8..15}]", "'http://' is no URL: write http(s)://HOST/PATH"),
        ("slices: [{model: 'http://u:p@h/m', layers: 8..15}]", "a URL with a user, a password"),
        ("slices: [{model: 'hf://Qwen/m.gguf', layers: 8..15}]", "is no file on the hub: write hf://OWNER/"),
        ("slices: [{model: 'hf://a/../b', layers: 8..15}]", "is no file on the hub"),
        (
            f"slices: [{{model: b3-{PEER}, layers: 8..15}}, {{model: b3-{PEER}, layers: 14..16}}]",
            "slices[1].layers = 14..16: overlaps slices[0], 8..15, of that model",
        ),
        ("slices: [{model: ., layers: 8..15}]", "slices[0].model = '.': there is no file /"),
        ("slices: [{model: m.gguf, layers: 8-15}]", "'8-15' is no layer range: write START..END"),
        ("slices: [{model: m.gguf, layers: 15..8}]", "layers 15..8: the start must lie below the end"),
        ("slices: [{model: m.gguf, layers: [8, 15]}]", "slices[0].layers = a list: text is wanted here"),
        (
            "slices: [{model: m.gguf, layers: 8..15}, {model: ./m.gguf, layers: 14..16}]",
            "slices[1].layers = 14..16: overlaps slices[0], 8..15, of that model",
        ),
        (
            "slices: [{model: m.gguf, layers: 8..15}, {model: link.gguf, layers: 8..9}]",
            "slices[1].layers = 8..9: overlaps slices[0], 8..15, of that model",
        ),
        (f"slices: [{'{model: m.gguf, layers: 0..1},' * 1025}]", "slices = a list: write at most 1024 items"),
        (
            "role: relay\n" + HOST,
            "role = 'relay': a relay hosts no slices; remove slices, or write role: host",
        ),
        (
            HOST + "network: {listen: null}",
            "network.listen = none: peers cannot reach the slices; write HOST:PORT",
        ),
        (
            "entry: [{model: m.gguf, layers: 2..8}]",
            "entry[0].layers = 2..8: an entry runs the front layers; write 0..8",
        ),
        (
            "entry: [{model: m.gguf, layers: 0..8, name: a b}]",
            "entry[0].name = 'a b': write letters, digits, dot",
        ),
        ("entry: [{model: m.gguf, layers: 0..8, name: 7}]", "entry[0].name = 7: write text"),
        ("entry: [{model: m.gguf, layers: 0..8, head: me}]", "entry[0].head = 'me': write 'tail' or 'entry'"),
        (
            "entry: [{model: m.gguf, layers: 0..8}, {model: m.gguf, layers: 0..9}]",
            "entry[1].name = 'm': entry[0] has that name already; write another",
        ),
        (
            "network: {listen: 7717}",
            "network.listen = 7717: write HOST:PORT, for instance 127.0.0.1:7717, or none",
        ),
        ("network: {listen: here}", "network.listen = 'here': 'here' is no address: write HOST:PORT"),
        (
            "network: {listen: 'a:70000'}",
            "network.listen = 'a:70000': 'a:70000' is no address: write HOST:PORT",
        ),
        ("network: {dtype: f8}", "network.dtype = 'f8': write 'f32', 'f16', 'bf16' or 'i8'"),
        ("network: {peers: [{id: me, address: 'a:1'}]}", "network.peers[0].id = 'me': 'me' is no peer id"),
        (
            f"network: {{peers: [{{id: {PEER}}}]}}",
            "network.peers[0].address: is missing; write address: 192.0.2.7:7717",
        ),
        (f"network: {{peers: [{{id: {PEER}, address: 'a:0'}}]}}", "port 0 cannot be dialled"),
        (
            f"network: {{peers: [&p {{id: {PEER}, address: 'a:1'}}, {{id: {PEER}, address: 'a:2'}}]}}",
            f"network.peers[1].id = {PEER}: is network.peers[0] already; join the two",
        ),
        (
            f"network: {{peers: [{{id: {PEER}, address: 'a:1', slices: [{{model: b3-x, layers: 0..1}}]}}]}}",
            "network.peers[0].slices[0].model = 'b3-x': a CID is b3- and 52 characters",
        ),
        (
            "api: {listen: 127.0.0.1:7717}",
            "api.listen = 127.0.0.1:7717: network.listen has that address already",
        ),
        (
            "store: {max_bytes: much}",
            "store.max_bytes = 'much': write a number of bytes, for instance \"20 GB\"",
        ),
        ("store: {max_bytes: true}", "store.max_bytes = True: write a number of bytes"),
        ("store: {max_bytes: 1.5}", "store.max_bytes = 1.5: write a number of bytes"),
        ("store: {max_bytes: 0}", "store.max_bytes = 0: write a number from 1 to"),
        ("store: {max_bytes: -5}", "store.max_bytes = -5: write a number from 1 to"),
        ("store: {max_bytes: 99999999 TB}", "store.max_bytes = '99999999 TB': write a number from 1 to"),
        ("store: {max_bytes: 20 GB/s}", "store.max_bytes = '20 GB/s': write a number of bytes"),
        (
            "store: {rate: fast}",
            "store.rate = 'fast': write bytes per second, for instance \"10 MB/s\", or none",
        ),
        ("store: {rate: 0}", "store.rate = 0: write bytes per second"),
        ("store: {chunks: here}", "store.chunks = 'here': 'here' is no address"),
        (
            "store: {chunks: 127.0.0.1:7717}",
            "store.chunks = 127.0.0.1:7717: 127.0.0.1:7717 is network.listen already; write another port",
        ),
        ("api: {listen: 127.0.0.1:7718}", "store.chunks = auto: 127.0.0.1:7718 is api.listen already; write"),
        ("network: {listen: a:65535}", "store.chunks = auto: there is no port above network.listen's; write"),
        (
            f"network: {{peers: [{{id: {PEER}, address: 'a:1', chunks: 'a:0'}}]}}",
            "network.peers[0].chunks = 'a:0': port 0 cannot be dialled",
        ),
        ("network: {bootstrap: ['a:0']}", "network.bootstrap[0] = 'a:0': port 0 cannot be dialled"),
        ("network: {bootstrap: 'a:1'}", "network.bootstrap = 'a:1': write a list"),
        ("network: {mdns: 1}", "network.mdns = 1: write true or false"),
        (
            f"network: {{seeds: [{{key: {PEER}}}]}}",
            "network.seeds[0].url: is missing; write url: https://example.org/intelnav.seeds",
        ),
        (
            "network: {seeds: [{url: https://a/b}]}",
            "network.seeds[0].key: is missing; write key: what `intelnav seeds key` prints",
        ),
        (
            f"network: {{seeds: [{{url: http://a/b, key: {PEER}}}]}}",
            "seeds[0].url = 'http://a/b': http is for this machine alone; write https://",
        ),
        *(
            (f"network: {{seeds: [{{url: {url!r}, key: {PEER}}}]}}", "write https://HOST/PATH, without user")
            for url in ("ftp://a/b", "https:///b", "https://u:p@a/b", "https://a/b#c", "https://a/b c", "a")
        ),
        (
            f"network: {{seeds: [{{url: 'https://a:x/', key: {PEER}}}]}}",
            "network.seeds[0].url = 'https://a:x/': ",
        ),
        (
            f"network: {{seeds: [{{url: 'https://[/', key: {PEER}}}]}}",
            "network.seeds[0].url = 'https://[/': ",
        ),
        (f"network: {{seeds: [{{url: 7, key: {PEER}}}]}}", "network.seeds[0].url = 7: text is wanted here"),
        (
            "network: {seeds: [{url: https://a/b, key: me}]}",
            "network.seeds[0].key = 'me': 'me' is no peer id",
        ),
        (
            f"network: {{seeds: [&s {{url: https://a/b, key: {PEER}}}, {{url: https://a/b, key: {PEER}}}]}}",
            "network.seeds[1].url = 'https://a/b': is network.seeds[0] already; remove one",
        ),
        ("limits: {contribution: on}", "limits.contribution = True: write 'enforce' or 'off'"),
        ("limits: {sessions: 0}", "limits.sessions = 0: write a number from 1 on"),
        ("limits: {context: 64, rows: 65}", "limits.rows = 65: must not exceed limits.context, 64"),
        ("limits: {idle_seconds: 0}", "limits.idle_seconds = 0: write a number above 0"),
        ("limits: {idle_seconds: .inf}", "limits.idle_seconds = inf: write a finite number"),
        ("limits: {idle_seconds: soon}", "limits.idle_seconds = 'soon': write a number"),
        ("log: {level: loud}", "log.level = 'loud': write 'debug', 'info', 'warning' or 'error'"),
        (f"log: {{level: {'x' * 500}}}", f"log.level = '{'x' * 76}...: write"),
        ("- role", "holds no keys; write KEY: VALUE lines"),
        ("role: host\nrole: relay", "line 2, column 1: the key 'role' stands here twice: remove one"),
        ("log: {level: info, 'level': info}", "line 1, column 20: the key 'level' stands here twice"),
        ("role: [", "line 1, column 8: "),
        ("? [role]\n: host", "line 1, column 3: a key must be a word"),
        ("a: &x [1]\nb: *x", "line 2, column 4: an alias of a list or mapping is not allowed: write it out"),
        (
            "role: !!python/object/apply:os.getcwd []",
            "line 1, column 7: a tag is not allowed here: remove it",
        ),
        ("[" * (DEPTH + 1), f"nested more than {DEPTH} deep"),
        ("role: 0b_", "no YAML: "),
        ("role: \0", "no YAML: "),
        ("--- {}\n--- {}", "line 2, column 1: "),
    ],
)
def test_an_error_names_the_key_the_value_and_the_fix(folder: Path, text: str, message: str) -> None:
    (folder / "link.gguf").symlink_to("m.gguf")
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{folder}/node.yaml: ")


def test_all_problems_are_told_at_once(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(folder, "role: boss\nlog: {level: loud}\nslices: [{model: no.gguf, layers: 9}]\nfoo: 1\n")
    first, *problems = str(caught.value).splitlines()
    assert first == f"{folder}/node.yaml: 5 problems"
    assert [line.split()[0] for line in problems] == [
        "role",
        "slices[0].model",
        "slices[0].layers",
        "log.level",
        "foo:",
    ]


def test_a_long_list_of_problems_is_cut(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(folder, "slices: [" + "{}, " * 50 + "]")
    assert "100 problems\n" in str(caught.value)
    assert str(caught.value).endswith("\n  and 70 more")


def test_all_conflicts_are_told_at_once(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"3 problems\n.*role = .*\n.*network.listen = .*\n.*limits.rows = "
    ):
        read(folder, HOST + "role: relay\nnetwork: {listen: none}\nlimits: {rows: 100, context: 50}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("node.json", b"{}", "a config file is YAML or TOML; name it .yaml or .toml"),
        ("node.yaml", b"role: \xff", "byte 6 is not UTF-8; save the file as UTF-8 text"),
        ("node.yaml", b"#" * (FILE_BYTES + 1), "larger than 1048576 bytes"),
        ("node.toml", b"role = host", "no TOML: "),
        ("node.toml", b"a = " + b"[" * 5000, "no TOML: "),
        ("node.toml", b'role = "relay"\nrole = "host"', "no TOML: Cannot overwrite"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / name, {})
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}/no.yaml: No such file"):
        load(tmp_path / "no.yaml", {})
    with pytest.raises(ConfigError, match="Is a directory"):
        load(_made(tmp_path / "folder.yaml"), {})


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


YAML_WORDS = st.sampled_from(
    [
        *"{}[]:,-?&*!|>'\"#%@`\n\t ~",
        "\n  ",
        "- ",
        ": ",
        "role",
        "slices",
        "layers",
        "0..8",
        "<<",
        "!!int",
        "*a",
        "&a",
        "0x",
    ]
)


@pytest.mark.parametrize("name", ["any.yaml", "any.toml"])
@given(text=st.one_of(st.text(), st.lists(YAML_WORDS, max_size=30).map("".join)))
@settings(max_examples=150, deadline=None)
def test_arbitrary_text_is_a_config_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        config = load(path, {})
    except ConfigError as error:
        assert os.fspath(path) in str(error)
    else:
        assert isinstance(config, NodeConfig)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SECTIONS = st.sampled_from(list(NodeConfig.model_fields))


@given(sections=st.dictionaries(SECTIONS, JSON, max_size=4))
@settings(max_examples=150, deadline=None)
def test_arbitrary_values_under_real_keys_are_a_config_or_a_config_error(sections: dict[str, object]) -> None:
    environ = {f"INTELNAV_{key.upper()}": json.dumps(value) for key, value in sections.items()}
    try:
        load(None, environ)
    except ConfigError as error:
        assert str(error).startswith(("environment: ", "INTELNAV_"))
