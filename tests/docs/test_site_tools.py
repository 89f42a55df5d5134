"""docs/_site/: what the site is made of by itself, piece by piece; the whole is in `test_site`."""

from __future__ import annotations

import base64
import importlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

TOOLS = Path(__file__).parents[2] / "docs" / "_site"
NAMES = ("commands", "docstrings", "hooks", "notebooks", "pictures")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports one of the tools by name; forgotten afterwards, because their names are common."""
    monkeypatch.syspath_prepend(str(TOOLS))
    before = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def test_a_notebook_becomes_text_code_and_what_it_printed(tools: Any, tmp_path: Path) -> None:
    """An output that the page leaves out, or a title that stands on it twice."""
    picture = base64.b64encode(b"not really a PNG").decode()
    shown = {"image/png": picture, "text/plain": "<Figure>"}
    cells = [
        new_markdown_cell("# Title\n\nWhat it is."),
        new_code_cell("print(1)", outputs=[new_output("stream", name="stdout", text="1\n")]),
        new_code_cell("draw()", outputs=[new_output("display_data", data=shown)]),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "mine.ipynb")
    text, images = tools("notebooks").to_markdown(tmp_path / "mine.ipynb")
    parts = ["What it is.", "```python\nprint(1)\n```", "```text\n1\n```", "```python\ndraw()\n```"]
    assert [part for part in parts if part in text] == parts
    assert "Title" not in text
    assert "<Figure>" not in text
    assert images == {"mine-2-0.png": b"not really a PNG"}
    assert "(mine-2-0.png)" in text


def test_every_command_is_a_section(tools: Any) -> None:
    """A command, or one below it, that the reference leaves out."""
    text = tools("commands").command_pages()
    for name in ("cppn-bt", "cppn-bt run", "cppn-bt data coverage", "cppn-bt parity"):
        assert f"\n## `{name}`\n" in f"\n{text}"
    assert "Usage: cppn-bt data coverage" in text
    assert "-h, --help" in text


def test_a_picture_that_cannot_be_drawn_is_named(
    tools: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A site that is built without a picture, and nobody hears of it."""
    pictures = tools("pictures")
    monkeypatch.setattr(pictures, "CACHE", tmp_path)
    with pytest.raises(pictures.PictureError, match=r"no picture 'none\.svg'"):
        pictures.drawn("none.svg")
    monkeypatch.setitem(pictures.PICTURES, "broken.svg", (lambda: 1 / 0, ()))
    with pytest.raises(pictures.PictureError, match=r"'broken\.svg': ZeroDivisionError"):
        pictures.drawn("broken.svg")
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_the_same_bytes_and_drawn_once(
    tools: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A picture that differs at every build, or is drawn again at every one."""
    pictures = tools("pictures")
    assert pictures.break_even() == pictures.break_even()
    drawings: list[int] = []
    monkeypatch.setattr(pictures, "CACHE", tmp_path)
    draw = (lambda: drawings.append(1) or b"<svg/>", ())
    monkeypatch.setitem(pictures.PICTURES, "one.svg", draw)
    assert pictures.drawn("one.svg") == pictures.drawn("one.svg")
    assert drawings == [1]


needs_docs = pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra docs")


@needs_docs
def test_parameters_get_their_sentence_and_keep_their_continuation(tools: Any) -> None:
    """A sentence that the reference shows as a type."""
    before = (
        "Do it.\n\nParameters\n----------\nfolder : where it goes; made if absent.\n"
        "low, high : ends,\n    both inside.\n\nRaises\n------\nError\n    When : it fails.\n"
    )
    assert tools("docstrings").rewritten(before) == (
        "Do it.\n\nParameters\n----------\nfolder\n    where it goes; made if absent.\nlow, high\n"
        "    ends,\n        both inside.\n\nRaises\n------\nError\n    When : it fails.\n"
    )


@needs_docs
def test_links_stay_inside_the_site_or_become_names(tools: Any) -> None:
    """A link of a page that leads out of the site, to a file that no reader has."""
    inside = tools("hooks").inside
    text = (
        "[log](../CHANGELOG.md) [`run`](../.ci/run) [the unit](../pyproject.toml) [a](paper.md)"
        " [web](https://example.org) `[b](../setup.cfg)`"
    )
    assert inside(text, "desk.md", None) == (
        "[log](changelog.md) `.ci/run` the unit (`pyproject.toml`) [a](paper.md)"
        " [web](https://example.org) `[b](../setup.cfg)`"
    )
    rebased = tools("hooks").rebased("[d](docs/design.md#x) ![p](docs/demo.png)", "", "docs")
    assert rebased == "[d](design.md#x) ![p](demo.png)"
