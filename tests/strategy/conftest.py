"""A small hourly recipe and a replay of it, shared by the tests of market, replay and outcome."""

from types import SimpleNamespace

import numpy as np
import pytest

from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms
from cppncripto_strategy.recipe import parse_recipe

START_MS = utc_to_ms("2023-01-01")
BASE = {
    "interval": "1h",
    "symbols": ["A"],
    "macro": {"long_window": 288},
    "walkforward": {"train_days": 20, "validate_days": 15, "retrain_days": 7},
    "threshold": {"window": 60, "quantile": 0.2},
    "strategy": {"hold_candles": 3},
}

# 15-minute candles, small networks: a whole run in a few seconds.
TINY = """
symbols = ["ONE", "TWO"]
interval = "15m"
seed = 3
[candles]
source = "planted"
[candles.planted]
days = 52
mu = 2.0
sigma = 0.006
[macro]
long_window = 288
encoder_options = {channels = 4, stride = 4, dilations = [1, 2]}
epochs = 1
[micro]
short_window = 16
channels = 4
hidden = 4
components = 2
initialisations = 1
epochs = 1
warm_epochs = 1
[label]
horizon = 6
threshold_bps = 50
[walkforward]
train_days = 20
validate_days = 6
retrain_days = 7
macro_retrain_days = 14
[threshold]
window = 300
quantile = 0.1
[strategy]
hold_candles = 6
"""


def recipe_of(**changes):
    return parse_recipe({**BASE, **changes})


def day(number):
    return START_MS + number * DAY_MS


def timerange(first, last):
    return "-".join(
        np.datetime_as_string(np.datetime64(day(d), "ms"), unit="D").replace("-", "")
        for d in (first, last)
    )


@pytest.fixture(scope="session")
def tiny_toml():
    """The text of a recipe of two planted symbols that runs in seconds."""
    return TINY


@pytest.fixture(scope="session")
def hourly():
    """`recipe(**changes)`, `day(number)` in UTC ms and `timerange(first, last)`, from START_MS."""
    return SimpleNamespace(recipe=recipe_of, day=day, timerange=timerange, start_ms=START_MS)


@pytest.fixture(scope="session")
def traded(toy):
    """Two symbols with gaps, a timeline of random networks, and the recipe that trades them."""
    missing = {
        "A": [*range(22 * 24 + 5, 27 * 24, 7), *range(30 * 24 + 3, 30 * 24 + 9)],
        "B": [27 * 24 + 6],
    }
    candles = {
        name: toy.candles(days=34, seed=place, missing=rows)
        for place, (name, rows) in enumerate(missing.items())
    }
    timeline = toy.timeline(toy.grid(candles["A"]), toy.settings, sessions=(6, 12))
    recipe = recipe_of(symbols=["A", "B"], strategy={"hold_candles": 2})
    return recipe, candles, timeline
