"""The last lines of a run: command lines that are understood, for the recipe that was run."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from cppncripto_strategy.cli import cli
from cppncripto_strategy.commands._next_steps import what_to_try, where_to_look

CANDLES = Path("my candles")


def parsed(line: str) -> click.Context:
    program, name, *words = shlex.split(line)
    assert program == "cppn-bt"
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, name
    return command.make_context(name, words)


@pytest.mark.parametrize("planted", [True, False])
def test_what_to_try_next_is_understood(planted: bool, tmp_path, monkeypatch) -> None:
    """A last line that is an error when it is typed as it stands: an option that was renamed."""
    monkeypatch.chdir(tmp_path)
    CANDLES.mkdir()
    Path("my recipe.toml").touch()
    contexts = [parsed(line) for line, _ in what_to_try("my recipe.toml", CANDLES, planted)]
    of_recipe = [c.params["recipe"] for c in contexts if c.params.get("recipe")]
    assert of_recipe
    assert set(of_recipe) == {"my recipe.toml"}
    if not planted:
        assert {c.params["candles"] for c in contexts} == {CANDLES}


def test_where_to_look_names_the_files_of_the_folder() -> None:
    """A page of another run."""
    assert {Path(path).parent for path, _ in where_to_look(Path("runs/a"))} == {Path("runs/a")}
