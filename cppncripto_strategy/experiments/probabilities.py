"""Two arms' probabilities on the same candles: log loss and Brier score, beside the constant's.

Compared are all candles that both arms scored and whose label is known, not the signals alone: a
probability that nothing will happen counts, too. Left out: what the labels are (`models.labels`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.proper_scores import brier_score, log_loss
from cppncripto_strategy.feeds.clock import DAY_MS, Span
from cppncripto_strategy.market import Market
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.recipe import Recipe

CLASS_COLUMNS = ("label", "constant_buy", "constant_sell")
_SCORES: Mapping[str, Callable[..., FloatArray]] = {"log_loss": log_loss, "brier": brier_score}
SCORES = tuple(_SCORES)


@dataclass(frozen=True)
class Candidate:
    """The columns of a decisions table that hold one forecast's probabilities."""

    p_buy: str
    p_sell: str


A, B = Candidate("p_buy_a", "p_sell_a"), Candidate("p_buy_b", "p_sell_b")
CONSTANT = Candidate("constant_buy", "constant_sell")


def class_table(recipe: Recipe, market: Market, span: Span) -> pd.DataFrame:
    """The label of every candle of the span, and the training days' class frequencies.

    Columns symbol, close_time_ms, label (+1, 0, -1), constant_buy, constant_sell: the share of each
    class among the symbol's labels of the first training's days, whose outcome was known before the
    span began. Candles without a label are left out; shares are NaN where no such day has one.
    """
    settings = recipe.learn_settings(recipe.macro.enabled)
    learned = (settings.train_days + settings.validate_days) * DAY_MS
    parts = []
    for symbol, candles in market.candles.items():
        grid = CandleGrid.from_candles(candles, recipe.interval_ms)
        labels = settings.label.compute(grid)
        close_ms = grid.close_time
        known_ms = close_ms + labels.horizon * recipe.interval_ms
        past = labels.valid & (close_ms > span.start_ms - learned) & (known_ms <= span.start_ms)
        inside = labels.valid & (close_ms >= span.start_ms) & (close_ms <= span.end_ms)
        target = labels.target[past]
        parts.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "close_time_ms": close_ms[inside],
                    "label": labels.target[inside].astype(np.float64),
                    "constant_buy": np.mean(target == 1) if len(target) else np.nan,
                    "constant_sell": np.mean(target == -1) if len(target) else np.nan,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def with_classes(decisions: pd.DataFrame, classes: pd.DataFrame | None) -> pd.DataFrame:
    """Decisions with the columns of `class_table` beside them, NaN where it has no row."""
    if classes is None:
        return decisions.assign(**dict.fromkeys(CLASS_COLUMNS, np.nan))
    keys = ["symbol", "close_time_ms"]
    return decisions.merge(classes, on=keys, how="left", validate="one_to_one")


def paired_probabilities(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """The candles with a label that both arms gave probabilities for; empty where one has none.

    Parameters
    ----------
    a, b : decisions of both arms under one seed; the label's columns are taken from the first.
    """
    keys, own = ["symbol", "close_time_ms"], ["p_buy", "p_sell"]
    if not {*own, *CLASS_COLUMNS} <= set(a) or not set(own) <= set(b):
        return pd.DataFrame(columns=[*keys, *CLASS_COLUMNS])  # cells kept before there were any
    both = a[[*keys, *own, *CLASS_COLUMNS]].merge(
        b[[*keys, *own]], on=keys, suffixes=("_a", "_b"), validate="one_to_one"
    )
    return both.dropna().sort_values(keys[::-1], kind="stable")


def score_totals(pair: pd.DataFrame, score: str, first: Candidate, second: Candidate) -> FloatArray:
    """Per day: summed score of the first, candles, of the second, candles; (days, 4)."""
    label, ones = pair["label"].to_numpy(np.float64), np.ones(len(pair))
    losses = [
        _SCORES[score](pair[c.p_buy].to_numpy(), pair[c.p_sell].to_numpy(), label)
        for c in (first, second)
    ]
    days, at = np.unique(pair["close_time_ms"].to_numpy(np.int64) // DAY_MS, return_inverse=True)
    totals = np.zeros((len(days), 4))
    np.add.at(totals, at, np.stack([losses[0], ones, losses[1], ones], axis=1))
    return totals
