"""Fetching history into the store: monthly archives, then daily ones, then REST, month by month.

Every symbol is a job of its own (`series_fetch`); they share the exchange's weight and the number
of months under way. The store ends with the same bytes whatever the faults were, because an archive
and a REST page of the same candles are the same numbers. A fetch that was killed resumes where its
ledger ends.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.feeds.binance.archive_client import ArchiveClient
from cppncripto_strategy.feeds.binance.endpoints import BINANCE_INTERVALS
from cppncripto_strategy.feeds.binance.rest import RestClient, RestGate
from cppncripto_strategy.feeds.clock import DAY_MS, Span, interval_to_ms
from cppncripto_strategy.feeds.history.fetch_job import FetchSettings, Progress, SeriesReport
from cppncripto_strategy.feeds.history.ledger import job_lock
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.history.series_fetch import SeriesFetch
from cppncripto_strategy.feeds.history.store import CandleStore, check_symbol

# Candles of the months under way together, each of 80 bytes and a few times that while it is
# checked and written. A month of seconds has 2.7 million and goes alone.
CANDLES_AT_ONCE = 1_000_000
MONTH_MS = 31 * DAY_MS


def fetch(
    store: CandleStore,
    symbols: Sequence[str],
    interval: str,
    start_ms: int,
    end_ms: int | None = None,
    settings: FetchSettings | None = None,
    progress: Progress | None = None,
    *,
    gate: RestGate | None = None,
    rng: random.Random | None = None,
) -> list[SeriesReport]:
    """Bring candles with start_ms <= open time < end_ms into the store (see the module).

    Parameters
    ----------
    end_ms : None stops at the last closed candle, as the exchange's clock has it.
    progress : called with (symbol, slots done, slots to do) as months are finished.
    gate : REST gate; default the process's own.
    rng : jitter of the retries; results do not depend on it.

    Raises
    ------
    SourceError
        When the interval is not the exchange's, or the exchange cannot be asked the time.
    StoreError
        When another job holds the store.
    """
    return asyncio.run(
        fetch_async(
            store, symbols, interval, start_ms, end_ms, settings, progress, gate=gate, rng=rng
        )
    )


async def fetch_async(
    store: CandleStore,
    symbols: Sequence[str],
    interval: str,
    start_ms: int,
    end_ms: int | None = None,
    settings: FetchSettings | None = None,
    progress: Progress | None = None,
    *,
    gate: RestGate | None = None,
    rng: random.Random | None = None,
) -> list[SeriesReport]:
    """`fetch`, for callers with an event loop of their own."""
    check_interval(interval)
    wanted = list(dict.fromkeys(check_symbol(symbol) for symbol in symbols))
    chosen, dice = settings or FetchSettings(), rng or random.Random()
    with job_lock(store):
        rest = RestClient(
            chosen.sources, chosen.retry, gate=gate, rng=dice, settle_ms=chosen.settle_ms
        )
        archives = ArchiveClient(
            *(chosen.sources, Quarantine(store.root).keep_file, chosen.retry),
            rng=dice,
            folder=store.root,
        )
        async with rest, archives:
            closed_ms = await rest.closed_until_ms(interval)
            span = Span(start_ms, max(start_ms, min(end_ms or closed_ms, closed_ms)))
            slots = asyncio.Semaphore(months_at_once(interval, chosen.concurrency))
            jobs = [
                SeriesFetch(store, symbol, interval, chosen, rest, archives, slots, progress)
                for symbol in wanted
            ]
            return list(await asyncio.gather(*(job.run(span) for job in jobs)))


def months_at_once(interval: str, most: int) -> int:
    """How many months may be under way: as many as together hold `CANDLES_AT_ONCE`, at least 1."""
    return max(1, min(most, CANDLES_AT_ONCE * interval_to_ms(interval) // MONTH_MS))


def check_interval(interval: str) -> None:
    """Refuse intervals the exchange does not have.

    Raises
    ------
    SourceError
        Naming those it has.
    """
    if interval not in BINANCE_INTERVALS:
        raise SourceError(
            f"the exchange has no candles of {interval!r}; it has {', '.join(BINANCE_INTERVALS)}."
            " `cppn-bt data resample` makes longer ones from shorter ones."
        )
