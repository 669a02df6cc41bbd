"""`intelnav seeds`: signed lists of addresses that nodes start from."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from intelnav.domain.advert import Address
    from intelnav.wire.seeds import SeedList

seeds = typer.Typer(help="Signed lists of addresses that nodes start from.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DAY = 86_400
_FETCH_SECONDS = 20.0


@seeds.command()
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The key file; made if there is none.")],
    as_json: AsJson = False,
) -> None:
    """Print the key that nodes pin, and make it first if need be."""
    from intelnav.keyfile import load_or_create

    signer = str(load_or_create(file.absolute()).peer)
    print(json.dumps({"key": signer}) if as_json else signer)


@seeds.command()
def sign(
    source: Annotated[
        Path, typer.Argument(metavar="LIST", help="YAML or TOML with `addresses: [HOST:PORT]`.")
    ],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Whose signature it gets.")],
    days: Annotated[int, typer.Option(min=1, max=366, help="How long nodes may start to use it.")] = 90,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it; LIST.seeds if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign a list, as a file to be put on the web."""
    from intelnav.domain.errors import ConfigError, PeerError
    from intelnav.keyfile import load_or_create
    from intelnav.wire.seeds import read_seeds, sign_seeds

    addresses = _addresses(source)
    if not key.exists():
        raise ConfigError(f"--key {key}: there is no such file; make one with `intelnav seeds key {key}`")
    identity = load_or_create(key.absolute())
    issued = int(time.time())
    try:
        data = sign_seeds(identity, addresses, issued=issued, expires=issued + days * DAY)
    except PeerError as error:
        raise ConfigError(f"{source}: {error}") from error
    target = out if out is not None else source.with_suffix(".seeds")
    try:
        target.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror}; name another file with --out") from error
    if as_json:
        print(json.dumps({"file": str(target), **_report(read_seeds(data, identity.peer))}))
        return
    print(f"{target}: {len(addresses)} addresses, for {days} days.")
    print(
        f"Put it on the web, and into the nodes' `network.seeds`: {{url: https://..., key: {identity.peer}}}"
    )


@seeds.command()
def show(
    where: Annotated[str, typer.Argument(metavar="URL-OR-FILE", help="A signed list.")],
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Whose signature it must bear.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a signed list; one with a wrong signature is an error."""
    from intelnav.domain.errors import ConfigError, PeerError
    from intelnav.domain.identity import PeerId
    from intelnav.wire.seeds import read_seeds

    try:
        pinned = PeerId.parse(key) if key is not None else None
    except ValueError as error:
        raise typer.BadParameter(f"--key {error}") from None
    data = _fetched(where) if where.startswith(("https://", "http://")) else _read(Path(where))
    try:
        report = _report(read_seeds(data, pinned))
    except PeerError as error:
        raise ConfigError(f"{where}: {error}") from error
    if as_json:
        print(json.dumps(report))
        return
    ended = ", which is over" if report["expired"] else ""
    print(
        f"signed by {report['key']}\nissued {_date(report['issued'])}, until {_date(report['expires'])}{ended}"
    )
    print(*report["addresses"], sep="\n")


def _addresses(source: Path) -> "tuple[Address, ...]":
    """The addresses in the list file; ConfigError names what is wrong."""
    from intelnav.config.text import read_file
    from intelnav.domain.advert import Address
    from intelnav.domain.errors import ConfigError

    tree = read_file(source)
    if tree.keys() != {"addresses"} or not isinstance(tree["addresses"], list):
        raise ConfigError(f"{source}: write the one key `addresses`, with a list of HOST:PORT")
    addresses = []
    for index, text in enumerate(tree["addresses"]):
        try:
            addresses.append(Address.parse(str(text)))
        except ValueError as error:
            raise ConfigError(f"{source}: addresses[{index}]: {error}") from error
    return tuple(addresses)


def _report(listed: "SeedList") -> dict[str, Any]:
    return {
        "key": str(listed.signer),
        "issued": listed.issued,
        "expires": listed.expires,
        "expired": listed.expires <= time.time(),
        "addresses": [str(address) for address in listed.addresses],
    }


def _date(at: int) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at} s after 1970"


def _read(path: Path) -> bytes:
    from intelnav.domain.errors import ConfigError
    from intelnav.wire.seeds import MAX_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a file that can be read, or a URL") from error


def _fetched(url: str) -> bytes:
    """What lies at `url`, cut behind the largest list that could be read."""
    import httpx

    from intelnav.domain.errors import ConfigError
    from intelnav.wire.seeds import MAX_BYTES

    data = b""
    try:
        with (
            httpx.Client(headers={"accept-encoding": "identity"}, timeout=_FETCH_SECONDS) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != 200:
                raise ConfigError(f"{url}: the server answered with HTTP {response.status_code}")
            for part in response.iter_raw():
                data += part
                if len(data) > MAX_BYTES:
                    break
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise ConfigError(f"{url}: cannot be fetched: {error or type(error).__name__}") from error
    return data
