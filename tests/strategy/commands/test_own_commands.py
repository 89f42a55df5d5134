"""Commands of a user's own: from a plugin file, and from an installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from cppncripto_strategy.cli import cli, main
from cppncripto_strategy.commands import COMMANDS
from cppncripto_strategy.errors import RecipeError

PLUGIN = '''
import click
from cppncripto_strategy.commands import COMMANDS

@COMMANDS.register("{name}")
@click.command()
@click.argument("day")
def command(day):
    """Trade on one day only. The rest of the help."""
    click.echo(f"trading on {{day}}")
'''
# The package itself must not run for a help page, nor the module: both would fail.
INSTALLED = '''
import torch
raise ImportError("loaded")

def weekly():
    """Trade once a week. More."""
'''


@pytest.fixture(autouse=True)
def _clean():
    yield
    COMMANDS._registered.clear()


def plugin(folder, name="weekdays"):
    path = folder / "mine.py"
    path.write_text(PLUGIN.format(name=name))
    return str(path)


def test_a_plugin_file_adds_a_command(tmp_path):
    """A seam that needs a file of ours edited."""
    found = CliRunner().invoke(cli, ["--plugin", plugin(tmp_path), "weekdays", "Monday"])
    assert (found.exit_code, found.output) == (0, "trading on Monday\n")


def test_help_lists_it_with_its_first_sentence(tmp_path):
    """A command nobody finds."""
    shown = CliRunner().invoke(cli, ["--plugin", plugin(tmp_path), "--help"]).output
    assert "weekdays    Trade on one day only.\n" in shown
    assert "The rest" not in shown


def test_nearest_name_counts_own_commands(tmp_path):
    """A typo in one's own command answered with a stranger's name."""
    found = CliRunner().invoke(cli, ["--plugin", plugin(tmp_path), "wekdays", "Monday"])
    assert found.exit_code == 2
    assert "Did you mean 'weekdays'?" in found.output


def test_a_built_in_command_cannot_be_replaced(tmp_path, capsys):
    """`cppn-bt run` that runs somebody else's code."""
    with pytest.raises(SystemExit) as stopped:
        main(["--plugin", plugin(tmp_path, "run"), "--help"])
    assert stopped.value.code == 1
    assert "command 'run' comes with the package" in capsys.readouterr().err


def test_what_is_no_click_command_is_refused_by_name(tmp_path):
    """An AttributeError from inside click."""
    path = tmp_path / "bare.py"
    path.write_text(
        "from cppncripto_strategy.commands import COMMANDS\n"
        "COMMANDS.register('bare')(lambda: None)\n"
    )
    found = CliRunner().invoke(cli, ["--plugin", str(path), "bare"])
    assert isinstance(found.exception, RecipeError)
    assert "'bare'" in str(found.exception)
    assert "click.command()" in str(found.exception)


def test_installed_commands_are_listed_without_running_their_package(tmp_path):
    """A help page that waits for somebody's torch, or breaks with their package."""
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('loaded')\n")
    (package / "late.py").write_text(INSTALLED)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[cppncripto_strategy.commands]\nweekly = theirs.late:weekly\n"
        "gone = nowhere.at_all:command\nrun = theirs.late:weekly\n"
    )
    code = (
        "import json, sys\nfrom cppncripto_strategy.cli import cli\n"
        "try:\n    cli.main(['--help'], 'cppn-bt')\nexcept SystemExit:\n    pass\n"
        "print(json.dumps([name for name in ('torch', 'theirs') if name in sys.modules]))"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": paths},
    )
    *text, modules = done.stdout.splitlines()
    assert "  weekly      Trade once a week." in text
    assert "  gone        From theirs 1.0." in text
    assert "  run         Train both networks and backtest them out of sample." in text
    assert json.loads(modules) == []
