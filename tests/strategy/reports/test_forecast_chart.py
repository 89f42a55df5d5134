"""The chart of past forecasts: a gap stays a gap, and what missed is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.reports.forecast_chart import forecast_figure, save_forecast_picture

COMING = (0.03, 0.02, 0.05)


def history() -> pd.DataFrame:
    """Four past days of six; the last one lies outside its interval."""
    return pd.DataFrame(
        {
            "day_ms": np.array([0, 1, 4, 5]) * DAY_MS,
            "expected": 0.02,
            "low": 0.01,
            "high": 0.04,
            "came": [0.02, 0.03, 0.01, 0.06],
        }
    )


def test_the_figure_shows_the_coming_day_gaps_and_misses() -> None:
    """Kills a line drawn across days that nobody forecast, and a miss that looks like a hit."""
    figure = forecast_figure("A<b>USDT", history(), 6 * DAY_MS, COMING, 0.8)
    traces = {trace.name: trace for trace in figure.data}
    np.testing.assert_allclose(
        np.array(traces["forecast"].y, dtype=float), [2, 2, np.nan, np.nan, 2, 2, 3]
    )
    assert list(traces["came, outside"].x) == [5 * DAY_MS]
    assert len(traces["came"].x) == 3
    assert "80 % interval" in traces
    assert "<b>" not in figure.layout.yaxis.title.text


def test_a_first_forecast_without_a_past_can_be_drawn(tmp_path: Path) -> None:
    """Kills a crash on the first day."""
    path = tmp_path / "first.png"
    save_forecast_picture(path, "AUSDT", history()[:0], 6 * DAY_MS, COMING, 0.8)
    assert path.read_bytes().startswith(b"\x89PNG")
