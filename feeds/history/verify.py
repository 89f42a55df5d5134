"""Checking and repairing a store: what its files hold against what its ledger states.

`verify_series` reads files and changes nothing. `find_restated` compares what is stored with what
the exchange says today. `repair` moves damage into quarantine and fetches what is missing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cppncripto_strategy.arrays import BoolArray
from cppncripto_strategy.errors import StoreError
from cppncripto_strategy.feeds.binance.rest import RestClient, RestGate
from cppncripto_strategy.feeds.candles import COLUMNS, Candles, concat, first_violation
from cppncripto_strategy.feeds.clock import Span, interval_to_ms, ms_to_utc
from cppncripto_strategy.feeds.history.fetch import fetch
from cppncripto_strategy.feeds.history.fetch_job import FetchSettings, Progress, SeriesReport
from cppncripto_strategy.feeds.history.ledger import (
    Entry,
    Ledger,
    MonthRecord,
    entries_of,
    job_lock,
    join,
    months_between,
    named,
    record_month,
    runs,
    settle,
)
from cppncripto_strategy.feeds.history.quarantine import Quarantine
from cppncripto_strategy.feeds.history.store import CandleStore, MonthState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SeriesCheck:
    """What a series holds, proves and lacks.

    Parameters
    ----------
    span : the span that should be covered: requested once, or stored.
    count, expected : candles stored, and slots of the span.
    damaged : (month, problem) of files that cannot be read or break a rule.
    unrecorded : months whose file is not the one the ledger describes.
    missing, exchange_down : ledger entries, recomputed from the files.
    imported : stored candles that nobody checked against the exchange, by source.
    flat : stretches of candles without a trade whose four prices are equal (allowed, but rare).
    refused : candles that the sources sent and that are quarantined, by rule.
    restated : open times whose candle the exchange now states differently; None if not asked.
    ledger_problem : why the ledger cannot be read, '' when it can (or there is none).
    """

    symbol: str
    interval: str
    span: Span
    count: int
    expected: int
    damaged: tuple[tuple[str, str], ...] = ()
    unrecorded: tuple[str, ...] = ()
    missing: tuple[Entry, ...] = ()
    exchange_down: tuple[Entry, ...] = ()
    imported: tuple[Entry, ...] = ()
    flat: tuple[Span, ...] = ()
    refused: tuple[tuple[str, int], ...] = ()
    restated: tuple[int, ...] | None = None
    ledger_problem: str = ""

    @property
    def ok(self) -> bool:
        """True when every slot has its candle or is proved absent, by undamaged, recorded files."""
        wrong = (self.damaged, self.unrecorded, self.missing, self.restated, self.ledger_problem)
        return not any(wrong)


@dataclass(frozen=True, slots=True)
class MonthCoverage:
    """One month of a series: slots wanted, candles stored, slots proved absent."""

    month: str
    expected: int
    held: int
    exchange_down: int

    @property
    def fraction(self) -> float:
        """Stored plus proved absent, over wanted."""
        return (self.held + self.exchange_down) / self.expected if self.expected else 1.0


def verify_series(store: CandleStore, symbol: str, interval: str) -> SeriesCheck:
    """Recompute a series' coverage from its files and compare it with its ledger.

    Raises
    ------
    StoreError
        When there is neither a file nor a ledger of the series.
    """
    ledger, problem = _ledger(store, symbol, interval)
    states, damaged = _states(store, symbol, interval)
    span = _whole_span(store, ledger, states, interval)
    entries = _recomputed(ledger, states, span, interval)
    candles = concat([state.candles for state in states])
    return SeriesCheck(
        symbol,
        interval,
        span,
        count=len(candles.between(span.start_ms, span.end_ms)),
        expected=(span.end_ms - span.start_ms) // interval_to_ms(interval),
        damaged=tuple(damaged),
        unrecorded=tuple(_unrecorded(ledger, states)),
        missing=named(entry for entry in entries if entry.status == "missing"),
        exchange_down=named(entry for entry in entries if entry.status == "exchange-down"),
        imported=_by_source(entry for entry in entries if entry.status == "imported"),
        flat=tuple(runs(candles.open_time[flat_candles(candles)], interval_to_ms(interval))),
        refused=tuple(_refused(store, symbol, interval)),
        ledger_problem=problem,
    )


def _by_source(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Neighbours of one source as one, whatever their digests."""
    return tuple(join([replace(entry, digest="") for entry in entries]))


def flat_candles(candles: Candles) -> BoolArray:
    """True (N,) for candles without volume whose four prices are one."""
    same = (candles.open == candles.high) & (candles.open == candles.low)
    flat: BoolArray = same & (candles.open == candles.close) & (candles.volume == 0)
    return flat


def month_coverage(store: CandleStore, symbol: str, interval: str) -> list[MonthCoverage]:
    """Each month between the first and the last slot wanted, in order.

    Raises
    ------
    StoreError
        When there is neither a file nor a ledger of the series, or a ledger is damaged.
    """
    check = verify_series(store, symbol, interval)
    interval_ms, months = interval_to_ms(interval), []
    ledger, _ = _ledger(store, symbol, interval)
    for month in months_between(check.span):
        within = ledger.slots_of(month)
        start_ms = max(within.start_ms, check.span.start_ms)
        end_ms = min(within.end_ms, check.span.end_ms)
        if end_ms <= start_ms:
            continue
        part = Span(start_ms, end_ms)
        down, lost = (_slots(of, part, interval_ms) for of in (check.exchange_down, check.missing))
        expected = (end_ms - start_ms) // interval_ms
        months.append(MonthCoverage(month, expected, expected - down - lost, down))
    return months


def find_restated(
    store: CandleStore,
    symbol: str,
    interval: str,
    settings: FetchSettings | None = None,
    *,
    gate: RestGate | None = None,
    rng: random.Random | None = None,
) -> Candles:
    """The exchange's present candles where they differ from the stored ones.

    Columns the store does not have (NaN) are not compared.

    Raises
    ------
    SourceError
        When the exchange does not answer.
    StoreError
        When the series is absent or damaged.
    """
    return asyncio.run(
        _find_restated(store, symbol, interval, settings or FetchSettings(), gate, rng)
    )


def repair(
    store: CandleStore,
    series: Sequence[tuple[str, str]],
    settings: FetchSettings | None = None,
    progress: Progress | None = None,
    *,
    restated: bool = False,
    gate: RestGate | None = None,
    rng: random.Random | None = None,
) -> list[SeriesReport]:
    """Quarantine damage in each (symbol, interval), then fetch what is missing.

    Parameters
    ----------
    restated : also replace candles that the exchange now states differently.

    Raises
    ------
    SourceError, StoreError
        As `feeds.history.fetch.fetch`.
    """
    reports = []
    for symbol, interval in series:
        with job_lock(store):
            span = _clear_damage(store, symbol, interval)
        [report] = fetch(
            *(store, [symbol], interval, span.start_ms, span.end_ms, settings, progress),
            gate=gate,
            rng=rng,
        )
        if restated and report.held:
            fresh = find_restated(store, symbol, interval, settings, gate=gate, rng=rng)
            report = replace(report, from_rest=report.from_rest + len(fresh))
            with job_lock(store):
                _restate(store, symbol, interval, fresh)
        reports.append(report)
    return reports


def describe(check: SeriesCheck) -> list[str]:
    """The problems of a check, in words; empty when it is ok."""
    lines = [f"{month}: {problem}" for month, problem in check.damaged]
    lines += [
        f"{month}: its file is not the one the ledger describes" for month in check.unrecorded
    ]
    lines += [f"missing {entry.span}: {entry.reason}" for entry in check.missing]
    lines += [f"restated by the exchange: {ms_to_utc(stamp)}" for stamp in check.restated or ()]
    return lines + ([check.ledger_problem] if check.ledger_problem else [])


def _ledger(store: CandleStore, symbol: str, interval: str) -> tuple[Ledger, str]:
    try:
        return Ledger.load(store, symbol, interval), ""
    except StoreError as error:
        unread = Ledger(Path(), symbol, interval)
        unread.anchor_ms = store.anchor_ms(symbol, interval)
        return unread, str(error)


def _states(
    store: CandleStore, symbol: str, interval: str
) -> tuple[list[MonthState], list[tuple[str, str]]]:
    """The months that can be read and keep the rules, and those that do not with the problem."""
    good, damaged = [], []
    anchor_ms = store.anchor_ms(symbol, interval)
    for month in store.months(symbol, interval):
        try:
            state = store.month_state(symbol, interval, month)
        except StoreError as error:
            damaged.append((month, str(error)))
            continue
        broken = first_violation(state.candles, interval_to_ms(interval), anchor_ms)
        if broken is None:
            good.append(state)
        else:
            stamp = ms_to_utc(int(state.candles.open_time[broken[0]]))
            damaged.append((month, f"row {broken[0]} ({stamp}): {broken[1]}"))
    return good, damaged


def _whole_span(
    store: CandleStore, ledger: Ledger, states: list[MonthState], interval: str
) -> Span:
    edges = [ledger.span] if ledger.span else []
    if states:
        first, last = states[0].candles.open_time[0], states[-1].candles.open_time[-1]
        edges.append(Span(int(first), int(last) + interval_to_ms(interval)))
    # Without a ledger a damaged month counts as wanted in full.
    readable = {state.month for state in states}
    unreadable = set(store.months(ledger.symbol, interval)) - readable
    if not ledger.span:
        edges += [ledger.slots_of(month) for month in sorted(unreadable)]
    if not edges:
        raise StoreError(f"{ledger.symbol} {interval} is not in the store at {store.root}")
    return Span(min(e.start_ms for e in edges), max(e.end_ms for e in edges))


def _recomputed(ledger: Ledger, states: list[MonthState], span: Span, interval: str) -> list[Entry]:
    """The entries as the files support them; the ledger itself is not touched."""
    believed = Ledger(ledger.path, ledger.symbol, interval)
    believed.span, believed.anchor_ms = span, ledger.anchor_ms
    by_month = {state.month: state for state in states}
    entries: list[Entry] = []
    for month in months_between(span):
        state = by_month.get(month, MonthState.of(month, Candles.empty()))
        record = ledger.months.get(month, MonthRecord())
        within = believed.slots_of(month)
        entries += settle(record.entries, state, believed, within)
    return join(entries)


def _unrecorded(ledger: Ledger, states: list[MonthState]) -> list[str]:
    months = []
    for state in states:
        record = ledger.months.get(state.month)
        if record is None or record.file_sha256 != state.file_sha256:
            months.append(state.month)
    return months


def _refused(store: CandleStore, symbol: str, interval: str) -> list[tuple[str, int]]:
    rules: dict[str, int] = {}
    for record in Quarantine(store.root).candles(symbol, interval):
        rules[str(record["rule"])] = rules.get(str(record["rule"]), 0) + 1
    return sorted(rules.items())


def _slots(entries: Sequence[Entry], part: Span, interval_ms: int) -> int:
    shared = (
        min(e.end_ms, part.end_ms) - max(e.start_ms, part.start_ms)
        for e in entries
        if e.start_ms < part.end_ms and part.start_ms < e.end_ms
    )
    return sum(shared) // interval_ms


async def _find_restated(
    store: CandleStore,
    symbol: str,
    interval: str,
    settings: FetchSettings,
    gate: RestGate | None,
    rng: random.Random | None,
) -> Candles:
    client = RestClient(
        settings.sources, settings.retry, gate=gate, rng=rng, settle_ms=settings.settle_ms
    )
    changed = []
    async with client:
        for month in store.months(symbol, interval):
            stored = store.month_state(symbol, interval, month).candles
            last_ms = int(stored.open_time[-1]) + interval_to_ms(interval)
            span = Span(int(stored.open_time[0]), last_ms)
            read = await client.read(symbol, interval, span, store.anchor_ms(symbol, interval))
            changed.append(_differing(stored, read.candles))
    return concat(changed)


def _differing(stored: Candles, fresh: Candles) -> Candles:
    """The candles of `fresh` that contradict `stored` at the same open time."""
    _, stored_rows, fresh_rows = np.intersect1d(
        stored.open_time, fresh.open_time, return_indices=True
    )
    differs = np.zeros(len(stored_rows), dtype=np.bool_)
    for name in COLUMNS[1:]:
        ours, theirs = getattr(stored, name)[stored_rows], getattr(fresh, name)[fresh_rows]
        differs |= (ours != theirs) & ~np.isnan(ours)
    return fresh[fresh_rows[differs]]


def _clear_damage(store: CandleStore, symbol: str, interval: str) -> Span:
    """Move a damaged ledger and damaged months away; the span that should be covered."""
    ledger, problem = _ledger(store, symbol, interval)
    states, damaged = _states(store, symbol, interval)
    span = _whole_span(store, ledger, states, interval)
    quarantine = Quarantine(store.root)
    if problem:
        quarantine.take_file(Ledger.path_of(store, symbol, interval), problem)
    for month, why in damaged:
        quarantine.take_file(store.month_path(symbol, interval, month), why)
    return span


def _restate(store: CandleStore, symbol: str, interval: str, fresh: Candles) -> None:
    ledger = Ledger.load(store, symbol, interval)
    for state in store.write_months(symbol, interval, [fresh], sparse=True):
        within = ledger.slots_of(state.month)
        part = fresh.between(within.start_ms, within.end_ms)
        record_month(ledger, state, entries_of(part, interval, "rest"))
    ledger.save()
