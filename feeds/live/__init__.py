"""Candles as they close: stream, rounds, Backtrader feed."""
