"""The commands of a chat: lines that begin with a slash."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from intelnav.cli import hosting, network, picker, plan, status
from intelnav.cli.conversation import Conversation
from intelnav.cli.models import absolute
from intelnav.cli.terminal import printable, say
from intelnav.domain.errors import ConfigError
from intelnav.domain.slice import LayerRange


@dataclass(frozen=True, slots=True)
class Command:
    """How it is written, what it does, and what is called with the rest of the line."""

    usage: str
    about: str
    act: Callable[["Commands", str], None]


class Commands:
    """Obeys commands around one conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self._rows: list[picker.Row] = []

    def obey(self, line: str) -> None:
        """Do what a line says that begins with a slash. IntelNavError if it cannot be done, EOFError to leave."""
        name, _, rest = line[1:].partition(" ")
        command = COMMANDS.get("quit" if name == "exit" else name)
        if command is None:
            print(printable(f"/{name} is no command; /help lists them", sys.stderr), file=sys.stderr)
        else:
            command.act(self, rest.strip())

    def help(self, _: str) -> None:
        """List the commands."""
        width = max(len(command.usage) for command in COMMANDS.values())
        for command in COMMANDS.values():
            print(f"{command.usage:{width}}  {command.about}")
        print("Ctrl-C ends an answer.")

    def model(self, name: str) -> None:
        """Show the models that can be asked, or take another one."""
        names = self.conversation.node.models()
        if not name:
            for known in names:
                print(f"{'*' if known == self.conversation.model else ' '} {known}")
        elif name in names:
            self.conversation.model = name
        else:
            print(f"no model {name!r} here; there are: {', '.join(names)}", file=sys.stderr)

    def models(self, argument: str) -> None:
        """Pick a model of the three sources: in a list on a terminal, by its number anywhere."""
        if not argument or not self._rows:
            self._rows = picker.rows(self.conversation.node)
        if argument:
            picker.act(self.conversation, *picker.picked(self._rows, argument))
        elif self._rows and sys.stdin.isatty() and sys.stdout.isatty():
            picker.act(self.conversation, *picker.choose(self._rows))
        else:
            for number, row in enumerate(self._rows, 1):
                print(f"{number:3} {row}")

    def system(self, text: str) -> None:
        """Start afresh with instructions."""
        self.conversation.begin(text or None)

    def reset(self, _: str) -> None:
        """Start afresh."""
        self.conversation.begin(self.conversation.system)

    def status(self, _: str) -> None:
        """Show what the node runs."""
        say(status.tables(self.conversation.node.status()))

    def hosting(self, _: str) -> None:
        """Show what the node hosts."""
        say(hosting.tables(self.conversation.node.hosting()))

    def leave(self, argument: str) -> None:
        """Have the node give up a slice."""
        node, (model, layers) = self.conversation.node, _slice("leave", argument)
        say(hosting.left(node, node.leave(model, layers)))

    def join(self, argument: str) -> None:
        """Have the node host a slice."""
        node, (model, layers) = self.conversation.node, _slice("join", argument)
        say(hosting.joined(node, node.join(model, layers), model))

    def route(self, name: str) -> None:
        """Show the chain that a question would take."""
        model = name or self.conversation.model
        network.show(network.chains(model, self.conversation.node.route(model, 1)))

    def plan(self, file: str) -> None:
        """Show what the node would do."""
        path = Path(file).expanduser() if file else None
        say(plan.lines(plan.planned(self.conversation.node, path), edited=path is not None))

    def service(self, _: str) -> None:
        """Show the state of the systemd unit."""
        from intelnav.cli.service import report

        print(report())

    def quit(self, _: str) -> None:
        """Leave."""
        raise EOFError


def _slice(command: str, argument: str) -> tuple[str, str]:
    """The model and the layers that are meant; ConfigError says how to write them."""
    model, _, layers = argument.rpartition(" ")
    try:
        if model.strip():
            return absolute(model.strip()), str(LayerRange.parse(layers))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    raise ConfigError(f"write /{command} MODEL START..END")


COMMANDS = {
    "help": Command("/help", "this list", Commands.help),
    "model": Command(
        "/model [NAME]", "show the models that can be asked, or talk to another one", Commands.model
    ),
    "models": Command(
        "/models [N use|fetch|host START..END]",
        "pick a model here, in the swarm or the catalog",
        Commands.models,
    ),
    "system": Command(
        "/system [TEXT]", "start afresh with these instructions, or with none", Commands.system
    ),
    "reset": Command("/reset", "start afresh", Commands.reset),
    "status": Command("/status", "what the node runs", Commands.status),
    "hosting": Command("/hosting", "what it hosts, and which chains run through it", Commands.hosting),
    "join": Command("/join MODEL START..END", "host a slice until the config is next loaded", Commands.join),
    "leave": Command(
        "/leave MODEL START..END", "give one up until the config is next loaded", Commands.leave
    ),
    "plan": Command("/plan [FILE]", "what the node would do, or with FILE as its config", Commands.plan),
    "route": Command("/route [MODEL]", "the chain that a question would take", Commands.route),
    "service": Command("/service", "the state of the systemd unit", Commands.service),
    "quit": Command("/quit", "leave; /exit and Ctrl-D do, too", Commands.quit),
}
