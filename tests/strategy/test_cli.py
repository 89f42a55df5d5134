"""The command line: quick to answer, and every mistake is one line and a status."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from cppncripto_strategy import __version__
from cppncripto_strategy.cli import cli, main
from cppncripto_strategy.commands import SHORT_HELP

HEAVY = ("torch", "quantstats", "pandas", "plotly", "binance", "backtrader", "pyarrow", "arch")


def imported_by(*arguments):
    """Modules in memory after `cppn-bt ARGUMENTS`, in a fresh interpreter, and its output."""
    code = (
        "import json, sys\n"
        "from cppncripto_strategy.cli import cli\n"
        f"try:\n    cli.main({list(arguments)!r}, 'cppn-bt')\n"
        "except SystemExit:\n    pass\n"
        "print('\\n' + json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    *text, modules = done.stdout.splitlines()
    assert done.stderr == ""
    return "\n".join(text), set(json.loads(modules))


def test_help_names_every_command_and_imports_nothing_heavy():
    """A help page that takes seconds because one command imports torch."""
    text, modules = imported_by("--help")
    for name, line in SHORT_HELP.items():
        assert f"  {name} " in text
        assert line.split()[0] in text
    assert "Start with `cppn-bt run`" in text
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", SHORT_HELP)
def test_help_of_every_command_imports_nothing_heavy(name):
    """Heavy imports at the top of a command's module."""
    text, modules = imported_by(name, "--help")
    assert f"cppn-bt {name}" in text
    assert modules.isdisjoint(HEAVY)


def test_version():
    """A version that is not the package's."""
    assert CliRunner().invoke(cli, ["--version"]).output == f"cppn-bt, version {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "hint"), [("rnu", "Did you mean 'run'?"), ("dta", "Did you mean 'data'?"), ("q", "")]
)
def test_unknown_command_hints_at_the_nearest(typed, hint):
    """A usage error that leaves the user to guess."""
    result = CliRunner().invoke(cli, [typed])
    assert result.exit_code == 2
    assert f"No such command '{typed}'." in result.output
    assert hint in result.output
    assert ("Did you mean" in result.output) == bool(hint)
    assert "There are: init, doctor, run, " in result.output


def test_our_errors_are_one_line_on_stderr_and_status_one(tmp_path, capsys):
    """A traceback for a mistake in a recipe; an error that exits with 0."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text("sed = 1\n")
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(recipe)])
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "(did you mean 'seed'?)" in err
    assert list(tmp_path.iterdir()) == [recipe]


def test_brackets_in_an_error_are_printed_as_they_are(tmp_path, capsys):
    """An error message eaten as markup: the user's path without its [part]."""
    with pytest.raises(SystemExit):
        main(["run", str(tmp_path / "[bold]mine.toml")])
    assert "[bold]mine.toml" in capsys.readouterr().err


@pytest.fixture
def broken(monkeypatch):
    """A command that fails as no command should."""
    from cppncripto_strategy.commands import parity

    def fail(**_):
        raise KeyError("weights")

    monkeypatch.setattr(parity.command, "callback", fail)


def test_a_fault_of_the_program_is_one_line_too(broken, tmp_path, capsys):
    """A traceback of forty lines that tells a trader nothing."""
    with pytest.raises(SystemExit) as stopped:
        main(["parity", str(tmp_path)])
    assert stopped.value.code == 1
    _, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith("error: KeyError: 'weights'. ")
    assert "--debug" in err


def test_debug_shows_where_an_error_was_raised(broken, tmp_path, capsys):
    """A fault that nobody can report."""
    for arguments in (["parity", str(tmp_path)], ["run", str(tmp_path / "none.toml")]):
        with pytest.raises(SystemExit):
            main(["--debug", *arguments])
        err = capsys.readouterr().err
        assert "Traceback (most recent call last)" in err
        assert err.splitlines()[-1].startswith("error: ")
    with pytest.raises(SystemExit):
        main(["parity", str(tmp_path)])  # of this command alone
    assert "Traceback" not in capsys.readouterr().err
