"""A symbol's quantity step and price tick, read off the decimals of its own candles.

The tick is the smallest decimal step of prices (all four of a candle), the step that of volumes:
0.01 where prices end in hundredths. It is a power of ten, at most 1. A sample says that much,
because nine values in ten do not end in a zero: 100 volumes that all do, by chance, are out of the
question.

Left out: what no candle tells (maximum quantity, status), and minimum notional (`feeds.filters` has
it by quote currency).
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray
from cppncripto_strategy.feeds.candles import PRICE_COLUMNS, Candles
from cppncripto_strategy.feeds.clock import ms_to_utc
from cppncripto_strategy.feeds.filters import QUOTE_MINIMUM, KnownFilters, SymbolFilters, quote_of

# The newest candles that are looked at (the exchange changes steps, so not many), and how few are
# too few to say anything.
SAMPLE_CANDLES = 5_000
MIN_CANDLES = 100
# Share of values that must lie on a step. After the exchange has coarsened one, older orders still
# trade on the finer: 0.5 % of BTCUSDT's 5-minute volumes in January 2022, months later.
ON_STEP = 0.98
_MAX_DECIMALS = 18
# A value is on a step within so many of its own float steps: sums of volumes carry rounding.
_ROUNDING = 8.0
# A step finer than so many float steps of the values would be met by any number.
_RESOLVED = 1000.0


def derived_filters(symbol: str, candles: Candles) -> KnownFilters:
    """Filters of a symbol of which only candles are known.

    Parameters
    ----------
    candles : of any length; the last `SAMPLE_CANDLES` are looked at. Below `MIN_CANDLES` nothing is
        derived.

    Returns
    -------
    Step and tick as above (the minimum quantity is one step), no rule where candles tell none, and
    the minimum notional of the quote currency, none where the symbol's ending is unknown. The
    origin says all of this.
    """
    quote = quote_of(symbol)
    minimum = QUOTE_MINIMUM.get(quote or "", Decimal(0))
    assumed = f"minimum notional assumed for {quote}" if minimum else "no minimum notional known"
    sample = candles[max(0, len(candles) - SAMPLE_CANDLES) :]
    if len(sample) < MIN_CANDLES:
        origin = f"nothing stated and {len(sample)} candles are too few to derive from; {assumed}"
        return KnownFilters(SymbolFilters(min_notional=minimum), origin, quote=quote)
    tick = decimal_step(np.concatenate([getattr(sample, name) for name in PRICE_COLUMNS]))
    step = decimal_step(sample.volume)
    until = ms_to_utc(int(sample.open_time[-1]))[:10]
    filters = SymbolFilters(lot_step=step, min_qty=step, tick_size=tick, min_notional=minimum)
    origin = f"derived from {len(sample):,} candles until {until}; {assumed}"
    return KnownFilters(filters, origin, quote=quote)


def decimal_step(values: FloatArray) -> Decimal:
    """Smallest power of ten, at most 1, of which nearly all values (N,) are multiples.

    Zeros and NaN are not looked at. 0 where there is no such step: values of more digits than a
    float holds apart, or too few values.
    """
    numbers = np.abs(values[np.isfinite(values) & (values != 0)])
    if len(numbers) < MIN_CANDLES:
        return Decimal(0)
    for decimals in range(_MAX_DECIMALS + 1):
        resolved = 10.0**-decimals >= _RESOLVED * np.spacing(numbers)
        if decimals and resolved.mean() < ON_STEP:
            break
        if _on_step(numbers, decimals).mean() >= ON_STEP:
            return Decimal(1).scaleb(-decimals)
    return Decimal(0)


def _on_step(numbers: FloatArray, decimals: int) -> BoolArray:
    """Whether each number has no more decimals than these."""
    scale = 10.0**decimals
    nearest = np.rint(numbers * scale) / scale
    on_step: BoolArray = np.abs(nearest - numbers) <= _ROUNDING * np.spacing(numbers)
    return on_step
