"""Longer candles from shorter ones: complete buckets only, nothing filled in.

A bucket is made only where every one of its short candles exists. Volumes are added as the decimal
numbers they were on the wire (eight places), so that 1m candles give the exchange's own 5m candles
to the last bit, not merely about the same.
"""

from __future__ import annotations

import numpy as np

from cppncripto_strategy.arrays import BoolArray, FloatArray, IntArray
from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import Span, fixed_anchor_ms, interval_to_ms
from cppncripto_strategy.feeds.history.ledger import (
    Entry,
    Ledger,
    job_lock,
    join,
    month_matches,
    write_recorded,
)
from cppncripto_strategy.feeds.history.store import CandleStore

# The exchange's numbers have eight decimals; beyond 2**62 their sum would leave int64.
_SCALE = 10**8
_LARGEST = 2.0**62 / _SCALE


def resample(candles: Candles, interval: str, target: str, anchor_ms: int | None = None) -> Candles:
    """Candles of `target` length from candles of `interval`.

    Parameters
    ----------
    candles : sorted, aligned candles of `interval`; gaps are allowed and make no bucket.
    target : a whole multiple of `interval`, such as 5m for 1m.
    anchor_ms : an open time of the target's candles; needed for several days (3d), whose grid
        belongs to the symbol.

    Returns
    -------
    Candles : one per complete bucket. A nullable column is NaN where any of its parts is.

    Raises
    ------
    CandleError
        When `target` is no larger whole multiple of `interval`, or its grid is not known.
    """
    short_ms, long_ms = interval_to_ms(interval), interval_to_ms(target)
    if long_ms % short_ms or long_ms <= short_ms:
        raise CandleError(
            f"{interval} candles cannot be joined to {target}: the target must be a larger whole"
            " multiple"
        )
    count = long_ms // short_ms
    fixed = fixed_anchor_ms(long_ms)
    anchor = anchor_ms if fixed is None else fixed
    if anchor is None:
        raise CandleError(
            f"on which days {target} candles open belongs to the symbol, and none is stored: fetch"
            f" {target} candles first, or say a day on which one opens with `data resample"
            " --opens-on 2024-01-02`"
        )
    anchor %= long_ms
    bucket = (candles.open_time - anchor) // long_ms
    _, first, size = np.unique(bucket, return_index=True, return_counts=True)
    rows = first[size == count][:, None] + np.arange(count)  # (buckets, count)
    return Candles.from_columns(
        open_time=anchor + bucket[rows[:, 0]] * long_ms,
        open=candles.open[rows[:, 0]],
        high=candles.high[rows].max(axis=1),
        low=candles.low[rows].min(axis=1),
        close=candles.close[rows[:, -1]],
        volume=_sum(candles.volume[rows]),
        quote_volume=_sum(candles.quote_volume[rows]),
        trades=candles.trades[rows].sum(axis=1),
        taker_buy_volume=_sum(candles.taker_buy_volume[rows]),
        taker_buy_quote_volume=_sum(candles.taker_buy_quote_volume[rows]),
    )


def resample_stored(
    store: CandleStore, symbol: str, interval: str, target: str, opens_on_ms: int | None = None
) -> tuple[int, tuple[str, ...]]:
    """Make a stored series' longer candles and record them in their own ledger.

    A bucket that lacks candles only because the exchange was down counts as exchange-down too. A
    candle is verified where every one it is made of is, else imported.

    Parameters
    ----------
    opens_on_ms : an open time of the target's candles, where neither the interval nor a stored
        candle tells their grid.

    Returns
    -------
    (candles made, months whose file changed).

    Raises
    ------
    CandleError
        When the intervals do not fit, or no bucket is complete.
    StoreError
        When the series is absent or damaged, or another job holds the store.
    """
    with job_lock(store):
        anchor_ms = store.anchor_ms(symbol, target)
        opens_ms = opens_on_ms if anchor_ms is None else anchor_ms
        candles = resample(store.read(symbol, interval), interval, target, opens_ms)
        if len(candles) == 0:
            raise CandleError(f"{symbol} {interval} holds no complete candle of {target}")
        source = f"resample:{interval}"
        known = Ledger.load(store, symbol, interval)
        checked = _covered(candles.open_time, interval_to_ms(target), _verified(known, store))
        unchecked = candles.open_time[~checked]
        months = write_recorded(
            store, symbol, target, candles, source, sparse=True, unchecked=unchecked
        )
        down, lost = known.spans("exchange-down"), known.spans("missing")
        made = Ledger.load(store, symbol, target)
        long_ms = interval_to_ms(target)
        for month, record in made.months.items():
            for hole in [entry for entry in record.entries if entry.status == "missing"]:
                explained = [
                    Entry(start_ms, start_ms + long_ms, "exchange-down", source)
                    for start_ms in range(hole.start_ms, hole.end_ms, long_ms)
                    if _touches(down, start_ms, long_ms) and not _touches(lost, start_ms, long_ms)
                ]
                made.record(month, explained)
        made.save()
    return len(candles), months


def _verified(ledger: Ledger, store: CandleStore) -> list[Span]:
    """The verified spans of months whose file is the one that the ledger describes."""
    verified = [
        Entry(entry.start_ms, entry.end_ms, "verified")
        for month, record in sorted(ledger.months.items())
        if month_matches(ledger, store, month)
        for entry in record.entries
        if entry.status == "verified"
    ]
    return [entry.span for entry in join(verified)]


def _covered(open_time: IntArray, length_ms: int, spans: list[Span]) -> BoolArray:
    """Whether each [open, open + length) lies inside one of the spans (ordered, disjoint)."""
    starts = np.array([span.start_ms for span in spans] or [open_time[-1] + 1])
    ends = np.array([span.end_ms for span in spans] or [open_time[-1] + 1])
    index = np.searchsorted(starts, open_time, side="right") - 1
    inside: BoolArray = (index >= 0) & (ends[index] >= open_time + length_ms)
    return inside


def _touches(spans: list[Span], start_ms: int, long_ms: int) -> bool:
    return any(span.start_ms < start_ms + long_ms and start_ms < span.end_ms for span in spans)


def _sum(parts: FloatArray) -> FloatArray:
    """Sums over axis 1 of (buckets, count), exact where the numbers have eight decimals."""
    plain: FloatArray = parts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        exact = np.isfinite(plain) & (np.abs(parts).sum(axis=1) < _LARGEST)
    chosen = np.where(exact[:, None], parts, 0.0).astype(np.longdouble)
    whole = np.rint(chosen * _SCALE)
    # Numbers with more decimals (not this exchange's) must not be rounded.
    fits = exact & (np.abs(whole / _SCALE - chosen) <= np.spacing(np.abs(parts))).all(axis=1)
    total = whole.astype(np.int64).sum(axis=1)
    # Below 2**53 one division is correctly rounded; a detour over long doubles would round twice.
    decimal = np.where(
        total < 2**53, total / _SCALE, (total.astype(np.longdouble) / _SCALE).astype(np.float64)
    )
    result: FloatArray = np.where(fits, decimal, plain)
    return result
