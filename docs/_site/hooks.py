"""mkdocs hook: what of the site is made by the software itself when the site is built.

A page asks for it with a comment on a line of its own:

    <!-- include: ../CHANGELOG.md -->        a file of the repository
    <!-- commands -->                        every command's help, from the click tree
    <!-- notebook: ../notebooks/NAME.ipynb -->
    <!-- picture: NAME | what it shows -->   `pictures.py` draws it, once per state of the code

and on its text in the repository, where nothing is built, the comment does not show. Links to files
outside docs/ become their names: the site does not have them.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

import pictures  # noqa: E402
from commands import command_pages  # noqa: E402

import notebooks  # noqa: E402

MARKER = re.compile(r"^<!-- (include|commands|notebook|picture)(?:: (.+?))? -->$", re.M)
# Code first, where it begins first: brackets in code are not links, code in a label is a label.
LINK = re.compile(
    r"```.*?```|(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)|`[^`\n]*`",
    re.S,
)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A page's text with its markers filled in and its links kept inside the site."""
    home = page.file.src_uri

    def fill(match: re.Match[str]) -> str:
        kind, argument = match.group(1), match.group(2) or ""
        return FILLERS[kind](argument, home, config, files)

    return inside(MARKER.sub(fill, markdown), home, files)


def _include(argument: str, home: str, config: MkDocsConfig, files: Files) -> str:
    """A file of the repository, its own title left out: the page has one."""
    text = (Path(config.docs_dir) / posixpath.dirname(home) / argument).resolve().read_text("utf-8")
    text = re.sub(r"\A# .*\n", "", text)
    source = posixpath.normpath(posixpath.join("docs", posixpath.dirname(home), argument))
    return rebased(text, posixpath.dirname(source), posixpath.join("docs", posixpath.dirname(home)))


def _commands(_argument: str, _home: str, _config: MkDocsConfig, _files: Files) -> str:
    return command_pages()


def _notebook(argument: str, home: str, config: MkDocsConfig, files: Files) -> str:
    path = (Path(config.docs_dir) / posixpath.dirname(home) / argument).resolve()
    text, images = notebooks.to_markdown(path)
    for name, content in images.items():
        uri = posixpath.join(posixpath.dirname(home), name)
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=content))
    return text


def _picture(argument: str, home: str, config: MkDocsConfig, files: Files) -> str:
    name, _, caption = (part.strip() for part in argument.partition("|"))
    uri = f"pictures/{name}"
    if files.get_file_from_path(uri) is None:
        path = pictures.drawn(name)
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return f"![{caption}]({posixpath.relpath(uri, posixpath.dirname(home) or '.')})"


FILLERS: dict[str, Any] = {
    "include": _include,
    "commands": _commands,
    "notebook": _notebook,
    "picture": _picture,
}


def rebased(text: str, old: str, new: str) -> str:
    """A text whose relative links lead from another folder; both from the repository's root."""

    def move(match: re.Match[str]) -> str:
        bang, label, target, anchor = match.groups()
        if target is None or "://" in target:
            return match.group()
        moved = posixpath.relpath(posixpath.join(old, target), new or ".")
        return f"{bang}[{label}]({moved}{anchor or ''})"

    return LINK.sub(move, text)


# Files of the repository that the site has as a page.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
}


def inside(text: str, home: str, files: Files) -> str:
    """A page's text whose links to files that the site does not have are their names."""
    folder = posixpath.dirname(home)

    def keep(match: re.Match[str]) -> str:
        bang, label, target, anchor = match.groups()
        if target is None or "://" in target:
            return match.group()
        uri = posixpath.normpath(posixpath.join("docs", folder, target))
        if uri in PAGES:
            page = posixpath.relpath(PAGES[uri], folder or ".")
            return f"{bang}[{label}]({page}{anchor or ''})"
        if uri.startswith("docs/") or bang:
            return match.group()
        if not (ROOT / uri).exists():
            return match.group()  # mkdocs says so, and a strict build fails
        name = label.strip("`")
        return f"`{uri}`" if name in (uri, posixpath.basename(uri)) else f"{label} (`{uri}`)"

    return LINK.sub(keep, text)
