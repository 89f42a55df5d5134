"""Every command line printed in a page is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from cppncripto_strategy.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


def command_lines(text: str) -> list[str]:
    """Lines of code blocks, fenced or indented, that call cppn-bt; `&&` begins a new one."""
    blocks = re.findall(r"```\w*\n(.*?)```|((?:^    .*\n)+)", text, flags=re.S | re.M)
    lines = [line for block in blocks for line in "".join(block).replace("\\\n", " ").splitlines()]
    calls = [part.strip() for line in lines for part in line.split("&&")]
    return [call for call in calls if call.startswith("cppn-bt ")]


LINES = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line.split('  ')[0]}")
    for page in sorted(PAGES)
    for line in command_lines(page.read_text("utf-8"))
]


@pytest.fixture(autouse=True)
def _any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of an example need not exist to be asked for."""

    def convert(_self: click.Path, value: Any, *_rest: Any) -> Path:
        return Path(value)

    monkeypatch.setattr(click.Path, "convert", convert)


def parse(line: str) -> None:
    """Let the command line read a line, and do nothing. Raises click.UsageError."""
    command: click.Command = cli
    words = shlex.split(line.split(" > ")[0], comments=True)[1:]
    while isinstance(command, click.Group):
        if words[0].startswith("-"):
            return  # --help, --version
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            raise click.UsageError(f"there is no command {words[0]!r}")
        command, words = found, words[1:]
    command.make_context(command.name, words)


@pytest.mark.parametrize("line", LINES)
def test_the_command_line_is_understood(line: str) -> None:
    """A command or an option that was renamed, and is still taught."""
    parse(line)


def test_there_are_many_and_a_wrong_one_is_refused() -> None:
    """A pattern that finds no line, and a check that refuses none."""
    assert len(LINES) > 20
    for wrong in ("cppn-bt runn", "cppn-bt run --no-such-option", "cppn-bt data lisst"):
        with pytest.raises(click.UsageError):
            parse(wrong)
