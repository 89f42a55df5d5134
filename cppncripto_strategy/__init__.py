"""Two networks on two clocks trade Binance spot candles in Backtrader."""

__version__ = "0.1.0"
