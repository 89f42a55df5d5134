"""Candles on disk: store, ledger, quarantine, fetching, verifying, resampling, foreign files."""
