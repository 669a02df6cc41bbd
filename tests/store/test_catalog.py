import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from intelnav.domain.errors import ConfigError
from intelnav.store.catalog import EMBEDDED, read_catalog, shipped_catalog
from intelnav.store.manifest import manifest_of
from intelnav.store.model_file import describe

FOLDER = Path(__file__).parents[2] / "config/catalog"
SOUND: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "architecture": "llama",
    "blocks": 6,
    "quantisation": "F32",
    "origin": "https://models.example/tiny.gguf",
    "license": "MIT",
    "cuts": [2, 4],
}


def test_the_shipped_catalog_has_the_models_that_are_promised() -> None:
    blocks = {entry.name: entry.blocks for entry in shipped_catalog().entries}
    assert blocks == {
        "smollm2-135m-instruct-q4_1": 30,
        "qwen2.5-0.5b-instruct-q4_k_m": 24,
        "qwen2.5-1.5b-instruct-q4_k_m": 28,
        "qwen2.5-3b-instruct-q4_k_m": 36,
        "qwen2.5-7b-instruct-q4_k_m": 28,
        "qwen2.5-coder-1.5b-instruct-q4_k_m": 28,
        "qwen2.5-coder-7b-instruct-q4_k_m": 28,
    }


def test_the_embedded_model_is_what_its_entry_says(smollm2: Path) -> None:
    entry = shipped_catalog().of_origin(EMBEDDED)
    assert entry is not None
    model = describe(smollm2)
    assert (entry.architecture, entry.blocks) == (model.architecture, model.blocks)
    assert entry.size == smollm2.stat().st_size
    assert entry.sha256 == hashlib.sha256(smollm2.read_bytes()).hexdigest()
    manifest = manifest_of(smollm2)
    assert entry.quantisation == manifest.quantisation
    assert entry.cid == manifest.cid


def test_entries_are_found() -> None:
    catalog = shipped_catalog()
    (entry,) = [entry for entry in catalog.entries if entry.cid is not None]
    assert entry.cid is not None
    assert catalog.named(entry.name) is catalog.of_cid(entry.cid) is catalog.of_origin(EMBEDDED) is entry
    assert catalog.named("tiny") is catalog.of_cid("b3-") is catalog.of_origin("https://h/m") is None


def write(folder: Path, **changes: Any) -> Path:
    tree = {key: value for key, value in (SOUND | changes).items() if value is not ...}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree))
    return folder


def test_an_entry_may_leave_out_what_is_not_known(tmp_path: Path) -> None:
    (entry,) = read_catalog(write(tmp_path)).entries
    assert (entry.size, entry.sha256, entry.cid, entry.cuts) == (None, None, None, (2, 4))
    (tmp_path / "notes.txt").write_text("no entry")
    assert read_catalog(write(tmp_path, cuts=[])).entries[0].cuts == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": ...}, "blocks: is missing; write blocks: a number from 1 to 512"),
        ({"blockss": 6}, "blockss: unknown key; did you mean blocks?"),
        ({"colour": "red"}, "colour: unknown key; known here: name, title, "),
        ({"7": 1}, "7: unknown key"),
        ({"name": "a b"}, "name = 'a b': write letters, digits, dot, dash and underscore only"),
        ({"name": "../tiny"}, "name = '../tiny': write letters"),
        ({"name": "b3-" + "a" * 52}, "write letters, digits"),
        ({"name": "other"}, "name = 'other': name the file other.yaml"),
        ({"title": ""}, "title = '': write a line of text"),
        ({"title": "a\x1b[31m"}, "write a line of text"),
        ({"title": "x" * 200}, f"title = '{'x' * 76}...: write a line of text"),
        ({"license": None}, "license = None: write a line of text"),
        ({"architecture": "gpt9"}, "architecture = 'gpt9': write one of exaone, falcon"),
        ({"blocks": 0}, "blocks = 0: write a number from 1 to 512"),
        ({"blocks": True}, "blocks = True: write a number"),
        ({"blocks": "6"}, "blocks = '6': write a number"),
        ({"origin": "ftp://h/m"}, "origin = 'ftp://h/m': write a URL, hf://OWNER/REPO/FILE, or embedded"),
        ({"origin": "/etc/passwd"}, "origin = '/etc/passwd': write a URL"),
        ({"origin": "hf://a/b"}, "origin = 'hf://a/b': write a URL"),
        ({"cuts": [4, 2]}, "cuts = [4, 2]: write rising layers"),
        ({"cuts": [0]}, "cuts = [0]: write rising layers"),
        ({"cuts": [6]}, "cuts = [6]: write rising layers"),
        ({"cuts": "8"}, "cuts = '8': write rising layers"),
        ({"cuts": [1.5]}, "cuts = [1.5]: write rising layers"),
        ({"size": 0}, "size = 0: write the number of bytes, or leave it out"),
        ({"size": None}, "size = None: write the number of bytes"),
        ({"sha256": "A" * 64}, "write 64 digits of 0-9 and a-f"),
        ({"sha256": 5}, "sha256 = 5: write 64 digits"),
        ({"cid": "b3-x"}, "cid = 'b3-x': write b3- and 52 characters"),
    ],
)
def test_an_error_names_the_file_the_key_and_the_fix(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_catalog(write(tmp_path, **changes))
    assert str(caught.value).startswith(f"{tmp_path}/tiny.yaml: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff", "byte 0 is not UTF-8"),
        (b"- 1", "holds no keys"),
        (b"", "holds no keys"),
        (b"name: [", "line 1, column 8"),
        (b"a: !!python/object/apply:os.getcwd []", "line 1, column 4: a tag is not allowed"),
        (b"#" * 70_000, "larger than 65536 bytes"),
    ],
)
def test_what_is_no_entry_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "tiny.yaml").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_catalog(tmp_path)
    assert f"{tmp_path}/tiny.yaml: {message}" in str(caught.value)


def test_a_catalog_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}/none: No such file"):
        read_catalog(tmp_path / "none")
