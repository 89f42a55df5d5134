"""Examples under the help of commands that have none of their own; a test reads every line."""

from __future__ import annotations

_LINES = {
    "data": """
  cppn-bt data import btc.csv --symbol BTCUSDT --interval 5m
  cppn-bt data list                                what is stored
  cppn-bt data verify                              is it whole, and as it was written
""",
    "data import": """
  cppn-bt data import btc.csv --symbol BTCUSDT --interval 5m
  cppn-bt data import old.csv.gz --symbol ETHUSDT --interval 1h --sort --set-aside
  cppn-bt data import BTCUSDT-1m-2026-03.zip --symbol BTCUSDT --interval 1m
""",
    "data list": """
  cppn-bt data list
  cppn-bt data list --store ~/candles --json
""",
    "data verify": """
  cppn-bt data verify                              everything in candles/
  cppn-bt data verify BTCUSDT --interval 5m --restated
""",
    "data repair": """
  cppn-bt data repair                              what verify found wrong, fetched again
  cppn-bt data repair BTCUSDT --interval 5m
""",
    "data coverage": """
  cppn-bt data coverage                            in the terminal
  cppn-bt data coverage BTCUSDT --html coverage.html
""",
    "data resample": """
  cppn-bt data resample BTCUSDT --interval 1m --to 5m
""",
    "days": """
  cppn-bt embed runs/demo/20261127T103000Z         first, the days
  cppn-bt days BTCUSDT 2024-03-14
  cppn-bt days BTCUSDT 2024-03-14 --count 30 --every-symbol --json
""",
    "embed": """
  cppn-bt embed runs/real/20261127T103000Z --candles ~/candles
  cppn-bt embed runs/real/20261127T103000Z --in-sample --card
""",
    "exchange": """
  cppn-bt exchange --speed 300                     a planted market, a candle a second
  cppn-bt exchange --candles ~/candles --symbol BTCUSDT --history-days 90
  cppn-bt exchange --fault slow=0.02 --seed 3 --for 60
""",
    "fetch": """
  cppn-bt fetch BTCUSDT ETHUSDT --interval 5m --from 2023-01-01
  cppn-bt fetch BTCUSDT --store ~/candles --json   again at any time: only what is new
""",
    "forecast": """
  cppn-bt forecast BTCUSDT
  cppn-bt forecast ETHUSDT --date 2024-05-20 --chart forecast.html
  cppn-bt forecast BTCUSDT --bundle runs/real/20261127T103000Z --json
""",
    "parity": """
  cppn-bt parity paper/demo
  cppn-bt parity paper/demo --json
""",
}


def examples(command: str) -> str:
    """The epilog of a command, such as "data import": its examples, line breaks kept."""
    return f"\n\b\nExamples:{_LINES[command]}"
