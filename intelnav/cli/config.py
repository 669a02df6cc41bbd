"""`intelnav config`: what a config file can hold, whether one is right, and what comes out of it."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

config = typer.Typer(help="Check, show and describe config files.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A YAML or TOML file.")]
MaybeFile = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="A YAML or TOML file; without one, the defaults.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@config.command()
def check(file: File, as_json: AsJson = False) -> None:
    """Say whether a node would take this file, with the INTELNAV_... variables that are set. Exit code 1 if not."""
    from intelnav.config import load
    from intelnav.domain.errors import ConfigError

    try:
        load(file, os.environ)
    except ConfigError as error:
        if not as_json:
            raise
        print(json.dumps({"file": str(file), "valid": False, "error": str(error)}))
        raise typer.Exit(1) from None
    print(json.dumps({"file": str(file), "valid": True, "error": None}) if as_json else f"{file} is valid.")


@config.command()
def show(file: MaybeFile = None, as_json: AsJson = False) -> None:
    """Print the config that a node would run with: the file, the INTELNAV_... variables over it, and all defaults."""
    import yaml

    from intelnav.config import as_tree, load

    tree = as_tree(load(file, os.environ))
    if as_json:
        print(json.dumps(tree))
    else:
        print(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), end="")


@config.command()
def schema() -> None:
    """Print the JSON Schema of config files, for editors."""
    from intelnav.config.reference import json_schema

    print(json.dumps(json_schema(), indent=2))
