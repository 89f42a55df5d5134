"""One MacroNet for several symbols, and its forecast of each one's coming day.

`python examples/gallery/universe/run.py` trains, trades with sizes that follow the forecast, and
prints the coming day of every symbol; results in `universe/`. With candles of your own:
`cppn-bt run recipe.toml --candles DIR`, then `cppn-bt forecast SYMBOL --candles DIR --bundle RUN`.
"""

from __future__ import annotations

from pathlib import Path

from cppncripto_strategy import BundleTimeline, Recipe, load_recipe, run_backtest
from cppncripto_strategy.forecasts import DayForecast, forecast_day
from cppncripto_strategy.market import load_market
from cppncripto_strategy.reports.forecast_chart import save_forecast_picture


def main(recipe: Recipe, folder: Path) -> dict[str, DayForecast]:
    """Run the recipe, then forecast the first day that is not over, of each symbol."""
    run_backtest(recipe, folder)
    bundle = BundleTimeline.load(folder / "bundles" / "with-macro").bundles[-1]
    candles, market = load_market(recipe).every, recipe.features.market
    found = {}
    for symbol in recipe.symbols:
        day = forecast_day(symbol, candles, recipe.interval_ms, market, bundle=bundle)
        coming = (day.volatility.expected, day.volatility.low, day.volatility.high)
        path = folder / f"{symbol.lower()}.png"
        save_forecast_picture(path, symbol, day.history, day.day_ms, coming, day.level)
        found[symbol] = day
    return found


if __name__ == "__main__":
    here = Path(__file__).with_name("recipe.toml")
    for name, day in main(load_recipe(here), Path("universe")).items():
        held, r2 = day.volatility_held.value, day.score.r2 if day.score else None
        print(
            f"{name}: {day.volatility.expected:.2%} [{day.volatility.low:.2%},"
            f" {day.volatility.high:.2%}] expected, {day.usual_volatility:.2%} usual;"
            f" intervals held {held:.0%} of {day.past_days} days, R2 {r2:.2f}"
        )
    print("open universe/report.html")
