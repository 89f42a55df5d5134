"""Run a backtest from Python and look at the result: the verdict, then the numbers behind it.

The market is planted: no network, no data, and the answer is known. Training for seconds finds only
part of it. Results land in `results/` where you stand; open `results/report.html` afterwards.
"""

from pathlib import Path

from cppncripto_strategy import load_recipe, run_backtest

# Keys that the file leaves out keep their defaults: docs/recipe.md lists all. Any top-level key can
# be replaced here; `recipe.parse_recipe({...})` makes a recipe without a file.
recipe = load_recipe(Path(__file__).with_name("small.toml"), seed=1)
result = run_backtest(recipe, Path("results"))

# The verdict comes first, in words; every number of the report is in `result.metrics`.
print(result.metrics["verdict"]["headline"])
print(result.metrics["verdict"]["detail"])

print(f"\n{'':22}{'return':>9}{'Sharpe':>9}{'max. drawdown':>15}{'trades':>8}")
accounts = {"strategy": "with macro", "without_macro": "without macro", "benchmark": "buy and hold"}
for key, name in accounts.items():
    account = result.metrics[key]
    sharpe = account["sharpe"]  # None where it is not defined: a number is never made up
    print(
        f"{name:22}{account['total_return']:>9.1%}{sharpe or float('nan'):>9.2f}"
        f"{account['max_drawdown']:>15.1%}{account['trades'] or '-':>8}"
    )

# Hit ratio, its 95 % interval and what breaking even takes belong together.
both = result.metrics["signals"]["both"]
hit = both["hit_ratio"]
print(
    f"\nsignals: {both['judged']}, right {hit['value']:.1%} [{hit['low']:.1%}, {hit['high']:.1%}],"
    f" breaking even takes {both['break_even_hit_ratio']:.1%}"
)
# What was planted, what could be reached at most, and what was reached.
for what, value in (result.planted or {}).items():
    print(f"  {what}: {value}")

# Tables are pandas DataFrames, and Parquet files in the folder: signals, fills, trades, equity.
by_exit = result.trades.groupby("exit_reason")["pnl"].agg(["count", "sum"]).round(2)
print(f"\nprofit and loss by the reason of the exit:\n{by_exit}")
