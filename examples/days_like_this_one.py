"""Days like this one: the nearest past days of a day by their embeddings, and what followed them.

MacroNet is trained first, on a planted market; then every day gets its embedding, and one day is
compared with all days whose data end before its own data begin. `cppn-bt embed` and `cppn-bt days`
do the same from a shell.
"""

from pathlib import Path

import numpy as np

from cppncripto_strategy import BundleTimeline, load_recipe
from cppncripto_strategy.embeddings import embed_candles, outcomes, similar_days, write_embeddings
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_utc
from cppncripto_strategy.market import load_market, session_tables, traded_span
from cppncripto_strategy.models.learning.walkforward import walk_forward

recipe = load_recipe(Path(__file__).with_name("small.toml"))
market, settings = load_market(recipe), recipe.learn_settings()
span, sessions = traded_span(recipe, market), session_tables(market, settings.session)
walk_forward(sessions, span.start_ms, span.end_ms, settings, recipe.seed, Path("bundles"))

# In-sample on purpose: the days learned from are wanted as neighbours. The table marks them: look
# at them, but measure nothing on them.
timeline = BundleTimeline.load(Path("bundles"), in_sample=True)
candles = market.candles["PLANTED"]
table = embed_candles("PLANTED", candles, timeline)
write_embeddings(table, Path("embeddings.parquet"))
print(f"{len(table)} days embedded, {sum(table['in_sample'].to_pylist())} of them in sample")

day_ms = table["session_ms"].to_pylist()[-2]  # the last session begins where the candles end
near = similar_days(table, "PLANTED", day_ms, count=8)
followed = outcomes(candles, recipe.interval_ms, [day.session_ms for day in near])

# The planted truth, which no embedding saw: are days of one regime neighbours?
regimes, first_day = market.planted["PLANTED"].regime, int(candles.open_time[0]) // DAY_MS


def regime(session_ms):
    """Of the day before: the newest one the embedding saw."""
    return regimes[session_ms // DAY_MS - first_day - 1]


print(f"days most like {ms_to_utc(day_ms)[:10]}, whose hidden regime was {regime(day_ms):+d}:")
for day, outcome in zip(near, followed, strict=True):
    print(
        f"  {ms_to_utc(day.session_ms)[:10]}  distance {day.distance:6.2f}"
        f"  return {outcome.simple_return:+7.2%}  volatility {outcome.realised_volatility:6.2%}"
        f"  regime {regime(day.session_ms):+d}"
    )
mean = np.nanmean([outcome.realised_volatility for outcome in followed])
print(f"volatility forecast, the mean of its neighbours: {mean:.2%}")
