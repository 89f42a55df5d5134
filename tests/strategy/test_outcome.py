"""What a run reports beside its trades: gaps, setups of a planted market, latency."""

import numpy as np

from cppncripto_strategy import outcome
from cppncripto_strategy.feeds.clock import HOUR_MS, Span
from cppncripto_strategy.market import Market, load_market
from cppncripto_strategy.replay import replay


def test_gaps_of_training_and_trading_are_reported(hourly, traded):
    """An outage that nobody is told about."""
    recipe, candles, timeline = traded
    rows = outcome._gaps(Market(candles), Span(hourly.day(28), hourly.day(34)), timeline, recipe)
    single = len(range(22 * 24 + 5, 27 * 24, 7))
    found = [(row["symbol"], row["candles"]) for row in rows]
    assert found == [*[("A", 1)] * single, ("A", 6), ("B", 1)]
    assert rows[single]["start_ms"] == hourly.day(30) + 3 * HOUR_MS
    assert rows[single]["end_ms"] == hourly.day(30) + 9 * HOUR_MS


def test_span_without_a_scored_setup_is_said_and_not_raised(hourly, toy):
    """A run of minutes thrown away because a short span had no setup."""
    recipe = hourly.recipe(candles={"source": "planted", "planted": {"days": 30}})
    market = load_market(recipe)
    grid = toy.grid(market.candles["A"])
    timeline = toy.timeline(grid, toy.settings, sessions=(6,))
    span = Span(timeline.first_session_ms, timeline.first_session_ms + 2 * HOUR_MS)
    signals = replay(recipe, market.candles, timeline, span).strategy.signals
    signals["score"] = np.nan
    assert outcome._hit_text(recipe, market, span, signals) == "no setup was scored"


def test_latency_is_measured_of_the_streaming_path(toy):
    """A latency of nothing, or of another network."""
    grid = toy.grid(toy.candles())
    seconds = outcome.micro_latency_s(toy.timeline(grid, toy.settings).bundles[0], rows=20)
    assert len(seconds) == 20
    assert min(seconds) > 0
