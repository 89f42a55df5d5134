"""The label of every candle of a span, and how often each class came on the days learned from.

What probabilities of the three classes are held against (`evaluation.class_scores`), in a run and
in an experiment alike. Left out: what a label is (`models.labels`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

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
