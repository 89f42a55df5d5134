"""Every command follows the one rule of `paths`: what `run` trained, the others find."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cppncripto_strategy import paths
from cppncripto_strategy.cli import cli
from cppncripto_strategy.commands import days, embed, paper
from cppncripto_strategy.feeds.clock import DAY_MS

# Hourly candles and networks of a few numbers; seed 0, so that experiments plant the same market.
TINY = """
interval = "1h"
seed = 0
symbols = ["ONE"]
compare_without_macro = false
[candles]
source = "planted"
[candles.planted]
days = 100
[macro]
long_window = 288
encoder_options = {channels = 4, stride = 4, dilations = [1, 2]}
epochs = 1
[micro]
short_window = 8
channels = 4
hidden = 4
components = 2
initialisations = 1
epochs = 1
warm_epochs = 1
[label]
horizon = 4
[walkforward]
train_days = 20
validate_days = 20
retrain_days = 7
macro_retrain_days = 7
[threshold]
window = 100
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with a recipe in a folder below it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tiny.toml").write_text(TINY)
    return tmp_path


def invoke(*arguments):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def planned(monkeypatch):
    """Plans that `cppn-bt paper` would have carried out."""
    from cppncripto_strategy.paper import start

    plans = []
    monkeypatch.setattr(start, "run_paper", lambda plan, _screen: plans.append(plan))
    monkeypatch.setattr(start, "run_demo", lambda plan, _speed, _screen: plans.append(plan))
    return plans


def test_experiment_and_paper_use_the_bundles_that_run_trained(here, planned):
    """Three rules for one folder: "shared with backtests" by luck, networks trained three times."""
    answer = json.loads(invoke("run", "mine/tiny.toml", "--json").stdout)
    bundles = here / "mine" / "tiny" / "bundles"
    assert answer["folder"].startswith("mine/tiny/2")
    trained = {path: path.stat().st_mtime_ns for path in bundles.glob("*/*")}
    assert len(trained) >= 3

    invoke("experiment", "e4", "mine/tiny.toml", "--seeds", 1, "--json")
    assert (here / "mine" / "tiny" / "experiments" / "e4.html").is_file()

    invoke("paper", "mine/tiny.toml", "--json")
    (plan,) = planned
    assert plan.path == paths.SESSIONS / "tiny"
    assert plan.cache.resolve() == bundles
    from cppncripto_strategy.market import closed_market, load_market
    from cppncripto_strategy.paper.networks import todays_bundle

    last_ms = int(load_market(plan.recipe).candles["ONE"].open_time[-1])
    now_ms = last_ms - DAY_MS
    market = closed_market(plan.recipe, now_ms)
    timeline = todays_bundle(plan.recipe, market, now_ms, plan.cache, None)
    assert timeline.bundles[-1].info.trained_until_ms <= now_ms
    assert {path: path.stat().st_mtime_ns for path in bundles.glob("*/*")} == trained
    own = Path(answer["folder"]) / "bundles"
    assert {path.parents[2] for path in here.rglob("bundle.json")} == {bundles, here / own}


def test_shipped_recipe_has_its_home_under_runs(here, planned):
    """Results written beside the installed package, or a cache that only one command knows."""
    invoke("paper", "--demo", "--json", "--no-retrain")
    assert planned[0].cache == paths.RecipeHome.of(here / "demo.toml", shipped=True).bundles
    assert planned[0].path == paths.SESSIONS / "demo"


@pytest.mark.parametrize(
    ("command", "option", "default"),
    [
        (embed, "out", paths.EMBEDDINGS),
        (days, "embeddings", paths.EMBEDDINGS),
        (embed, "candles", paths.CANDLES),
        (days, "candles", paths.CANDLES),
        (paper, "sessions", paths.SESSIONS),
    ],
)
def test_defaults_are_the_rules(command, option, default):
    """`days` looking for a file under a name that `embed` does not write."""
    (parameter,) = (p for p in command.command.params if p.name == option)
    assert parameter.default == default
