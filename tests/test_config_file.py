"""The config file of a running node: when it counts as changed, and what of it counts."""

import os
from pathlib import Path

import anyio
import pytest

from intelnav import config_file as module
from intelnav.config import NodeConfig, load
from intelnav.config_file import ConfigFile, restart_keys
from intelnav.domain.errors import ConfigError, ContentError

pytestmark = pytest.mark.anyio

DEADLINE = 10


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "node.yaml"
    path.write_text("limits: {sessions: 3}\n")
    return path


@pytest.fixture
def file(path: Path) -> ConfigFile:
    return ConfigFile(path, {}, load(path, {}))


async def sound(_: NodeConfig) -> None:
    """Nothing that the config names is wrong."""


async def changed(file: ConfigFile) -> None:
    with anyio.fail_after(DEADLINE):
        await file.changed()


def write(path: Path, text: str) -> None:
    path.write_text(text)


def replace(path: Path, text: str) -> None:
    """As many an editor does."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.rename(path)


@pytest.mark.parametrize("how", [write, replace])
async def test_an_edit_is_noticed_and_counts(file: ConfigFile, path: Path, how: object) -> None:
    assert callable(how)
    how(path, "limits: {sessions: 4}\n")
    await changed(file)
    assert await file.load(sound)
    assert file.config.limits.sessions == 4
    assert (file.generation, file.error) == (2, None)
    how(path, "limits: {sessions: 4}  # as before\n")
    await changed(file)
    assert not await file.load(sound)
    assert file.generation == 3


async def test_a_file_that_is_left_alone_does_not_change(file: ConfigFile) -> None:
    with anyio.move_on_after(0.1) as patience:
        await file.changed()
    assert patience.cancelled_caught


async def test_what_is_wrong_changes_nothing(file: ConfigFile, path: Path) -> None:
    write(path, "limits: {sessions: many}\n")
    await changed(file)
    with pytest.raises(ConfigError, match=r"limits\.sessions = 'many'"):
        await file.load(sound)
    assert (file.config.limits.sessions, file.generation) == (3, 1)
    status = file.status()
    assert (status["valid"], "write a whole number" in status["error"]) == (False, True)


@pytest.mark.parametrize("kind", [ContentError, OSError])
async def test_what_the_file_names_may_be_wrong_and_become_right(
    file: ConfigFile, path: Path, kind: type[Exception]
) -> None:
    problems = ["no sound model"]

    async def check(_: NodeConfig) -> None:
        if problems:
            raise kind(problems[0])

    write(path, "limits: {sessions: 4}\n")
    await changed(file)
    with pytest.raises(ConfigError, match="no sound model"):
        await file.load(check)
    assert file.error == "no sound model"
    problems.clear()
    # Nobody touches the file.
    await changed(file)
    assert await file.load(check)
    status = file.status()
    assert (status["error"], status["generation"]) == (None, 2)


async def test_a_file_that_is_gone_is_an_error_until_it_is_back(file: ConfigFile, path: Path) -> None:
    os.unlink(path)
    await changed(file)
    with pytest.raises(ConfigError, match="No such file"):
        await file.load(sound)
    assert file.config.limits.sessions == 3
    write(path, "limits: {sessions: 5}\n")
    await changed(file)
    assert await file.load(sound)


async def test_links_on_the_way_are_followed(tmp_path: Path) -> None:
    for name, sessions in (("old", 1), ("new", 2)):
        os.mkdir(tmp_path / name)
        write(tmp_path / name / "node.yaml", f"limits: {{sessions: {sessions}}}\n")
    os.symlink("old", tmp_path / "current")
    path = tmp_path / "current" / "node.yaml"
    file = ConfigFile(path, {}, load(path, {}))
    os.symlink("new", tmp_path / "next")
    os.rename(tmp_path / "next", tmp_path / "current")
    await changed(file)
    assert await file.load(sound)
    assert file.config.limits.sessions == 2


async def test_a_node_without_a_file_reads_its_environment_again() -> None:
    environ = {"INTELNAV_LIMITS__SESSIONS": "3"}
    file = ConfigFile(None, environ, load(None, environ))
    environ["INTELNAV_LIMITS__SESSIONS"] = "4"
    assert await file.load(sound)
    assert file.config.limits.sessions == 4


async def test_keys_of_the_start_stay_as_they_were_and_are_named(file: ConfigFile, path: Path) -> None:
    write(
        path,
        "role: relay\nlog: {level: debug, format: json}\nnetwork: {listen: '127.0.0.1:1', dtype: f32}\n"
        "store: {chunks: none, rate: 5}\n",
    )
    before = file.config
    assert await file.load(sound)
    assert file.restart == ("role", "network.listen", "store.chunks", "log.format")
    assert file.status()["restart"] == list(file.restart)
    assert file.config.role == "host"
    assert file.config.network.listen == before.network.listen
    assert (file.config.network.dtype, file.config.log.level, file.config.store.rate) == ("f32", "debug", 5)
    assert (file.config.log.format, file.config.store.chunks) == ("human", "auto")


async def test_a_loopback_node_that_is_told_of_the_world_needs_a_restart() -> None:
    alone = load(None, {})
    outside = load(None, {"INTELNAV_NETWORK__BOOTSTRAP": "['192.0.2.7:7717']"})
    beside = load(None, {"INTELNAV_NETWORK__BOOTSTRAP": "['127.0.0.1:7719']"})
    assert restart_keys(alone, outside) == ("network.bootstrap",)
    assert restart_keys(alone, beside) == ()


async def test_a_text_is_read_as_if_it_stood_in_the_file(file: ConfigFile, path: Path) -> None:
    os.mkdir(path.parent / "data")
    found, restart = await file.parsed("data_dir: ./data\nlimits: {sessions: 9}\n", "yaml")
    assert found.limits.sessions == 9
    assert found.data_dir == file.config.data_dir
    assert restart == ("data_dir",)
    assert (await file.parsed("[limits]\nsessions = 8\n", "toml"))[0].limits.sessions == 8
    for text in ("limits: 3", "- a", "x" * 2**21):
        with pytest.raises(ConfigError):
            await file.parsed(text, "yaml")
    assert file.generation == 1
