"""A run's probabilities with macro and without: proper scores, differences, the constant beside."""

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.evaluation import class_scores as module
from cppncripto_strategy.evaluation.class_scores import class_scores
from cppncripto_strategy.evaluation.signals import Yardstick
from cppncripto_strategy.feeds.clock import HOUR_MS

CALM, WILD = 0.1, 0.35  # probability of a buy, and of a sell, on days of either kind
CONSTANT = (CALM + WILD) / 2
DAYS = 60
YARDSTICK = Yardstick(1, HOUR_MS, resamples=200)


@pytest.fixture(scope="module")
def world():
    """Stamps, each day's own probability of either side, and what came of it."""
    rng = np.random.default_rng(9)
    side = np.repeat(np.where(rng.random(DAYS) < 0.5, CALM, WILD), 24)
    draw = rng.random(len(side))
    label = np.where(draw < side, 1.0, np.where(draw > 1 - side, -1.0, 0.0))
    table = {"symbol": "AUSDT", "close_time_ms": HOUR_MS * np.arange(len(side), dtype=np.int64)}
    classes = pd.DataFrame(
        {**table, "label": label, "constant_buy": CONSTANT, "constant_sell": CONSTANT}
    )
    return pd.DataFrame(table), side, classes


def test_who_knows_how_wild_the_day_is_beats_who_does_not(world):
    """Dies here: arms exchanged, a difference of the wrong sign, a constant of somebody else."""
    stamps, side, classes = world
    knows, guesses = (stamps.assign(p_buy=p, p_sell=p) for p in (side, CONSTANT))
    found = class_scores(knows, guesses, classes, YARDSTICK)
    label, given = classes["label"].to_numpy(), np.stack([side, 1 - 2 * side, side])
    came = np.stack([label == 1, label == 0, label == -1])
    by_hand = {
        "log_loss": -np.log(given[came]).mean(),
        "brier": ((given - came) ** 2).sum(axis=0).mean(),
    }
    assert found["candles"] == len(stamps)
    for score, value in by_hand.items():
        part = found[score]
        assert part["traded"] == pytest.approx(value)
        assert part["over_without"]["value"] == pytest.approx(part["traded"] - part["constant"])
        assert part["over_without"]["high"] < 0
        assert part["over_constant"]["high"] < 0
        assert part["without_over_constant"] == {
            "value": 0.0, "low": 0.0, "high": 0.0, "count": len(stamps),
        }  # fmt: skip


def test_without_a_second_network_only_the_constant_is_beside(world):
    """Dies here: "without macro" that is the network itself."""
    stamps, side, classes = world
    table = stamps.assign(p_buy=side, p_sell=side)
    found = class_scores(table, None, classes, YARDSTICK)["log_loss"]
    assert found["without_macro"] is None
    assert found["over_without"] is None
    assert found["without_over_constant"] is None
    assert found["over_constant"]["high"] < 0


def test_only_candles_that_both_scored_and_that_have_a_label_count(world):
    """Dies here: rows joined by position; a score of nothing; one day that claims an interval."""
    stamps, side, classes = world
    table = stamps.assign(p_buy=side, p_sell=side)
    holed = table.drop(index=range(24, len(table)))
    found = class_scores(table, holed, classes.drop(index=range(3)), YARDSTICK)
    assert found["candles"] == 21
    assert found["brier"]["over_constant"]["low"] is None
    silent = table.assign(p_buy=np.nan)
    assert class_scores(silent, None, classes, YARDSTICK) is None
    unknown = classes.assign(constant_buy=np.nan, constant_sell=np.nan)
    assert class_scores(table, None, unknown, YARDSTICK) is None


def test_days_joined_at_a_time_change_nothing(world, monkeypatch):
    """A day cut in two, or a candle at a border that is in neither part, or in both."""
    stamps, side, classes = world
    table = stamps.assign(p_buy=side, p_sell=CONSTANT)
    both = pd.concat([table, table.assign(symbol="BUSDT", p_buy=CONSTANT)])
    known = pd.concat([classes, classes.assign(symbol="BUSDT")])
    whole = class_scores(
        both, both[["symbol", "close_time_ms", "p_buy", "p_sell"]], known, YARDSTICK
    )
    monkeypatch.setattr(module, "_DAYS_JOINED", 7)
    parts = class_scores(both, both, known, YARDSTICK)
    assert whole["candles"] == parts["candles"] == 2 * len(table)
    assert whole == parts
