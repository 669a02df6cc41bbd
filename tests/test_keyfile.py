import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from intelnav.domain.errors import ConfigError
from intelnav.domain.identity import Identity
from intelnav.keyfile import load_or_create


def test_the_first_start_makes_a_private_file_and_the_next_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "peer.key"
    first = load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert first.peer == Identity(path.read_bytes()).peer == load_or_create(path).peer
    assert list(path.parent.iterdir()) == [path]


def test_every_key_is_another(tmp_path: Path) -> None:
    assert load_or_create(tmp_path / "a").peer != load_or_create(tmp_path / "b").peer


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_may_use_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "my peer.key"
    load_or_create(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=r"chmod 600 '.*my peer\.key'"):
        load_or_create(path)


@pytest.mark.parametrize("size", [0, 31, 33, 1000])
def test_a_file_of_another_length_is_refused_and_kept(tmp_path: Path, size: int) -> None:
    path = tmp_path / "peer.key"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=f"holds {size} bytes, not 32"):
        load_or_create(path)
    assert path.read_bytes() == bytes(size)


def test_a_folder_or_a_pipe_in_its_place_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder"):
        with pytest.raises(ConfigError, match=r"regular file|Is a directory"):
            load_or_create(tmp_path / name)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"peer\.key"):
        load_or_create(tmp_path / "file" / "peer.key")


def test_two_first_starts_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    with ThreadPoolExecutor(8) as pool:
        peers = set(pool.map(lambda _: load_or_create(path).peer, range(8)))
    assert len(peers) == 1
    assert list(tmp_path.iterdir()) == [path]
