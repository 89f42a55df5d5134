"""A small search whose steps cost nothing: the market is real, the networks are a formula."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("optuna", reason="extra [tune] is not installed")

from cppncripto_strategy.recipe import parse_recipe
from cppncripto_strategy.tuning.measures import StepResult

BASE = {
    "name": "tiny",
    "symbols": ["PLANTED"],
    "interval": "1h",
    "candles": {"source": "planted", "planted": {"days": 100, "seed": 5}},
    "macro": {"long_window": 288, "epochs": 1},
    "micro": {"short_window": 8, "epochs": 1, "initialisations": 1, "channels": 4},
    "label": {"horizon": 2},
    "walkforward": {"train_days": 20, "validate_days": 15, "retrain_days": 7},
    "threshold": {"window": 48, "quantile": 0.2},
    "strategy": {"hold_candles": 3},
    "search": {"trials": 12, "windows": 4, "sealed_days": 10, "seed": 3},
    "space": {
        "threshold.quantile": {"float": [0.05, 0.4]},
        "strategy.hold_candles": {"int": [1, 9]},
    },
}


def recipe_of(**changes):
    """The small recipe with whole tables replaced, [search] key by key."""
    search = BASE["search"] | changes.pop("search", {})
    return parse_recipe({**BASE, "search": search, **changes})


def step_of(changes, window, seed, **more):
    """A step's result by formula: Sharpe is highest at quantile 0.2 and 5 candles."""
    miss = abs(changes.get("threshold.quantile", 0.1) - 0.2) * 10
    miss += abs(changes.get("strategy.hold_candles", 3) - 5) / 4
    noise = np.random.default_rng([window, seed]).standard_normal(7)
    values = {
        "window": window,
        "seed": seed,
        "candles": 100,
        "loss": 100.0 + miss,
        "signals": 10,
        "hits": 6.0,
        "break_even": 0.55,
        "days": tuple(range(7 * window, 7 * window + 7)),
        "daily": tuple((0.01 * (noise + 1 - miss)).tolist()),
        "drawdown": 0.1 * miss,
        "turnover": 100.0 * (1 + miss),
        "trades": 5,
        "networks": f"w{window}",
        "train_s": 0.0,
        "trade_s": 0.5,
    }
    return StepResult(**{**values, **more})


def formula(plan, changes, window, seed):
    """Stands in for `evaluation.evaluate`."""
    return step_of(changes, window, seed).to_plain()


@pytest.fixture(scope="session")
def tiny():
    """`recipe(**changes)`, `step(changes, window, seed)` and `formula`, a step's stand-in."""
    return SimpleNamespace(recipe=recipe_of, step=step_of, formula=formula, base=BASE)


@pytest.fixture
def quick(monkeypatch):
    """Searches whose steps are formulas, and whose sealed days are, too."""
    monkeypatch.setattr("cppncripto_strategy.tuning.search.evaluate", formula)
    monkeypatch.setattr("cppncripto_strategy.tuning.sealed.Ground", _Formulas)
    # Five megabytes per page, which no test reads.
    monkeypatch.setattr("cppncripto_strategy.reports.pages._plotly_script", lambda: "")


class _Formulas:
    def __init__(self, plan, market):
        self.market = market

    def run(self, changes, span, window, seed):
        return step_of(changes, window, seed)
