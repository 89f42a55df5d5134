"""E1 to E4 from a recipe: arms change what they name; a whole experiment runs and resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from cppncripto_strategy.codehash import closure_digest
from cppncripto_strategy.commands.experiment import command
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.experiments import runner as experiment_runner
from cppncripto_strategy.experiments.arms import NAMES, build_experiment
from cppncripto_strategy.experiments.cells import Arm, changed
from cppncripto_strategy.experiments.runner import RecipeRunner
from cppncripto_strategy.recipe import parse_recipe
from cppncripto_strategy.results import to_toml

# Hourly candles: the same windows span twelve times the days, so training is short.
SMALL = {
    "name": "small",
    "symbols": ["PLANTED"],
    "interval": "1h",
    "seed": 1,
    "candles": {"source": "planted", "planted": {"days": 200, "mu": 0.0, "setup_rate": 0.1}},
    "macro": {"long_window": 288, "epochs": 1, "batch_size": 16},
    "micro": {"short_window": 12, "initialisations": 1, "epochs": 2, "channels": 8, "hidden": 8},
    "label": {"horizon": 3, "threshold_bps": 20},
    "walkforward": {
        "train_days": 80,
        "validate_days": 20,
        "retrain_days": 42,
        "macro_retrain_days": 364,
    },
    "threshold": {"window": 480},
}


def small(**changes):
    return parse_recipe({**SMALL, **changes})


def test_arms_change_only_what_they_name():
    """Dies here: an arm that also changes the seed of the market, or keeps the recipe's setting."""
    recipe = small(interval="30m")
    base = changed(recipe, Arm("base"), 3)
    assert base.seed == 3
    assert base.candles.planted.seed == recipe.candles.planted.seed + 3
    assert not base.compare_without_macro
    differences = {}
    for name in NAMES:
        for arm in build_experiment(name, recipe).arms:
            plain = changed(recipe, arm, 3).to_plain()
            differences[name, arm.name] = {
                f"{table}.{key}"
                for table, values in plain.items()
                if isinstance(values, dict)
                for key, value in values.items()
                if value != base.to_plain()[table][key]
            }
    assert differences == {
        ("e1", "macro"): set(),
        ("e1", "no macro"): {"macro.enabled"},
        ("e2", "contrast"): set(),
        ("e2", "autoencoder"): {"macro.objective"},
        ("e2", "masked"): {"macro.objective"},
        ("e3", "5 h"): {"micro.short_window"},
        ("e3", "2 h"): {"micro.short_window"},
        ("e3", "10 h"): {"micro.short_window"},
        ("e3", "5 h alone"): {"micro.short_window", "macro.enabled"},
        ("e3", "2 h alone"): {"micro.short_window", "macro.enabled"},
        ("e4", "adaptive"): set(),
        ("e4", "static"): {"threshold.mode"},
    }


def test_short_windows_are_hours_whatever_the_interval():
    """Dies here: 24, 60 and 120 candles taken for hours on 15-minute candles."""
    for interval, an_hour in (("5m", 12), ("15m", 4)):
        recipe = small(interval=interval, macro={"long_window": 1440})
        arms = {arm.name: arm for arm in build_experiment("e3", recipe).arms}
        for hours in (2, 5, 10):
            window = changed(recipe, arms[f"{hours} h"], 0).micro.short_window
            assert window == hours * an_hour


def test_objective_options_do_not_reach_another_objective():
    """Dies here: the autoencoder built with the options of the contrast."""
    recipe = small(macro={**SMALL["macro"], "objective_options": {"temperature": 0.2}})
    arms = {arm.name: arm for arm in build_experiment("e2", recipe).arms}
    assert changed(recipe, arms["contrast"], 0).macro.objective_options == {"temperature": 0.2}
    assert changed(recipe, arms["masked"], 0).macro.objective_options == {}


def test_experiment_without_macro_or_name_is_refused():
    """Dies here: E1 of a recipe that has no macro, comparing it with itself."""
    with pytest.raises(RecipeError, match=r"macro\.enabled = false"):
        build_experiment("e1", small(macro={**SMALL["macro"], "enabled": False}))
    with pytest.raises(RecipeError, match="there are e1, e2, e3, e4"):
        build_experiment("e5", small())


def test_identity_follows_settings_candles_and_code(tmp_path, monkeypatch):
    """Dies here: a stale cell served after the candles, a setting or the code changed."""
    base = RecipeRunner(small(), tmp_path).identity(Arm("a"))
    assert RecipeRunner(small(), tmp_path).identity(Arm("other name")) == base
    other_setting = small(label={"horizon": 4, "threshold_bps": 20})
    other_market = small(
        candles={"source": "planted", "planted": {**SMALL["candles"]["planted"], "mu": 0.1}}
    )
    for recipe in (other_setting, other_market):
        assert RecipeRunner(recipe, tmp_path).identity(Arm("a")) != base
    monkeypatch.setattr(experiment_runner, "code_hash", lambda: "other code")
    assert RecipeRunner(small(), tmp_path).identity(Arm("a")) != base


@pytest.mark.parametrize(
    ("source", "renewed"),
    [
        ("evaluation/statistics.py", True),
        ("evaluation/returns.py", True),
        ("models/micronet.py", True),
        ("experiments/cells.py", True),
        ("experiments/page.py", False),
        ("reports/pages.py", False),
    ],
)
def test_cell_is_run_again_when_code_of_its_numbers_changed(source, renewed, monkeypatch):
    """Dies here: stale cells after the days of a year changed, or fresh ones for a page's word."""
    closure_digest.cache_clear()
    before, read_bytes = experiment_runner.code_hash(), Path.read_bytes
    monkeypatch.setattr(
        Path,
        "read_bytes",
        lambda path: read_bytes(path) + (b"\n# changed\n" if path.match(source) else b""),
    )
    closure_digest.cache_clear()
    assert (experiment_runner.code_hash() != before) == renewed
    monkeypatch.undo()
    closure_digest.cache_clear()
    assert experiment_runner.code_hash() == before


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "small.toml"
    path.write_text(to_toml(SMALL))
    return path


def invoke(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


@pytest.mark.slow
def test_null_market_experiment_finds_nothing_and_resumes(recipe_file, tmp_path, monkeypatch):
    """Dies here: a pipeline that finds an edge where none is planted, or trains twice."""
    out = tmp_path / "out"
    first = invoke(
        "e1", recipe_file, "--seeds", 3, "--out", out, "--json", "--markdown", tmp_path / "e1.md"
    )
    (answer,) = json.loads(first.output)
    assert answer["found_in_seeds"] == [{"pair": "macro - no macro", "found": 0, "of": 3}]
    assert not answer["verdicts"][0]["met"]
    cells = pd.read_parquet(out / "results.parquet")
    assert cells["arm"].tolist() == ["macro"] * 3 + ["no macro"] * 3
    assert cells["hit_setups"].between(0.3, 0.7).all()
    macro = cells[cells["arm"] == "macro"]
    assert macro["reconstruction_error"].between(0, 1.2).all()
    assert cells[cells["arm"] == "no macro"]["reconstruction_error"].isna().all()
    assert "without any answer" in (out / "e1.html").read_text("utf-8")
    assert "| Hit difference, points |" in (tmp_path / "e1.md").read_text("utf-8")
    monkeypatch.setattr(experiment_runner, "walk_forward", pytest.fail)
    again = invoke("e1", recipe_file, "--seeds", 3, "--out", out, "--json")
    assert json.loads(again.output)[0]["comparisons"] == answer["comparisons"]


@pytest.mark.slow
def test_transfer_command_prints_the_table(recipe_file, tmp_path):
    """Dies here: a transfer table that names the wrong symbols, or none."""
    result = invoke("transfer", recipe_file, "--symbols", "AAA,BBB", "--out", tmp_path, "--json")
    rows = json.loads(result.output)["rows"]
    assert {(row["scored"], row["learned_from"], row["seen"]) for row in rows} == {
        ("AAA", "AAA", True),
        ("AAA", "BBB", False),
        ("AAA", "AAA+BBB", True),
        ("BBB", "BBB", True),
        ("BBB", "AAA", False),
        ("BBB", "AAA+BBB", True),
    }
    assert {row["where"] for row in rows} == {"all", "signals", "setups"}
    assert (tmp_path / "transfer.html").is_file()
