"""One line of help for every command, without importing those of installed packages.

`cppn-bt --help` must neither wait for torch nor break because somebody's package cannot be
imported: the line of an installed command is read from its source text.
"""

from __future__ import annotations

import ast
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

import click

from cppncripto_strategy.commands import COMMANDS, SHORT_HELP

WIDTH = 80


def short_help(name: str) -> str:
    """The command's line of help; where none can be read, where the command comes from."""
    if name in SHORT_HELP:
        return SHORT_HELP[name]
    origin = COMMANDS.origin(name)
    if origin.kind != "installed":
        return COMMANDS.get(name).get_short_help_str(WIDTH)
    (point, *_) = entry_points(group=COMMANDS.group, name=name)
    return _written_help(point) or f"From {origin.name}."


def _written_help(point: EntryPoint) -> str:
    """First sentence of the docstring of the function an entry point names; "" without one."""
    try:
        path = _source(point.module)
        tree = ast.parse(path.read_text("utf-8")) if path else ast.Module([], [])
    except (OSError, ValueError, SyntaxError):
        return ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == point.attr:
            return click.Command(None, help=ast.get_docstring(node)).get_short_help_str(WIDTH)
    return ""


def _source(module: str) -> Path | None:
    """The file of a module; the packages around it are found, not run."""
    top, *inner = module.split(".")
    spec = find_spec(top)
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin else None
    for base in spec.submodule_search_locations or ():
        path = Path(base, *inner)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
