"""What was said so far in a chat, and with whom."""

from dataclasses import dataclass, field

from intelnav.cli.ask import messages
from intelnav.cli.client import NodeClient
from intelnav.cli.terminal import note, show, summary


@dataclass(slots=True)
class Conversation:
    """A chat with `model`; `system` are the instructions that precede it, `settings` go with every question."""

    node: NodeClient
    model: str
    system: str | None
    settings: dict[str, float | None]
    said: list[dict[str, str]] = field(default_factory=list)

    def ask(self, line: str) -> None:
        """Print the answer. An interrupt ends it; what has come is said."""
        question = messages(line, None) if self.said else messages(line, self.system)
        reply = None
        try:
            with self.node.ask([*self.said, *question], self.model, **self.settings) as reply:
                show(reply)
                note(summary(reply))
        except KeyboardInterrupt:
            print()
            note("cancelled")
        if reply is not None:
            self.said += [*question, {"role": "assistant", "content": reply.text}]

    def begin(self, system: str | None) -> None:
        """Start afresh with these instructions."""
        self.system, self.said = system, []
