"""The `intelnav` command."""

from typing import Annotated

import typer

from intelnav import __version__
from intelnav.cli.ask import ask
from intelnav.cli.chat import chat
from intelnav.cli.config import config
from intelnav.cli.doctor import doctor
from intelnav.cli.events import events, reload
from intelnav.cli.hosting import hosting, join, leave
from intelnav.cli.init import init
from intelnav.cli.models import models
from intelnav.cli.network import peers, route
from intelnav.cli.plan import plan
from intelnav.cli.seeds import seeds
from intelnav.cli.service import service
from intelnav.cli.status import status
from intelnav.cli.swarm import swarm
from intelnav.domain.errors import IntelNavError

# Plain help, and imports inside the commands: `--help` must not wait for rich and httpx.
app = typer.Typer(
    help="Ask models whose layers run on many machines.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(init)
app.command()(ask)
app.command()(chat)
app.command()(status)
for command in (plan, hosting, leave, join, reload, events):
    app.command()(command)
app.command()(doctor)
app.command()(peers)
app.command()(route)
app.add_typer(config, name="config")
app.add_typer(models, name="models")
app.add_typer(seeds, name="seeds")
app.add_typer(service, name="service")
app.add_typer(swarm, name="swarm")


def _show(version: bool) -> None:
    if version:
        print(f"intelnav {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_show, is_eager=True, help="Show the version.")]


@app.callback()
def _options(version: Version = False) -> None:
    pass


def main() -> None:
    """Run the command; what went wrong is one message and exit code 1 (2 for wrong usage)."""
    try:
        app()
    except IntelNavError as error:
        from intelnav.cli.terminal import complain

        complain(error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
