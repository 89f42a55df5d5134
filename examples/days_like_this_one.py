"""Days like this one: the nearest past days of a day by their embeddings, and what followed them.

MacroNet is trained first, on a planted market; then every day gets its embedding, and the last day
is compared with all days whose data end before its own begin. `cppn-bt embed` and `cppn-bt days` do
the same from a shell.
"""

from pathlib import Path

import numpy as np

from cppncripto_strategy.backtest import load_market, run_backtest
from cppncripto_strategy.embeddings import embed_candles, outcomes, similar_days, write_embeddings
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_utc
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.recipe import load_recipe

recipe = load_recipe(Path(__file__).with_name("small.toml"), compare_without_macro=False)
run_backtest(recipe, Path("results"), cache=Path("bundles"))
market = load_market(recipe)
candles = market.candles["PLANTED"]

# In-sample on purpose: the days learned from are wanted as neighbours. They are marked in the table;
# look at them, but measure nothing on them.
timeline = BundleTimeline.load(Path("bundles"), in_sample=True)
table = embed_candles("PLANTED", candles, timeline)
write_embeddings(table, Path("embeddings.parquet"))
print(f"{len(table)} days embedded, {sum(table['in_sample'].to_pylist())} of them in sample")

today = table["session_ms"].to_pylist()[-2]  # the last one begins where the candles end
near = similar_days(table, "PLANTED", today, count=8)
followed = outcomes(candles, recipe.interval_ms, [day.session_ms for day in near])

# The planted truth, which no embedding saw: did MacroNet put days of one regime together?
first = int(candles.open_time[0]) // DAY_MS
regime = market.planted["PLANTED"].regime
print(
    f"the days most like {ms_to_utc(today)[:10]} (hidden regime {regime[today // DAY_MS - first]:+d}):"
)
for day, outcome in zip(near, followed, strict=True):
    print(
        f"  {ms_to_utc(day.session_ms)[:10]}  distance {day.distance:6.2f}"
        f"  return {outcome.simple_return:+7.2%}  volatility {outcome.realised_volatility:6.2%}"
        f"  regime {regime[day.session_ms // DAY_MS - first]:+d}"
    )
mean = np.nanmean([outcome.realised_volatility for outcome in followed])
print(f"volatility forecast from its neighbours: {mean:.2%}")
