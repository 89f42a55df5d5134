"""Code on the pages: Python compiles and imports what there is, TOML names keys there are."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cppncripto_strategy.recipe import Recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)(?: [^\n]*)?\n(.*?)^```", re.M | re.S)


def blocks(language: str) -> list[Any]:
    """Every block of a language, named by its page and its number there."""
    return [
        pytest.param(code, id=f"{page.relative_to(ROOT)}: {number}")
        for page in PAGES
        for number, (kind, code) in enumerate(BLOCK.findall(page.read_text("utf-8")))
        if kind == language
    ]


def imported(code: str) -> Iterator[tuple[str, str]]:
    """(module, name) of what a block imports from this package; the name is empty for a module."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cppncripto_"):
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.startswith("cppncripto_"))


@pytest.mark.parametrize("code", blocks("python"))
def test_python_imports_what_there_is(code: str) -> None:
    """A name that was moved or renamed, and is still taught."""
    for module, name in imported(code):
        there = importlib.import_module(module)
        inside = hasattr(there, "__path__") and find_spec(f"{module}.{name}")
        assert not name or hasattr(there, name) or inside


@pytest.mark.parametrize("code", blocks("toml"))
def test_toml_names_keys_that_there_are(code: str) -> None:
    """A key that no recipe has any more."""
    values = tomllib.loads(code)
    assert values
    for key in set(values) - {"space"}:
        assert key in Recipe.model_fields
        section = Recipe.model_fields[key].annotation
        known = getattr(section, "model_fields", None)
        if known and isinstance(values[key], dict):
            assert set(values[key]) <= set(known)


def test_there_are_many_and_a_wrong_one_is_refused() -> None:
    """A pattern that finds no block, and a check that refuses none."""
    assert len(blocks("python")) > 15
    assert len(blocks("toml")) > 8
    wrong = "from cppncripto_strategy.recipe import no_such_name\n"
    with pytest.raises(AssertionError):
        test_python_imports_what_there_is(wrong)
    with pytest.raises(AssertionError):
        test_toml_names_keys_that_there_are("[micro]\nchanels = 3\n")
