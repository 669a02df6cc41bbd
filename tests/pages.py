"""The pages of this repository, parsed."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")])


def tokens(page: Path) -> Iterator[Token]:
    """All that a page consists of, in its order."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        yield token
        yield from token.children or ()


def links(page: Path) -> list[str]:
    """What it links to, and shows as pictures."""
    found = (token.attrs.get("href", token.attrs.get("src")) for token in tokens(page))
    return [str(target) for target in found if target is not None]


def anchors(page: Path) -> set[str]:
    """The names of its headings, as GitHub and the site make them."""
    found = list(tokens(page))
    titles = [
        "".join(part.content for part in text.children or ())
        for token, text in pairwise(found)
        if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def blocks(page: Path, language: str) -> list[str]:
    """Its blocks of code in one language."""
    return [token.content for token in tokens(page) if token.type == "fence" and token.info == language]


def snippets(page: Path) -> Iterator[str]:
    """Each line of its shell blocks, and each piece of code within its text."""
    for token in tokens(page):
        if token.type == "code_inline":
            yield token.content
    for block in blocks(page, "sh"):
        yield from block.splitlines()
