"""Days as a map: embeddings on two principal components, coloured by what followed each day.

What followed is read from the first candle store under the folder that has the symbol; without one
it is not known. Distances and nearest days are those of `embeddings.similar_days`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cppncripto_strategy.desk.listing import Entry
from cppncripto_strategy.desk.problems import item, readable
from cppncripto_strategy.desk.schema import Day, Days, EmbeddingFile, Instant, NearDay
from cppncripto_strategy.errors import CppnError, StoreError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, interval_to_ms
from cppncripto_strategy.feeds.history.store import CandleStore

# A map of more days is not readable, and its candles take long to read.
MAX_DAYS = 4_000


def embedding_file(entry: Entry) -> EmbeddingFile:
    """What a file of embeddings holds."""

    def read() -> EmbeddingFile:
        table = _table(entry)
        days = table["session_ms"].to_numpy()
        return EmbeddingFile(
            **item(entry),
            symbols=sorted(set(table["symbol"].to_pylist())),
            encoders=sorted(set(table["encoder_hash"].to_pylist())),
            days=len(days),
            first=Instant.of(int(days.min())) if len(days) else None,
            last=Instant.of(int(days.max())) if len(days) else None,
        )

    return readable(entry, EmbeddingFile, read)


def days_map(entry: Entry, stores: Sequence[Entry], symbol: str | None = None) -> Days:
    """The last days of the encoder with most of them, of one symbol or of all."""

    def read() -> Days:
        table, encoder = _of_one_encoder(_table(entry), symbol)
        points, explained = principal(_vectors(table))
        rows = table.to_pylist()
        followed = what_followed(stores, [(row["symbol"], row["session_ms"]) for row in rows])
        days = [
            _day(row, point, outcome)
            for row, point, outcome in zip(rows, points, followed, strict=True)
        ]
        return Days(**item(entry), encoder=encoder, explained=explained, days=days)

    return readable(entry, Days, read)


def near_days(
    entry: Entry, stores: Sequence[Entry], symbol: str, day_ms: int, count: int
) -> list[NearDay]:
    """The past days nearest to a day, among every symbol's, and what followed them.

    Raises
    ------
    CppnError
        When the file cannot be read, or holds no such day.
    """
    from cppncripto_strategy.embeddings import similar_days

    near = similar_days(_table(entry), symbol, day_ms, count, every_symbol=True)
    followed = what_followed(stores, [(day.symbol, day.session_ms) for day in near])
    return [
        NearDay(
            symbol=day.symbol,
            day=Instant.of(day.session_ms),
            distance=day.distance,
            day_return=outcome[0],
            realised_volatility=outcome[1],
        )
        for day, outcome in zip(near, followed, strict=True)
    ]


def principal(vectors: Any) -> tuple[list[tuple[float, float]], list[float]]:
    """Centred vectors (D, E) on their first two principal components, and the variance shares.

    The sign of a component is chosen so that its largest weight is positive. Fewer than three
    vectors, or alike ones, have no such plane: they are drawn at the origin.
    """
    centred = np.asarray(vectors, dtype=np.float64)
    if len(centred) < 3 or not np.isfinite(centred).all():
        return [(0.0, 0.0)] * len(centred), []
    centred = centred - centred.mean(axis=0)
    _, widths, axes = np.linalg.svd(centred, full_matrices=False)
    total = float((widths**2).sum())
    if not total:
        return [(0.0, 0.0)] * len(centred), []
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    points = centred @ axes.T  # (D, 2)
    return [(float(x), float(y)) for x, y in points], (widths[:2] ** 2 / total).tolist()


def what_followed(
    stores: Sequence[Entry], days: Sequence[tuple[str, int]]
) -> list[tuple[float | None, float | None]]:
    """(return, realised volatility) of each symbol's day; None where no store knows."""
    spans: dict[str, list[int]] = {}
    for symbol, day_ms in days:
        spans.setdefault(symbol, []).append(day_ms)
    series = {symbol: _candles(stores, symbol, wanted) for symbol, wanted in spans.items()}
    return [_outcome(series[symbol], day_ms) for symbol, day_ms in days]


def _outcome(known: tuple[Candles, int] | None, day_ms: int) -> tuple[float | None, float | None]:
    from cppncripto_strategy.embeddings import outcomes

    if known is None:
        return None, None
    found = outcomes(known[0], known[1], [day_ms])[0]
    return found.simple_return, found.realised_volatility


def _candles(
    stores: Sequence[Entry], symbol: str, days_ms: Sequence[int]
) -> tuple[Candles, int] | None:
    """Candles around these days of the first store that has the symbol, and their length."""
    for entry in stores:
        store = CandleStore(entry.path)
        try:
            lengths = [interval for name, interval in store.series() if name == symbol]
            for interval in lengths:
                step_ms = interval_to_ms(interval)
                if step_ms > DAY_MS // 2:
                    continue
                start_ms, end_ms = min(days_ms) - step_ms, max(days_ms) + DAY_MS
                found = store.read(symbol, interval, start_ms, end_ms)
                if len(found):
                    return found, step_ms
        except CppnError:
            continue  # the store's own row says what is wrong with it
    return None


def _table(entry: Entry) -> Any:
    from cppncripto_strategy.embeddings import read_embeddings

    return read_embeddings(entry.path)


def _vectors(table: Any) -> Any:
    from cppncripto_strategy.embeddings import vectors_of

    return vectors_of(table)


def _of_one_encoder(table: Any, symbol: str | None) -> tuple[Any, str]:
    """The last days of the encoder that has most, of one symbol or of all; and its hash."""
    import pyarrow.compute as pc

    if symbol is not None:
        table = table.filter(pc.field("symbol") == symbol)
    if not len(table):
        raise StoreError("it holds no day" + ("" if symbol is None else f" of {symbol}"))
    names = table["encoder_hash"].to_pylist()
    encoder = max(sorted(set(names)), key=names.count)
    table = table.filter(pc.field("encoder_hash") == encoder).sort_by("session_ms")
    return table.slice(max(0, len(table) - MAX_DAYS)), encoder


def _day(
    row: dict[str, Any], point: tuple[float, float], outcome: tuple[float | None, float | None]
) -> Day:
    return Day(
        symbol=row["symbol"],
        day=Instant.of(row["session_ms"]),
        x=point[0],
        y=point[1],
        in_sample=row["in_sample"],
        day_return=outcome[0],
        realised_volatility=outcome[1],
    )
