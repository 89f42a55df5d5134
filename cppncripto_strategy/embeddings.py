"""Embeddings as an asset: one row per symbol and day in Parquet, and the days that look alike.

The file holds what was known at each midnight and nothing of what followed; outcomes are read from
candles when they are asked for. Distances are meaningful only between embeddings of one encoder
(`encoder_hash`), and only between days that share no candle: a neighbour's data must end before the
data of the day in question begin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.torch import save as save_tensors

from cppncripto_strategy.atomic import write_bytes
from cppncripto_strategy.errors import BundleError, StoreError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, ms_to_utc
from cppncripto_strategy.foreign import reading
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionTable, build_sessions
from cppncripto_strategy.models.judging.quality import nearest_past
from cppncripto_strategy.models.scoring.batch import embed_sessions

SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("session_ms", pa.int64(), nullable=False),
        pa.field("valid_from_ms", pa.int64(), nullable=False),
        pa.field("data_start_ms", pa.int64(), nullable=False),
        pa.field("data_end_ms", pa.int64(), nullable=False),
        pa.field("model_hash", pa.string(), nullable=False),
        pa.field("encoder_hash", pa.string(), nullable=False),
        pa.field("in_sample", pa.bool_(), nullable=False),
        pa.field("vector", pa.list_(pa.float32()), nullable=False),
    ]
)
"""Columns of the file; all times int64 UTC milliseconds.

session_ms is the day's 00:00. The embedding active that day is valid from valid_from_ms (the
same, unless the day's own rollover failed and an older embedding stayed active) and saw the
candles that opened at or after data_start_ms and closed by data_end_ms. model_hash names the
bundle, encoder_hash its MacroNet. in_sample marks days before the bundle's trained_until.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one UTC day did, of the candles that open in it.

    Parameters
    ----------
    simple_return : last close over the close before the day, less 1.
    realised_volatility : root of the day's summed squared log returns.

    Both are NaN where fewer than half of the candles exist, the return also where its first or last
    close is missing.
    """

    simple_return: float
    realised_volatility: float


@dataclass(frozen=True, slots=True)
class SimilarDay:
    """A past day, how far its embedding is (Euclidean), and its symbol."""

    symbol: str
    session_ms: int
    distance: float


def encoder_hash(bundle: Bundle) -> str:
    """First 16 hex digits of a SHA-256 over MacroNet and how its inputs are made.

    Bundles that differ in MicroNet alone share it: their embeddings can be compared.

    Raises
    ------
    BundleError
        When the bundle has no MacroNet.
    """
    if bundle.macro is None:
        raise BundleError("this bundle trades without macro: it has no embedding")
    session = json.dumps(bundle.info.session.to_json(), sort_keys=True)
    weights = {name: value.contiguous() for name, value in bundle.macro.state_dict().items()}
    return hashlib.sha256(session.encode() + save_tensors(weights)).hexdigest()[:16]


def embed_table(sessions: SessionTable, timeline: BundleTimeline) -> pa.Table:
    """Embeddings of every session of a symbol that the timeline may score, in `SCHEMA`.

    Sessions no bundle may score (its own past, unless the timeline is in-sample) are left out, and
    so are those without a usable embedding.

    Raises
    ------
    BundleError
        When a bundle of the timeline has no MacroNet.
    """
    states = embed_sessions(sessions, timeline)
    encoders = [encoder_hash(bundle) for bundle in timeline.bundles]
    models = [bundle.model_hash for bundle in timeline.bundles]
    until = np.array([bundle.info.trained_until_ms for bundle in timeline.bundles])
    kept = np.flatnonzero(states.source >= 0)
    number, valid_from = states.bundle[kept], sessions.start_ms[states.source[kept]]
    window_ms = sessions.settings.long_window * sessions.settings.interval_ms
    columns = [
        pa.array([sessions.symbol] * len(kept), pa.string()),
        pa.array(sessions.start_ms[kept]),
        pa.array(valid_from),
        pa.array(valid_from - window_ms),
        pa.array(valid_from),
        pa.array([models[i] for i in number], pa.string()),
        pa.array([encoders[i] for i in number], pa.string()),
        pa.array(valid_from < until[number]),
        pa.array(list(states.embedding[kept]), pa.list_(pa.float32())),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def embed_candles(
    symbol: str, candles: Candles, timeline: BundleTimeline, market: Candles | None = None
) -> pa.Table:
    """As `embed_table`, from candles; empty when they are too few for one macro window.

    Parameters
    ----------
    market : candles of the symbol `timeline.session.market`, where the bundles read one.

    Raises
    ------
    CandleError
        When the bundles read a market symbol, and its candles are not given.
    BundleError
        As `embed_table` does.
    """
    if len(candles) == 0:
        return SCHEMA.empty_table()
    grid = CandleGrid.from_candles(candles, timeline.session.interval_ms).with_market(market)
    return embed_table(build_sessions(symbol, grid, timeline.session), timeline)


def write_embeddings(table: pa.Table, path: Path) -> None:
    """Write embeddings as zstd Parquet, atomically, ordered by symbol and day."""
    ordered = table.sort_by([("symbol", "ascending"), ("session_ms", "ascending")])
    buffer = BytesIO()
    pq.write_table(ordered, buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def read_embeddings(path: Path) -> pa.Table:
    """The embeddings in a file.

    Raises
    ------
    StoreError
        When there is no such file, or it is not one that `write_embeddings` wrote.
    """
    with reading(path, "file of embeddings", StoreError, "`cppn-bt embed BUNDLE` writes them"):
        table = pq.read_table(path)
        missing = [name for name in SCHEMA.names if name not in table.column_names]
        if missing:
            raise StoreError(f"{path} is no embeddings file: it lacks the columns {missing}")
        table = table.select(SCHEMA.names).cast(SCHEMA)
        table.validate(full=True)
    return table


def similar_days(
    table: pa.Table, symbol: str, session_ms: int, count: int, every_symbol: bool = False
) -> list[SimilarDay]:
    """The past days whose embeddings are nearest to this one's, nearest first.

    Compared are days of the same encoder whose own rollover succeeded and whose data end before the
    data of the day in question begin, of this symbol or of every symbol.

    Raises
    ------
    StoreError
        When the table has no embedding of this symbol and day, or more than one encoder's.
    """
    today = table.filter((pc.field("symbol") == symbol) & (pc.field("session_ms") == session_ms))
    if len(today) != 1:
        raise StoreError(_which_days(table, symbol, session_ms, len(today)))
    row = today.to_pylist()[0]
    wanted = (pc.field("encoder_hash") == row["encoder_hash"]) & (
        pc.field("valid_from_ms") == pc.field("session_ms")
    )
    if not every_symbol:
        wanted &= pc.field("symbol") == symbol
    bank = table.filter(wanted)
    days = bank["session_ms"].to_numpy()
    near, distance = nearest_past(
        vectors_of(bank),
        days,
        np.asarray(row["vector"], dtype=np.float64),
        row["data_end_ms"],
        row["data_end_ms"] - row["data_start_ms"],
        count,
    )
    names = bank["symbol"].to_pylist()
    return [
        SimilarDay(names[index], int(days[index]), float(far))
        for index, far in zip(near, distance, strict=True)
    ]


def vectors_of(table: pa.Table) -> NDArray[np.float64]:
    """The embeddings of a table, (D, E)."""
    if len(table) == 0:
        return np.empty((0, 0))
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float64).reshape(len(table), -1)


def outcomes(candles: Candles, interval_ms: int, days_ms: Sequence[int]) -> list[Outcome]:
    """What each of these UTC days did; NaN where the candles do not tell."""
    return [_outcome(candles, interval_ms, day_ms) for day_ms in days_ms]


def interval_text(interval_ms: int) -> str:
    """The interval's name in its largest unit: 300,000 ms is "5m"."""
    for unit, size_ms in (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS)):
        if interval_ms % size_ms == 0:
            return f"{interval_ms // size_ms}{unit}"
    return f"{interval_ms // SECOND_MS}s"


def _outcome(candles: Candles, interval_ms: int, day_ms: int) -> Outcome:
    per_day = DAY_MS // interval_ms
    part = candles.between(day_ms - interval_ms, day_ms + DAY_MS)
    if len(part) == 0:
        return Outcome(float("nan"), float("nan"))
    grid = CandleGrid.from_candles(part, interval_ms, day_ms - interval_ms, day_ms + DAY_MS)
    returns = np.diff(np.log(grid.close))  # (day,), NaN beside a missing candle
    known = np.count_nonzero(~np.isnan(returns))
    if known * 2 < per_day:
        return Outcome(float("nan"), float("nan"))
    volatility = float(np.sqrt(np.nansum(returns**2)))
    return Outcome(float(grid.close[-1] / grid.close[0] - 1), volatility)


def _which_days(table: pa.Table, symbol: str, session_ms: int, rows: int) -> str:
    """Why there is not exactly one row for a symbol and day, and what to do."""
    day = ms_to_utc(session_ms)[:10]
    if rows > 1:
        return f"{symbol} {day} has {rows} embeddings in this file: embed with one bundle"
    mine = table.filter(pc.field("symbol") == symbol)
    if len(mine) == 0:
        names = sorted(set(table["symbol"].to_pylist()))
        return f"no embedding of {symbol}: the file holds {', '.join(names) or 'no symbol'}"
    first, last = pc.min_max(mine["session_ms"]).as_py().values()
    return (
        f"no embedding of {symbol} for {day}: the file holds {len(mine)} days from"
        f" {ms_to_utc(first)[:10]} to {ms_to_utc(last)[:10]}"
    )
