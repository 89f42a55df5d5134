"""What probabilities are held against: labels of the span, class frequencies of the days before."""

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.class_labels import class_table
from cppncripto_strategy.evaluation.class_scores import with_classes
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS, Span
from cppncripto_strategy.market import Market
from cppncripto_strategy.models.inputs.grid import CandleGrid


def test_class_frequencies_are_those_of_labels_known_before_the_span(hourly, toy):
    """Kills frequencies that have seen the span, and labels on the wrong candle."""
    recipe = hourly.recipe(symbols=["A"], label={"horizon": 6, "threshold_bps": 25})
    candles = toy.candles(days=60, seed=3)
    start = int(candles.open_time[0])
    span = Span(start + 45 * DAY_MS, start + 55 * DAY_MS)
    found = class_table(recipe, Market({"A": candles}), span)
    grid = CandleGrid.from_candles(candles, HOUR_MS)
    labels = recipe.learn_settings().label.compute(grid)
    of = dict(zip(grid.close_time.tolist(), labels.target.tolist(), strict=True))
    assert found["close_time_ms"].between(span.start_ms, span.end_ms).all()
    assert [of[t] for t in found["close_time_ms"]] == found["label"].tolist()
    first = span.start_ms - 35 * DAY_MS
    known = [
        of[t]
        for t, valid in zip(grid.close_time.tolist(), labels.valid, strict=True)
        if valid and first < t <= span.start_ms - 6 * HOUR_MS
    ]
    assert found["constant_buy"].unique() == pytest.approx([np.mean(np.array(known) == 1)])
    assert found["constant_sell"].unique() == pytest.approx([np.mean(np.array(known) == -1)])
    later = candles.replace(
        close=np.where(candles.open_time >= span.start_ms, candles.close * 3, candles.close)
    )
    moved = class_table(recipe, Market({"A": later}), span)
    assert moved["constant_buy"].iloc[0] == found["constant_buy"].iloc[0]
    bare = pd.DataFrame({"symbol": ["A"], "close_time_ms": [span.start_ms]})
    assert with_classes(bare, found)["label"].notna().all()
    assert with_classes(bare, None)["label"].isna().all()
    regression = hourly.recipe(symbols=["A"], micro={"head": "regression"})
    assert class_table(regression, Market({"A": candles}), span) is None


def test_table_of_several_symbols_is_that_of_each_one_after_another(hourly, toy):
    """Kills shares or labels that land on another symbol's rows, and a symbol without a past."""
    recipe = hourly.recipe(symbols=["A", "B", "C"], label={"horizon": 6, "threshold_bps": 25})
    long, other = toy.candles(days=60, seed=3), toy.candles(days=60, seed=4)
    start = int(long.open_time[0])
    span = Span(start + 45 * DAY_MS, start + 55 * DAY_MS)
    young = long[long.open_time >= span.start_ms + DAY_MS]
    candles = {"A": long, "B": young, "C": other}
    alone = {s: class_table(recipe, Market({s: c}), span) for s, c in candles.items()}
    assert alone["B"][["constant_buy", "constant_sell"]].isna().all(axis=None)
    assert alone["A"]["constant_buy"].iloc[0] != alone["C"]["constant_buy"].iloc[0]
    assert len({len(table) for table in alone.values()}) > 1
    pd.testing.assert_frame_equal(
        class_table(recipe, Market(candles), span),
        pd.concat(alone.values(), ignore_index=True),
        check_exact=True,
    )
