"""Candles of your own: a CSV into the candle store, and out again with DuckDB and pandas.

`cppn-bt data import mine.csv --symbol MYCOIN --interval 15m` does the first half from a shell. The
store is plain Parquet in Hive folders, so any tool reads it. (DuckDB: `pip install duckdb`.)
"""

from pathlib import Path

import duckdb
import pandas as pd

from cppncripto_strategy import CandleStore
from cppncripto_strategy.feeds.candles import gaps
from cppncripto_strategy.feeds.clock import DAY_MS, interval_to_ms, ms_to_utc
from cppncripto_strategy.feeds.history.foreign import read_file
from cppncripto_strategy.feeds.planted import PlantedSettings, generate

# A CSV as another program might write it: ISO times, other column names, an hour missing.
planted = generate(PlantedSettings(days=40, interval="15m", seed=5)).candles
frame = planted.to_arrow().to_pandas()
frame["date"] = pd.to_datetime(frame["open_time"], unit="ms", utc=True)
frame = frame.rename(columns={"volume": "vol"}).drop(index=range(1000, 1004))
frame[["date", "open", "high", "low", "close", "vol"]].to_csv("mine.csv", index=False)

# In: every candle is checked first; a broken one is an error that names its row and the rule.
candles = read_file("mine.csv", "15m")
store = CandleStore("candles")
months = store.write("MYCOIN", "15m", candles)
print(f"{len(candles):,} candles into {len(months)} monthly files: {', '.join(months)}")
for hole in gaps(candles.open_time, interval_to_ms("15m")):
    print(f"a gap, kept as a gap: {ms_to_utc(hole.start_ms)} to {ms_to_utc(hole.end_ms)}")

# Out with DuckDB: daily candles, straight from the files.
daily = duckdb.sql(
    """
    SELECT date_trunc('day', make_timestamp(open_time * 1000)) AS day,
           first(open ORDER BY open_time) AS open, max(high) AS high, min(low) AS low,
           last(close ORDER BY open_time) AS close, sum(volume) AS volume, count(*) AS candles
    FROM read_parquet('candles/symbol=MYCOIN/interval=15m/*.parquet')
    GROUP BY day ORDER BY day
    """
).df()
print(daily.tail(3).to_string(index=False))
print(f"days with a gap: {', '.join(f'{d:%Y-%m-%d}' for d in daily.day[daily.candles < 96])}")

# Out with pandas: one file is one month; the store's own reader gives validated numpy columns.
(first, *_) = sorted(Path("candles").rglob("*.parquet"))
print(f"{first.name} in pandas: {pd.read_parquet(first, columns=['close']).shape[0]:,} rows")
start_ms = int(candles.open_time[0])
week = store.read("MYCOIN", "15m", start_ms, start_ms + 7 * DAY_MS)
print(f"first week in the store: {len(week)} candles, highest price {week.high.max():.2f}")
