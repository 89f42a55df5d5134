"""The label of every candle of a span, and how often each class came on the days learned from.

What probabilities of the three classes are held against (`evaluation.class_scores`), in a run and
in an experiment alike. Left out: what a label is (`models.labels`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cppncripto_strategy.feeds.clock import DAY_MS, Span
from cppncripto_strategy.market import Market
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.recipe import Recipe


def class_table(recipe: Recipe, market: Market, span: Span) -> pd.DataFrame | None:
    """The label of every candle of the span, and the training days' class frequencies.

    Columns symbol, close_time_ms, label (+1, 0, -1), constant_buy, constant_sell: the share of each
    class among the symbol's labels of the first training's days, whose outcome was known before the
    span began. Candles without a label are left out; shares are NaN where no such day has one. None
    for a regression head, which gives no probabilities that a proper score could judge.
    """
    if recipe.micro.head != "classes":
        return None
    settings = recipe.learn_settings(recipe.macro.enabled)
    learned = (settings.train_days + settings.validate_days) * DAY_MS
    # Small parts, from which each column is made at once: joined tables would lie there twice.
    known, shares = [], []
    for candles in market.candles.values():
        grid = CandleGrid.from_candles(candles, recipe.interval_ms)
        labels = settings.label.compute(grid)
        close_ms = grid.close_time
        known_ms = close_ms + labels.horizon * recipe.interval_ms
        past = labels.valid & (close_ms > span.start_ms - learned) & (known_ms <= span.start_ms)
        inside = labels.valid & (close_ms >= span.start_ms) & (close_ms <= span.end_ms)
        known.append((close_ms[inside], labels.target[inside]))
        shares.append(_shares(labels.target[past]))
    counts = [len(target) for _, target in known]
    of_row = np.repeat(np.arange(len(known)), counts)
    close_times, targets = zip(*known, strict=True)
    buy, sell = np.array(shares).T
    columns = {
        "symbol": pd.Series(list(market.candles), dtype="str").take(of_row).array,
        "close_time_ms": np.concatenate(close_times),
        "label": np.concatenate(targets, dtype=np.float64),
        "constant_buy": buy[of_row],
        "constant_sell": sell[of_row],
    }
    return pd.DataFrame(columns, copy=False)


def _shares(target: NDArray[np.int8]) -> tuple[float, float]:
    """How often a symbol's labels were +1 and -1; NaN where there is none."""
    if len(target) == 0:
        return np.nan, np.nan
    return float(np.mean(target == 1)), float(np.mean(target == -1))
