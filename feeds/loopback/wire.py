"""What the loopback exchange serves: candles as they look on the wire, whole or still forming.

No sockets, no clock, and no field names: those are `feeds.binance`'s. A number goes out as the
exchange sends it, a string with eight decimals.

Where the candles handed in lack the four optional columns (NaN), neutral stand-ins are sent,
because the exchange always fills them: quote volume = volume x mean of open and close, one trade
for a candle with volume, and half of the volume bought by takers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cppncripto_strategy.feeds.binance.klines import Kline, decimal_text
from cppncripto_strategy.feeds.candles import COLUMNS, Candles


def as_served(candles: Candles) -> Candles:
    """The candles as a client will read them: eight decimals, stand-ins for missing columns."""
    mean = (candles.open + candles.close) / 2
    stand_ins = {
        "quote_volume": candles.volume * mean,
        "trades": (candles.volume > 0).astype(np.float64),
        "taker_buy_volume": candles.volume / 2,
        "taker_buy_quote_volume": candles.volume / 2 * mean,
    }
    columns: dict[str, object] = {"open_time": candles.open_time}
    for name in COLUMNS[1:]:
        values = getattr(candles, name)
        if name in stand_ins:
            values = np.where(np.isnan(values), stand_ins[name], values)
        # Through the text itself: np.round differs from it in the last bit for large numbers.
        columns[name] = np.array([float(decimal_text(value)) for value in values.tolist()])
    return Candles.from_columns(**columns)


def whole_kline(candles: Candles, row: int, interval_ms: int, first_trade_id: int = 0) -> Kline:
    """Row `row` of served candles, closed."""
    return _kline(candles, row, interval_ms, 1.0, first_trade_id)


def forming_kline(
    candles: Candles, row: int, interval_ms: int, elapsed_ms: int, first_trade_id: int = 0
) -> Kline:
    """Row `row` as it looks `elapsed_ms` after its open: part of its range, part of its volume.

    The path from open to close is a straight line and the range opens in proportion, so the
    forming candle always satisfies low <= open, close <= high and never shows a wider range.
    """
    part = min(1.0, max(0.0, elapsed_ms / interval_ms))
    return _kline(candles, row, interval_ms, part, first_trade_id)


def restated_kline(kline: Kline) -> Kline:
    """The candle as the exchange might restate it: with one trade and some volume more."""
    volume = decimal_text(float(kline.volume) + 1.0)
    return replace(kline, volume=volume, trades=kline.trades + 1)


def _kline(candles: Candles, row: int, interval_ms: int, part: float, first_trade_id: int) -> Kline:
    open_time = int(candles.open_time[row])
    begin = float(candles.open[row])

    def price(name: str) -> str:
        end = float(getattr(candles, name)[row])
        return decimal_text(end if part == 1.0 else begin + part * (end - begin))

    def amount(name: str) -> str:
        return decimal_text(part * float(getattr(candles, name)[row]))

    return Kline(
        open_time=open_time,
        close_time=open_time + interval_ms - 1,
        open=decimal_text(begin),
        high=price("high"),
        low=price("low"),
        close=price("close"),
        volume=amount("volume"),
        quote_volume=amount("quote_volume"),
        trades=int(part * float(candles.trades[row])),
        taker_buy_volume=amount("taker_buy_volume"),
        taker_buy_quote_volume=amount("taker_buy_quote_volume"),
        first_trade_id=first_trade_id,
    )
