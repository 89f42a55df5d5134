"""docs/path-of-a-candle.md: every file and every function it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "path-of-a-candle.md").read_text("utf-8").split())
# `file.py`: `name`, `name`
STEP = re.compile(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)")
NAMED = [
    (file, name) for file, names in STEP.findall(PAGE) for name in re.findall(r"`([\w.]+)`", names)
]


def defined(file: Path) -> set[str]:
    """Functions, classes and methods of a file; methods as Class.method."""
    found: set[str] = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
            methods = (
                n for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            found |= {f"{node.name}.{method.name}" for method in methods}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part)
def test_what_a_step_names_is_defined_where_it_says(file: str, name: str) -> None:
    """A file that was split, or a function that was renamed, with the page left behind."""
    assert (ROOT / file).is_file()
    assert name in defined(ROOT / file)


def test_both_paths_are_long_and_every_file_has_a_function() -> None:
    """A pattern that reads none of the page, and so checks none of it."""
    assert len(NAMED) > 40
    assert set(re.findall(r"`([\w/]+\.py)`", PAGE)) == {file for file, _ in NAMED}
