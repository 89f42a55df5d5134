"""docs/extending.md: each file works as it is printed, alone and all of them in one run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from cppncripto_strategy import plugins, run_backtest
from cppncripto_strategy.cli import cli
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.market import load_market, traded_span
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.labels import LABELS, Costs
from cppncripto_strategy.plugins import load_plugins
from cppncripto_strategy.recipe import Recipe, load_recipe
from cppncripto_strategy.registry import forget_everywhere
from cppncripto_strategy.replay import replay
from cppncripto_strategy.results import to_toml

GUIDE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text("utf-8")
FILES = {
    code.partition("\n")[0].removeprefix("# "): code
    for code in re.findall(r"```python\n(.*?)```", GUIDE, flags=re.S)
}
RECIPES = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", GUIDE, flags=re.S)[1:]]
SMALL: dict[str, Any] = {
    "name": "mine",
    "symbols": ["PLANTED"],
    "interval": "1h",
    "compare_without_macro": False,
    "candles": {"source": "planted", "planted": {"days": 90, "sigma": 0.004}},
    "macro": {"long_window": 288, "epochs": 1},
    "micro": {
        "short_window": 12,
        "channels": 4,
        "hidden": 4,
        "components": 2,
        "initialisations": 1,
        "epochs": 1,
    },
    "label": {"horizon": 4},
    "walkforward": {"train_days": 20, "validate_days": 15, "retrain_days": 28},
    "threshold": {"window": 72, "quantile": 0.3},
    "strategy": {"hold_candles": 2},
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with every file of the guide; what they register is forgotten afterwards."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    yield tmp_path
    for name in FILES:
        path = (tmp_path / name).resolve()
        forget_everywhere(str(path))
        plugins._LOADED.pop(path, None)


def merged(*recipes: dict[str, Any]) -> dict[str, Any]:
    """Recipes over each other: tables merge, lists of plugins join."""
    values: dict[str, Any] = {}
    for recipe in recipes:
        for key, value in recipe.items():
            old = values.get(key)
            if isinstance(value, dict):
                values[key] = merged(old or {}, value)
            else:
                values[key] = [*(old or []), *value] if key == "plugins" else value
    return values


def recipe_in(folder: Path, *recipes: dict[str, Any]) -> Recipe:
    path = folder / "mine.toml"
    path.write_text(to_toml(merged(SMALL, *recipes)))
    return load_recipe(path)


def weekdays_of(trades: pd.DataFrame) -> set[int]:
    """Days of the week of the entries, Monday is 0."""
    return set(pd.to_datetime(trades["entry_ms"], unit="ms").dt.day_of_week)


def test_the_guide_has_a_file_for_each_kind_of_part() -> None:
    """A kind of part that nobody is shown how to write."""
    assert set(FILES) == {
        "test_parts.py",
        "hour_means.py",
        "next_patch.py",
        "candle_body.py",
        "excursion.py",
        "weekdays.py",
        "worst_trades.py",
        "days_left.py",
    }
    assert {name for recipe in RECIPES for name in recipe["plugins"]} <= set(FILES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe["plugins"][0])
def test_the_printed_recipe_is_accepted(folder: Path, recipe: dict[str, Any]) -> None:
    """A key, or a place to register, that is taught and does not exist."""
    assert recipe_in(folder, recipe).plugins == (folder.resolve() / recipe["plugins"][0],)


@pytest.mark.parametrize("part", ["encoder", "objective", "feature", "label"])
def test_the_part_keeps_the_contract(folder: Path, part: str) -> None:
    """A part taught here that our own would not be allowed to be."""
    names: dict[str, Any] = {"__file__": str(folder / "test_parts.py")}
    exec(compile(FILES["test_parts.py"], "test_parts.py", "exec"), names)
    names[f"test_{part}"]()


def test_the_label_looks_ahead_as_far_as_it_says(folder: Path) -> None:
    """A label that reads beyond the candles that are purged for it, or misreads a path."""
    load_plugins([folder / "excursion.py"])
    kind = LABELS.get("excursion")
    close = np.array([100.0, 101.0, 100.2, 99.9, 98.0, 98.1, 98.2, 98.3])
    ones = np.ones(len(close))
    start_ms = utc_to_ms("2024-01-01")
    grid = CandleGrid(start_ms, 3_600_000, close, close, close, close, ones, ones, ones > 0)
    labels = kind(2, kind.Options(least_bps=30.0), Costs()).compute(grid)
    # From 100: +1 % and +0.2 %; from 101: -0.8 %, -1.1 %; from 98: +0.1 %, +0.2 % is too little.
    assert labels.target[[0, 1, 4]].tolist() == [1, -1, 0]
    assert labels.valid.tolist() == [True] * 6 + [False] * 2
    assert labels.horizon == 2


def test_the_command_is_one(folder: Path) -> None:
    """A command that the command line does not find."""
    words = ["--plugin", str(folder / "days_left.py"), "days-left", "3"]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.output == "3 days are 864 candles\n"


@pytest.mark.slow
def test_all_of_them_in_one_run(folder: Path) -> None:
    """Parts that work alone and not with each other, or only until the report is written."""
    recipe = recipe_in(folder, *RECIPES, {"macro": {"encoder_options": {"stride": 24}}})
    result = run_backtest(recipe, folder / "results", cache=folder / "bundles")
    assert result.bundles
    assert "The five worst trades" in (folder / "results" / "report.html").read_text("utf-8")

    names: dict[str, Any] = {}
    exec(FILES["weekdays.py"], names)
    market = load_market(recipe)
    span = traded_span(recipe, market)
    timeline = BundleTimeline.load(folder / "bundles")
    strategy = replay(recipe, market.candles, timeline, span, names["Weekdays"]).strategy
    assert weekdays_of(strategy.trades) == {0, 1, 2, 3, 4}
    assert weekdays_of(result.trades) > {0, 1, 2, 3, 4}
