"""Candles to scores and thresholds, in batch and one candle at a time."""
