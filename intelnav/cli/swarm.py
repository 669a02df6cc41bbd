"""`intelnav swarm`: a whole swarm on this machine, to try things out."""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from intelnav.cli.ask import AsJson, MaxTokens, Raw, Seed, Temperature, answer, check_raw, messages

if TYPE_CHECKING:
    from intelnav.cli.swarm_files import Swarm
    from intelnav.cli.swarm_nodes import Report

swarm = typer.Typer(help="A whole swarm on this machine, to try things out.", no_args_is_help=True)

Root = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the swarm lives; two in two folders get along.")
]
ModelFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="GGUF to cut; the embedded SmolLM2 if left out.")
]
Cuts = Annotated[str | None, typer.Option(help="Layers at which a new node begins, for instance 8,15,22.")]
Nodes = Annotated[
    int, typer.Option(min=2, help="Number of nodes that share the layers evenly, without --cuts.")
]
WireDtype = Annotated[Literal["f16", "bf16", "f32", "i8"], typer.Option(help="Encoding of hidden states.")]
Head = Annotated[
    Literal["tail", "entry"], typer.Option(help="Who samples: the last node, or the entry itself.")
]
Threads = Annotated[int, typer.Option(min=0, help="Threads of each node; 0 lets the node choose.")]

DEMO_QUESTION = "What is the capital of France?"
# With the instructions that its template puts in by itself, SmolLM2 answers this in broken French, sliced or whole.
SANDBOX_SYSTEM = "You are a helpful assistant."
NEXT_QUESTION = "Why is the sky blue?"
System = Annotated[
    str | None, typer.Option(help=f'Instructions that precede the question; "{SANDBOX_SYSTEM}" if left out.')
]


@swarm.command()
def up(
    model: ModelFile = None,
    cuts: Cuts = None,
    nodes: Nodes = 4,
    dtype: WireDtype = "f16",
    head: Head = "tail",
    threads: Threads = 0,
    root: Root = None,
) -> None:
    """Start the nodes and wait until they are ready."""
    with _progress() as report:
        started = _start(_root(root), report, model, cuts, nodes, dtype, head, threads)
    print(f"{len(started.members)} nodes are up in {started.root}, with {started.model}.")
    suffix = f" --root {root}" if root is not None else ""
    print(f'Next: intelnav swarm ask "{NEXT_QUESTION}"{suffix}')


@swarm.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="The question.")],
    raw: Raw = False,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    system: System = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Ask the swarm one question."""
    from intelnav.cli.client import NodeClient

    check_raw(raw, system)
    found = _found(_root(root))
    with NodeClient(str(found.entry.socket)) as node:
        answer(
            node,
            prompt if raw else messages(prompt, SANDBOX_SYSTEM if system is None else system),
            as_json,
            model=found.model,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
        )


@swarm.command()
def status(as_json: AsJson = False, root: Root = None) -> None:
    """Show the nodes of the swarm."""
    from rich.console import Console

    from intelnav.cli.swarm_files import node_states
    from intelnav.cli.terminal import table

    found = _found(_root(root))
    states = node_states(found)
    if as_json:
        print(json.dumps({"root": str(found.root), "model": found.model, "nodes": states}))
        return
    grid = table(f"{found.model} in {found.root}", "node", "peer", "layers", "listens on", "pid", "state")
    for node in states:
        listen = node["listen"] or "-"
        grid.add_row(node["name"], node["peer"][:8], node["layers"], listen, str(node["pid"]), node["state"])
    Console(highlight=False).print(grid)


@swarm.command()
def down(root: Root = None) -> None:
    """End the nodes of the swarm."""
    from intelnav.cli.swarm_files import Swarm, locked
    from intelnav.cli.swarm_nodes import stop

    place = _root(root)
    with locked(place):
        found = Swarm.load(place)
        ended = stop(found) if found is not None else 0
    print(f"The swarm in {place} is down." if ended else f"Nothing runs in {place}.")


@swarm.command()
def demo() -> None:
    """Show it all: four nodes, one question, the chain that answered it."""
    from rich.console import Console

    from intelnav.cli.client import NodeClient
    from intelnav.cli.swarm_nodes import stop
    from intelnav.cli.terminal import chain_table, show, summary

    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="intelnav-")))
        with _progress() as report:
            started = _start(root, report)
        stack.callback(stop, started)
        print(f"\nFour processes hold {started.model}; none of them has all of it.\n\n> {DEMO_QUESTION}\n")
        node = stack.enter_context(NodeClient(str(started.entry.socket)))
        question = messages(DEMO_QUESTION, SANDBOX_SYSTEM)
        with node.ask(question, started.model, temperature=0, max_tokens=64) as reply:
            show(reply)
        print(f"\n{summary(reply)}\n")
        Console(highlight=False).print(chain_table(reply.chain))
    print(f'\nNext: intelnav swarm up, then intelnav swarm ask "{NEXT_QUESTION}"')


def _root(root: Path | None) -> Path:
    from intelnav.cli.swarm_files import default_root

    return root.absolute() if root is not None else default_root()


def _found(root: Path) -> "Swarm":
    from intelnav.cli.swarm_files import Swarm
    from intelnav.domain.errors import ConfigError

    found = Swarm.load(root)
    if found is None:
        raise ConfigError(f"there is no swarm in {root}: start one with `intelnav swarm up`, or say --root")
    return found


def _start(
    root: Path,
    report: "Report",
    model: Path | None = None,
    cuts: str | None = None,
    nodes: int = 4,
    dtype: str = "f16",
    head: Literal["tail", "entry"] = "tail",
    threads: int = 0,
) -> "Swarm":
    from intelnav.cli.swarm_files import locked
    from intelnav.cli.swarm_nodes import Plan, layer_ranges, start
    from intelnav.store.embedded import embedded_model

    numbers = _numbers(cuts)
    file = model.absolute() if model is not None else embedded_model()
    plan = Plan(file, layer_ranges(file, numbers, nodes), dtype, head, threads)
    with locked(root):
        return start(root, plan, report)


def _numbers(cuts: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in cuts.split(",")) if cuts is not None else ()
    except ValueError:
        raise typer.BadParameter(f"--cuts {cuts}: write numbers with commas, for instance 8,15,22") from None


@contextmanager
def _progress() -> Iterator["Report"]:
    """Where to report what is going on: a line that changes on a terminal, else a line for each step."""
    from rich.console import Console

    if not sys.stderr.isatty():
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    with Console(stderr=True).status("starting") as display:
        yield display.update
