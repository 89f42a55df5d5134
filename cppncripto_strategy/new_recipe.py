"""The text of a first recipe: the keys that people change, each with a word on what it does.

Left out: every other key, which has a default that works (docs/recipe.md lists them all).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.binance.endpoints import BINANCE_INTERVALS
from cppncripto_strategy.feeds.clock import DAY_MS, MINUTE_MS, interval_to_ms

TRADED_MONTHS = 6
TRAIN_DAYS, VALIDATE_DAYS, MACRO_DAYS, SPARE_DAYS = 320, 35, 5, 40
_MICRO_HOURS = 5

_TEXT = """\
# A first recipe. Every key that is not here has a default: docs/recipe.md lists them all.
symbols = [{symbols}]
interval = "{interval}"            # length of a candle
timerange = "{timerange}"    # days traded, all out of sample; end exclusive
seed = 1                   # the same seed gives the same networks

[candles]
source = "folder"
folder = "candles"         # beside this file: what `cppn-bt fetch --store` fills

[macro]
long_window = {long_window}        # candles MacroNet reads once a day: {macro_days} days
# encoder = "tcn"          # or "gru", "transformer", "cppn"

[micro]
short_window = {short_window}          # candles MicroNet reads at every candle: {micro_hours} hours

[label]
horizon = {horizon}               # candles ahead that it learns to predict
threshold_bps = 30         # a move counts beyond this: above the round trip of 22 bps

[walkforward]
train_days = {train_days}
validate_days = {validate_days}
retrain_days = 28          # MicroNet, from where it was
macro_retrain_days = 364   # both networks, anew

[threshold]
quantile = 0.02            # the top and bottom 2 % of past scores are signals

[strategy]
hold_candles = {horizon}          # close a position after as many candles as the label looks ahead
evidence = "wait"          # stay in cash until there is evidence of an edge after costs; or "trade"
# stop_pct = 3.0           # leave once a close is so many percent below the entry price
# max_daily_loss_pct = 2.0

[broker]
cash = 10000.0             # quote currency; nothing here ever sends a real order
fee_bps = 10.0             # taker fee per side
slippage_bps = 1.0
"""


def traded_span(today: date) -> tuple[date, date]:
    """First day traded and the day after the last: whole months, up to the first of this one."""
    end = today.replace(day=1)
    months = end.year * 12 + end.month - 1 - TRADED_MONTHS
    return date(months // 12, months % 12 + 1, 1), end


def fetch_from(today: date) -> date:
    """The day from which candles are needed: training, validation, warm-up and some to spare."""
    days = TRAIN_DAYS + VALIDATE_DAYS + MACRO_DAYS + SPARE_DAYS
    return traded_span(today)[0] - timedelta(days=days)


def recipe_text(symbols: Sequence[str], interval: str, today: date) -> str:
    """A commented recipe.

    Parameters
    ----------
    symbols : such as BTCUSDT.
    interval : of a candle; from 1m to 15m: longer ones are too few for five days of MacroNet.

    Raises
    ------
    RecipeError
        When the exchange has no such interval, a symbol is no name, or windows would be too short.
    """
    strange = [name for name in symbols if not (name.isascii() and name.isalnum())]
    if strange:
        raise RecipeError(f"{', '.join(strange)} is no symbol: expected names such as BTCUSDT")
    step_ms = interval_to_ms(interval) if interval in BINANCE_INTERVALS else 0
    if not MINUTE_MS <= step_ms <= 15 * MINUTE_MS:
        raise RecipeError(f"interval {interval!r}: expected one from 1m to 15m, such as 5m")
    first, end = traded_span(today)
    hour = 60 * MINUTE_MS // step_ms
    return _TEXT.format(
        symbols=", ".join(f'"{name}"' for name in symbols),
        interval=interval,
        timerange=f"{first:%Y%m%d}-{end:%Y%m%d}",
        long_window=MACRO_DAYS * DAY_MS // step_ms,
        macro_days=MACRO_DAYS,
        short_window=_MICRO_HOURS * hour,
        micro_hours=_MICRO_HOURS,
        horizon=4 * hour,
        train_days=TRAIN_DAYS,
        validate_days=VALIDATE_DAYS,
    )
