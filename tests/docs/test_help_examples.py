"""Every command's --help has examples, and the command line understands each of them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from cppncripto_strategy.cli import cli


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(words after cppn-bt, command) of all below the command line."""
    if path:
        yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


ALL = dict(commands(cli))


def examples(name: str) -> list[str]:
    """The lines of a command's help that call it, or another one, without what explains them."""
    settings = cli.context_settings | {"terminal_width": 200}
    text = ALL[name].get_help(click.Context(ALL[name], info_name=name, **settings))
    lines = (line.strip() for line in text.partition("Examples:")[2].splitlines())
    calls = (line.split("   ")[0] for line in lines if line.startswith("cppn-bt "))
    return [part.strip() for call in calls for part in call.split("&&")]


@pytest.fixture(autouse=True)
def _any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of an example need not exist to be asked for."""
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, *_rest: Path(value))


@pytest.mark.parametrize("name", ALL)
def test_help_shows_examples_of_the_command_itself(name: str) -> None:
    """A help page that lists options and leaves the first call to be guessed."""
    assert any(line.startswith(f"cppn-bt {name}") for line in examples(name))


@pytest.mark.parametrize("name", ALL)
def test_examples_are_understood(name: str) -> None:
    """An example with an option that was renamed."""
    for line in examples(name):
        command: click.Command = cli
        words = shlex.split(line.split(" > ")[0], comments=True)[1:]
        while isinstance(command, click.Group) and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words[0])
            assert found is not None, line
            command, words = found, words[1:]
        if not isinstance(command, click.Group):
            command.make_context(command.name, words)


def test_wrong_example_is_refused() -> None:
    """A reading of examples that accepts everything."""
    with pytest.raises(click.UsageError):
        ALL["run"].make_context("run", shlex.split("--no-such-option"))
