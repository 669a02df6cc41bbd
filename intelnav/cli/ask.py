"""`intelnav ask`: one question, one answer."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from intelnav.cli.client import NodeClient

NodeOption = Annotated[
    str | None,
    typer.Option(
        "--node", metavar="WHERE", help="Socket, data folder or http://HOST:PORT of the node to use."
    ),
]
Model = Annotated[str | None, typer.Option(help="Model to ask; the node's first one if left out.")]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same answer.")]
System = Annotated[str | None, typer.Option(help="Instructions that precede the conversation.")]
Raw = Annotated[bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object: text, tokens, chain, timing.")]


def ask(
    prompt: Annotated[str | None, typer.Argument(help="The question; piped input is appended to it.")] = None,
    model: Model = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    system: System = None,
    raw: Raw = False,
    as_json: AsJson = False,
    node: NodeOption = None,
) -> None:
    """Ask one question."""
    from intelnav.cli.client import NodeClient

    check_raw(raw, system)
    text = with_input(prompt)
    with NodeClient(node) as asked:
        answer(
            asked,
            text if raw else messages(text, system),
            as_json,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
        )


def check_raw(raw: bool, system: str | None) -> None:
    """Raise a usage error if both are given."""
    if raw and system is not None:
        raise typer.BadParameter("--raw has no place for --system; write all into the prompt")


def with_input(prompt: str | None) -> str:
    """The prompt, with what is piped in; raises a usage error if there is neither."""
    parts = [prompt] if prompt else []
    if not sys.stdin.isatty():
        try:
            parts.append(sys.stdin.buffer.read().decode())
        except UnicodeDecodeError as error:
            raise typer.BadParameter(f"the piped text is not UTF-8 at byte {error.start}") from error
    text = "\n\n".join(part for part in parts if part.strip())
    if not text:
        raise typer.BadParameter("write a PROMPT, or pipe one in")
    return text


def messages(text: str, system: str | None) -> list[dict[str, str]]:
    """A conversation that has just begun."""
    start = [{"role": "system", "content": system}] if system is not None else []
    return [*start, {"role": "user", "content": text}]


def answer(
    node: "NodeClient",
    prompt: str | list[dict[str, str]],
    as_json: bool,
    *,
    model: str | None,
    **settings: float | None,
) -> None:
    """Print the answer: as it comes, or as one JSON object."""
    from intelnav.cli.terminal import note, show, summary

    with node.ask(prompt, model, **settings) as reply:
        if as_json:
            for _ in reply:
                pass
            print(json.dumps(reply.as_json()))
        else:
            show(reply)
            note(summary(reply))
