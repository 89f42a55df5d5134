"""The coming day's forecast from a candle store under the folder: volatility and range.

It is `forecasts.forecast_day` on the store's last candles, without a bundle. Left out: direction,
which nothing here predicts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from cppncripto_strategy.desk.busy import alone
from cppncripto_strategy.desk.listing import Entry
from cppncripto_strategy.desk.schema import Forecast, Instant, Range
from cppncripto_strategy.errors import StoreError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, interval_to_ms
from cppncripto_strategy.feeds.history.store import CandleStore

# Of a store's days, the last so many: more of them take longer than a request should.
MOST_DAYS = 1_200
# Of these lengths the first that the store has of the symbol.
LENGTHS = ("5m", "15m", "1m", "30m", "1h")
MARKET = "BTCUSDT"
KEPT = 64


class Outlooks:
    """Forecasts by store and symbol; made again when the store's candles change. One per desk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Any, ...], Forecast] = OrderedDict()

    def of(self, entry: Entry, symbol: str) -> Forecast:
        """The forecast of a symbol's first day that is not over.

        Raises
        ------
        BusyError
            When others' forecasts take too long.
        CppnError
            When the store has no such symbol, a file of it is damaged, or its days are too few.
        """
        store = CandleStore(entry.path)
        interval = _interval(store, symbol)
        names = [symbol, *([MARKET] if symbol != MARKET else [])]
        names = [name for name in names if (name, interval) in store.series()]
        key = (entry.id, interval, *(_changed(store, name, interval) for name in names))
        with alone(self._lock):
            if key not in self._known:
                self._known[key] = _forecast(store, names, interval)
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)
            return self._known[key]


def _interval(store: CandleStore, symbol: str) -> str:
    held = [interval for name, interval in store.series() if name == symbol]
    found = next((length for length in LENGTHS if length in held), None)
    if found is None:
        raise StoreError(f"this store holds no candles of {symbol} that a day can be made of")
    return found


def _changed(store: CandleStore, symbol: str, interval: str) -> tuple[Any, ...]:
    """Another tuple whenever a file of the series is another one."""
    files = sorted(store.folder(symbol, interval).glob("*.parquet"))
    return (symbol, *((path.name, path.stat().st_mtime_ns) for path in files))


def _last_days(store: CandleStore, symbol: str, interval: str) -> Candles:
    last_ms = int(store.coverage(symbol, interval).span.end_ms)
    return store.read(symbol, interval, last_ms - MOST_DAYS * DAY_MS, last_ms)


def _forecast(store: CandleStore, names: list[str], interval: str) -> Forecast:
    from cppncripto_strategy.forecasts import forecast_day

    series = {name: _last_days(store, name, interval) for name in names}
    market = names[1] if len(names) > 1 else None
    found = forecast_day(names[0], series, interval_to_ms(interval), market)
    return Forecast(
        symbol=found.symbol,
        day=Instant.of(found.day_ms),
        interval=interval,
        volatility=Range.model_validate(_bounds(found.volatility)),
        range=Range.model_validate(_bounds(found.range)),
        annual_volatility=found.annual_volatility,
        usual_volatility=found.usual_volatility,
        level=found.level,
        inputs=found.inputs,
        market=found.market,
        learned_days=found.learned_days,
        learned_from=Instant.of(found.learned_from_ms),
        volatility_held=found.volatility_held.value,
        range_held=found.range_held.value,
        past_days=found.past_days,
    )


def _bounds(outlook: Any) -> dict[str, float]:
    """Expected value and bounds of a forecast quantity."""
    return {name: float(getattr(outlook, name)) for name in ("expected", "low", "high")}
