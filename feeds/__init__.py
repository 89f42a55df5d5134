"""Candles in: the schema, the store, Binance adapters, and Backtrader feeds."""
