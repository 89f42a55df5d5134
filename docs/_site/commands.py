"""Every command of `cppn-bt` as a section of a page, from the click tree itself."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cppncripto_strategy.cli import cli

WIDTH = 80


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """(name, command) of a command and all below it, in the order of its own help."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield from commands(found, f"{name} {inner}")


def section(name: str, command: click.Command) -> str:
    """A heading, and the help as a terminal shows it."""
    settings = cli.context_settings | {"terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=name, **settings)
    text = command.get_help(context)
    return f"## `{name}`\n\n```text\n{text}\n```\n"


def command_pages() -> str:
    """Sections of all commands."""
    return "\n".join(section(name, command) for name, command in commands(cli, "cppn-bt"))
