"""`cppn-bt tune`: mistakes at once, one search end to end, and Ctrl-C."""

import json
import signal

import pytest
from click.testing import CliRunner

pytest.importorskip("optuna", reason="extra [tune] is not installed")

from cppncripto_strategy.cli import cli
from cppncripto_strategy.errors import CppnError
from cppncripto_strategy.stopping import Stopped

RECIPE = """
symbols = ["PLANTED"]
interval = "1h"
[candles]
source = "planted"
[candles.planted]
days = 100
[macro]
long_window = 288
epochs = 1
[micro]
short_window = 8
epochs = 1
initialisations = 1
channels = 4
[label]
horizon = 2
[walkforward]
train_days = 20
validate_days = 15
retrain_days = 7
[threshold]
window = 48
quantile = 0.2
"""
SPACE = """
[search]
windows = 2
sealed_days = 10
trials = 3
[space]
"threshold.quantile" = { float = [0.05, 0.4] }
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr("cppncripto_strategy.reports.pages._plotly_script", lambda: "")
    (tmp_path / "mine.toml").write_text(RECIPE)
    (tmp_path / "space.toml").write_text(SPACE)
    return str(tmp_path / "mine.toml"), str(tmp_path / "space.toml")


def run(*arguments):
    return CliRunner().invoke(cli, ["tune", *arguments], catch_exceptions=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "there is no search space"),
        (("--sampler", "tpee"), "sampler"),
        (("--objective", "sharp"), "objectives"),
        (("--storage", "redis://x"), "refused"),
        (("--backend", "dask"), "needs the address"),
        (("--adopt", "3"), "no finished trial 3"),
    ],
)
def test_mistakes_are_one_sentence(files, arguments, words):
    """A typo that is a traceback, or is noticed after the first training."""
    recipe, space = files
    needed = (recipe,) if not arguments else (recipe, space)
    ran = run(*needed, *arguments)
    assert isinstance(ran.exception, CppnError), ran.output
    assert words in str(ran.exception)


def test_a_search_from_the_command_line(files, tmp_path):
    """Networks trained, a recipe chosen, the sealed days opened, and a file to go on with."""
    ran = run(*files, "--backend", "none", "--json")
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert found["trials"]["complete"] + found["trials"]["pruned"] == 3
    assert found["sealed"]["opening"]["earlier"] == 0
    assert found["worth"]["headline"]
    number = found["best"]["number"]
    adopted = run(*files, "--adopt", str(number), "--to", str(tmp_path / "chosen.toml"))
    assert adopted.exit_code == 0, adopted.output
    assert f"{found['best']['changes']['threshold.quantile']!r}" in (
        tmp_path / "chosen.toml"
    ).read_text("utf-8")


def test_ctrl_c_leaves_a_report_and_the_shells_status(files, monkeypatch):
    """A search that is stopped, and says nothing of what it found."""

    def stop(*_):
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr("cppncripto_strategy.tuning.search.evaluate", stop)
    ran = run(*files, "--backend", "none")
    assert "the same command resumes it" in ran.output
    assert "tuning.html" in ran.output
    assert ran.exception is not None
    assert ran.exit_code != 0
