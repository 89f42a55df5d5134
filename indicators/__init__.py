"""The networks as Backtrader indicators."""
