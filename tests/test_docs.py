"""The pages hold what they promise: links lead somewhere, commands and messages are those of the programs."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from typer.main import get_command

from intelnav.cli.main import app
from tests.pages import PAGES, ROOT, anchors, links, snippets, tokens

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
COMMAND = re.compile(r"(?:\.venv/bin/|until )?intelnav ([a-z].*)")
LOADED = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"?(?:https?:)?//|<link[^>]*\shref=\"?(?:https?:)?//")


def test_there_are_pages() -> None:
    assert {"README.md", "docs/index.md", "docs/quickstart.md", "docs/adr/README.md"} <= set(NAMES)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    wrong = []
    for link in links(page):
        url = urlsplit(link)
        if url.scheme in ("http", "https"):
            continue
        target = page.parent / unquote(url.path) if url.path else page
        if not target.resolve().is_relative_to(ROOT) or not target.exists():
            wrong.append(f"{link}: there is no such file")
        elif url.fragment and url.fragment not in anchors(target):
            wrong.append(f"{link}: there is no such heading, but {sorted(anchors(target))}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_nothing_is_left_to_be_filled_in(page: Path) -> None:
    prose = " ".join(token.content for token in tokens(page) if token.type == "text")
    assert re.findall(r"\b(?:[A-Z]+_[A-Z_]+|TODO|FIXME|TBD|XXX)\b", prose) == []


def test_every_decision_is_listed() -> None:
    listed = [link for link in links(ROOT / "docs/adr/README.md") if "/" not in link]
    assert listed == sorted(path.name for path in (ROOT / "docs/adr").glob("0*.md"))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_is_one_that_there_is(page: Path) -> None:
    wrong = [snippet for snippet in snippets(page) if (problem := _problem(snippet)) is not None and problem]
    assert wrong == []


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    assert _problem("intelnav swarm ask 'hm' --raw") == ""
    assert _problem("intelnav swarm fly") == "fly"
    assert _problem("until intelnav route smollm2 --nodes x; do sleep 1; done") == "--nodes"
    assert _problem("make demo") is None


def _problem(snippet: str) -> str | None:
    """What `intelnav` does not know of a snippet; empty if it knows all of it, None if that is no such command."""
    found = COMMAND.fullmatch(snippet)
    if found is None:
        return None
    command: Any = get_command(app)
    for word in shlex.split(re.split(r"[;|<>]", found[1])[0]):
        if (commands := getattr(command, "commands", None)) and not word.startswith("-"):
            if word not in commands:
                return word
            command = commands[word]
        elif word.startswith("-"):
            known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
            if word.split("=")[0] not in known:
                return word
    return ""


def test_every_message_of_the_troubleshooting_is_one_of_the_programs() -> None:
    said = [_text(node) for path in (ROOT / "intelnav").rglob("*.py") for node in ast.walk(_tree(path))]
    said = [text for text in said if text]
    messages = _first_cells(ROOT / "docs/operate.md", "Troubleshooting")
    assert len(messages) > 15
    for message in messages:
        parts = [part.strip() for part in message.split("…") if part.strip()]
        assert any(all(part in text for part in parts) for text in said), message


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _text(node: ast.AST) -> str:
    """What a string in the source says, whatever it puts in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _first_cells(page: Path, heading: str) -> list[str]:
    """The code that begins the first cell of each row of the tables under a heading."""
    found, within, row = [], False, list(tokens(page))
    for before, token, text, code in zip(row, row[1:], row[2:], row[3:], strict=False):
        if token.type == "heading_open":
            within = text.content == heading
        elif within and (before.type, token.type) == ("tr_open", "td_open"):
            assert code.type == "code_inline", text.content
            found.append(code.content)
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what the site is made from: its pages, and the files that they link to."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for page in (ROOT / "docs").rglob("*.md"):
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            if link.startswith("../") and target.is_file():
                there = tmp_path / target.relative_to(ROOT)
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(target, there)
    for name in ("mkdocs.yml", "mkdocs_hook.py"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50)


def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(copy: Path) -> None:
    done = built(copy)
    assert done.returncode == 0, done.stderr
    site = copy / "build/site"
    pages = [path.relative_to(copy / "docs") for path in (copy / "docs").rglob("*.md")]
    for page in pages:
        name = "index" if page.stem == "README" else page.stem
        text = (site / page.with_name(f"{name}.html")).read_text()
        assert LOADED.search(text) is None, page
    for sheet in site.rglob("*.css"):
        assert re.search(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text()) is None, sheet
    assert (site / "sources/config/node.yaml").read_text() == (ROOT / "config/node.yaml").read_text()
    assert 'href="sources/config/entry.toml"' in (site / "api.html").read_text()


@pytest.mark.parametrize("link", ["nowhere.md", "api.md#nowhere", "../config/nowhere.yaml", "../../outside"])
def test_a_broken_link_fails_the_site(copy: Path, link: str) -> None:
    with (copy / "docs/use.md").open("a") as page:
        page.write(f"\n[wrong]({link})\n")
    done = built(copy)
    assert done.returncode != 0
    assert link in done.stderr
