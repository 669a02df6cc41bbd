"""For mkdocs.yml: files of the repository that pages link to, and that are no pages, become part of the site."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
FOLDER = "sources"
OUTWARDS = re.compile(r"\]\((?P<path>(?:\.\./)+[^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that lie outside `docs/`; what is not there is left for mkdocs to complain of."""
    for page in files.documentation_pages():
        for found in OUTWARDS.finditer(page.content_string):
            name = _outside(page.src_uri, found["path"])
            if name is not None and f"{FOLDER}/{name}" not in files.src_uris:
                files.append(File.generated(config, f"{FOLDER}/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links to such files lead to where they lie in the site."""
    up = "../" * page.file.src_uri.count("/")

    def moved(found: re.Match[str]) -> str:
        name = _outside(page.file.src_uri, found["path"])
        return found[0] if name is None else f"]({up}{FOLDER}/{name}"

    return OUTWARDS.sub(moved, markdown)


def _outside(page: str, path: str) -> str | None:
    """The name in the repository of what `path` in a page means, if it is a file outside `docs/` and no page."""
    target = (ROOT / "docs" / page).parent.joinpath(path).resolve()
    outside = target.is_relative_to(ROOT) and not target.is_relative_to(ROOT / "docs")
    return str(target.relative_to(ROOT)) if outside and target.is_file() and target.suffix != ".md" else None
