"""What Tab offers in a chat: commands, models and layer ranges."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from intelnav.cli.client import NodeClient, NodeError
from intelnav.cli.slash import COMMANDS

Json = dict[str, Any]


class SlashCompleter(Completer):
    """Asks the node when it is asked; what the node does not say is not offered."""

    def __init__(self, node: NodeClient) -> None:
        self._node = node

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The words that can stand where the cursor is."""
        text = document.text_before_cursor
        if not text.startswith("/"):
            return
        *before, begun = text.split(" ")
        try:
            offered = offers(self._node, [word for word in before if word])
        except NodeError:
            return
        for word in offered:
            if word.startswith(begun):
                yield Completion(word, start_position=-len(begun))


def offers(node: NodeClient, before: list[str]) -> list[str]:
    """What can follow these words, each once; NodeError if the node cannot tell."""
    match before:
        case []:
            return [f"/{name}" for name in COMMANDS]
        case ["/model" | "/route"]:
            return node.models()
        case ["/models", _]:
            return ["use", "fetch", "host"]
        case ["/leave"]:
            return _once(held["model"] for held in node.hosting())
        case ["/leave", model]:
            return [held["layers"] for held in node.hosting() if model in (held["model"], held["cid"])]
        case ["/join"]:
            return _once(model["name"] for model in node.library()["models"])
        case ["/join", name]:
            named = [model for model in node.library()["models"] if name in (model["name"], model["cid"])]
            return _once(layers for model in named for layers in _ranges(model))
    return []


def _ranges(model: Json) -> list[str]:
    """Slices of a model that are here, those between the catalog's cuts, and all of it."""
    cuts = [0, *model["cuts"], model["blocks"]]
    return [*model["held"], *(f"{start}..{end}" for start, end in pairwise(cuts)), f"0..{model['blocks']}"]


def _once(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
