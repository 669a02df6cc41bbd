import os
import socket
import stat
from pathlib import Path

import pytest

from intelnav.api.listeners import tcp_listener, unix_listener
from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError


def test_only_the_owner_can_open_the_socket_and_it_goes_with_its_listener(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    before = os.umask(0)
    try:
        with unix_listener(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert os.umask(0) == 0
        assert not path.exists()
    finally:
        os.umask(before)


def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with unix_listener(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with unix_listener(path):
        with pytest.raises(ConfigError, match="another node is running"), unix_listener(path):
            pass
        assert path.exists()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"), unix_listener(path):
        pass
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["missing/control.sock", "x" * 150])
def test_a_path_that_cannot_be_bound_is_a_config_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"), unix_listener(tmp_path / name):
        pass


@pytest.mark.anyio
async def test_a_port_is_chosen_where_none_is_given() -> None:
    with await tcp_listener(Address("localhost", 0)) as listener:
        assert listener.getsockname()[1] > 0


@pytest.mark.anyio
async def test_an_address_of_another_machine_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        await tcp_listener(Address("192.0.2.1", 0))


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["a..b", "x" * 64, "a\0b", "no-such-host.invalid"])
async def test_a_host_name_that_cannot_be_is_a_config_error(host: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        await tcp_listener(Address(host, 0))
