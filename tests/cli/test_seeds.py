import json
from pathlib import Path

import pytest

from intelnav.domain.identity import PeerId
from intelnav.wire.seeds import MAX_BYTES, read_seeds, sign_seeds
from tests.cli.conftest import Cli
from tests.web import web
from tests.wire.test_seeds import ADDRESSES, SIGNER


@pytest.fixture
def signed(cli: Cli, tmp_path: Path) -> Path:
    """A list that the command signed with a key that it made."""
    (tmp_path / "list.yaml").write_text("addresses:\n  - 192.0.2.9:7717\n  - '[2001:db8::9]:7717'\n")
    assert cli("seeds", "key", "signer.key").returncode == 0
    result = cli("seeds", "sign", "list.yaml", "--key", "signer.key")
    assert result.returncode == 0, result
    assert result.stdout.startswith("list.seeds: 2 addresses, for 90 days.\n")
    return tmp_path / "list.seeds"


def test_a_key_is_made_once_and_for_its_owner_alone(cli: Cli, tmp_path: Path) -> None:
    first = cli("seeds", "key", "a/signer.key")
    assert PeerId.parse(first.stdout.strip())
    assert (tmp_path / "a" / "signer.key").stat().st_mode & 0o777 == 0o600
    again = cli("seeds", "key", "a/signer.key", "--json")
    assert json.loads(again.stdout) == {"key": first.stdout.strip()}


def test_a_signed_list_is_what_nodes_accept_and_people_can_see(cli: Cli, signed: Path) -> None:
    key = cli("seeds", "key", "signer.key").stdout.strip()
    seeds = read_seeds(signed.read_bytes(), PeerId.parse(key))
    assert list(map(str, seeds.addresses)) == ["192.0.2.9:7717", "[2001:db8::9]:7717"]
    assert seeds.expires - seeds.issued == 90 * 86_400
    shown = cli("seeds", "show", "list.seeds", "--key", key)
    assert shown.returncode == 0
    assert f"signed by {key}\n" in shown.stdout
    assert shown.stdout.endswith("192.0.2.9:7717\n[2001:db8::9]:7717\n")
    report = json.loads(cli("seeds", "show", "list.seeds", "--json").stdout)
    assert report == {
        "key": key,
        "issued": seeds.issued,
        "expires": seeds.expires,
        "expired": False,
        "addresses": ["192.0.2.9:7717", "[2001:db8::9]:7717"],
    }


def test_days_and_place_are_the_callers(cli: Cli, signed: Path, tmp_path: Path) -> None:
    result = cli("seeds", "sign", "list.yaml", "--key", "signer.key", "--days", "1", "--out", "x", "--json")
    report = json.loads(result.stdout)
    assert (report["file"], report["expires"] - report["issued"]) == ("x", 86_400)
    assert read_seeds((tmp_path / "x").read_bytes(), None).expires == report["expires"]


def test_a_list_is_shown_from_the_web_even_when_it_is_over(cli: Cli) -> None:
    with web() as served:
        served.content = sign_seeds(SIGNER, ADDRESSES, issued=1000, expires=2000)
        shown = cli("seeds", "show", served.url)
        assert "1970-01-01 00:33 UTC, which is over\n192.0.2.9:7717" in shown.stdout, shown
        assert json.loads(cli("seeds", "show", served.url, "--json").stdout)["expired"] is True
        served.content = bytes(MAX_BYTES + 1)
        assert "at most 16384 bytes" in cli("seeds", "show", served.url).stderr
        served.status = 404
        refused = cli("seeds", "show", served.url)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "HTTP 404" in refused.stderr
    assert "cannot be fetched" in cli("seeds", "show", served.url).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ("seeds sign list.yaml --key no.key", 1, "make one with `intelnav seeds key no.key`"),
        ("seeds sign no.yaml --key signer.key", 1, "no.yaml: No such file"),
        ("seeds sign list.txt --key signer.key", 1, "name it .yaml or .toml"),
        ("seeds sign bad.yaml --key signer.key", 1, "bad.yaml: addresses[1]: '7' is no address"),
        ("seeds sign port.yaml --key signer.key", 1, "port.yaml: port 0 cannot be dialled"),
        ("seeds sign other.yaml --key signer.key", 1, "write the one key `addresses`"),
        ("seeds sign list.yaml --key signer.key --days 367", 2, "--days"),
        ("seeds sign list.yaml --key signer.key --out no/where", 1, "name another file with --out"),
        ("seeds show list.yaml", 1, "list.yaml: this is no seed list"),
        ("seeds show no.seeds", 1, "no.seeds: No such file"),
        ("seeds show list.seeds --key me", 2, "'me' is no peer id"),
        (f"seeds show list.seeds --key {SIGNER.peer}", 1, f"and {SIGNER.peer} is wanted"),
    ],
)
def test_what_is_wrong_is_said(
    cli: Cli, signed: Path, tmp_path: Path, arguments: str, code: int, reason: str
) -> None:
    (tmp_path / "bad.yaml").write_text("addresses: ['a:1', 7]")
    (tmp_path / "port.yaml").write_text("addresses: ['a:0']")
    (tmp_path / "other.yaml").write_text("adresses: ['a:1']")
    result = cli(*arguments.split())
    assert result.returncode == code
    assert reason in " ".join(result.stderr.split()), result.stderr
    assert "Traceback" not in result.stderr
