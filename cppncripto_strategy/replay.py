"""One pass through Cerebro: candles of a span, ready bundles, the strategy and the broker.

Left out: training the bundles, and judging what the pass left (`outcome`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, Span
from cppncripto_strategy.feeds.filters import KnownFilters
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.indicators import MicroScore
from cppncripto_strategy.indicators.score_memory import ScoreMemory
from cppncripto_strategy.memory import give_back, young_garbage_only
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.recipe import Recipe
from cppncripto_strategy.results import SIGNAL_COLUMNS
from cppncripto_strategy.strategy import MacroMicroStrategy
from cppncripto_strategy.symbol_rules import account_filters


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What a pass through Cerebro left: the strategy (with its tables) and its wall time.

    Parameters
    ----------
    filters : the rules that each symbol traded by.
    """

    strategy: MacroMicroStrategy
    seconds: float
    bars: int
    filters: Mapping[str, KnownFilters]

    def tables(
        self, span: Span, signals: Sequence[str] = SIGNAL_COLUMNS, keep: bool = True
    ) -> dict[str, pd.DataFrame]:
        """signals, fills, trades, equity and evidence of the span, bars that close at its ends
        included; of the signals these columns.

        Parameters
        ----------
        keep : False uses the strategy's signals up: of many symbols they are most of the memory,
            and would lie there twice.
        """
        strategy = self.strategy
        inside = strategy.signals["close_time_ms"].between(span.start_ms, span.end_ms)
        take = strategy.signals.__getitem__ if keep else strategy.signals.pop
        columns = {name: take(name) for name in signals}
        if not keep:
            strategy.signals = pd.DataFrame()
        return {
            "signals": _rows(columns, inside),
            "fills": _inside(strategy.fills, "executed_ms", span),
            "trades": _inside(strategy.trades, "entry_ms", span),
            "equity": _inside(strategy.equity, "close_time_ms", span),
            "evidence": _inside(strategy.evidence, "session_ms", span),
        }


def _rows(columns: dict[str, Any], inside: pd.Series[bool]) -> pd.DataFrame:
    """Some rows of columns, each let go of once they were taken."""
    taken = {name: columns.pop(name)[inside].array for name in list(columns)}
    return pd.DataFrame(taken, copy=False)


def _inside(table: pd.DataFrame, column: str, span: Span) -> pd.DataFrame:
    return table[table[column].between(span.start_ms, span.end_ms)].reset_index(drop=True)


@dataclass(frozen=True, slots=True, eq=False)
class Traded:
    """What is kept of a pass whose strategy, feeds and lines are gone.

    Parameters
    ----------
    tables : as `Replay.tables` gives them; of the signals, the columns that were asked for.
    embeddings : one row per symbol and day: symbol, valid_from_ms, data_end_ms, model_hash, drift,
        and one column per number of the vector.
    rollover_s : seconds of each embedding.
    seconds, bars, filters : as in `Replay`.
    """

    tables: dict[str, pd.DataFrame]
    embeddings: pd.DataFrame
    rollover_s: list[float]
    seconds: float
    bars: int
    filters: Mapping[str, KnownFilters]


def traded(
    recipe: Recipe,
    candles: dict[str, Candles],
    timeline: BundleTimeline,
    span: Span,
    plain_loop: bool = False,
    signals: Sequence[str] = SIGNAL_COLUMNS,
) -> Traded:
    """As `replay`, of which only results are kept: several passes cost the memory of one.

    Parameters
    ----------
    signals : columns of the signals table to keep.

    Raises
    ------
    BundleError
        When a bundle was trained on candles of the span.
    """
    passed = replay(recipe, candles, timeline, span, plain_loop=plain_loop, keep_lines=False)
    strategy = passed.strategy
    tables = passed.tables(span, signals, keep=False)
    kept = Traded(
        tables,
        _embeddings(strategy, span),
        [s for state in strategy.states for s in state.score.macro.rollover_s],
        passed.seconds,
        passed.bars,
        passed.filters,
    )
    del passed, strategy
    give_back()  # Backtrader's objects know each other in circles
    return kept


def _embeddings(strategy: MacroMicroStrategy, span: Span) -> pd.DataFrame:
    """One row per symbol and day: when it is valid from, what it saw last, and the vector."""
    rows: list[tuple[Any, ...]] = []
    vectors = []
    for state in strategy.states:
        for valid_from, *known, vector in state.score.macro.embeddings():
            if span.start_ms <= valid_from <= span.end_ms:
                rows.append((state.data._name, valid_from, *known))
                vectors.append(vector)
    columns = ["symbol", "valid_from_ms", "data_end_ms", "model_hash", "drift"]
    table = pd.DataFrame(rows, columns=columns)
    if not rows:
        return table
    numbers = np.stack(vectors).astype(np.float64)  # (N, E)
    names = [f"e{i}" for i in range(numbers.shape[1])]
    return pd.concat([table, pd.DataFrame(numbers, columns=names)], axis=1)


def replay(
    recipe: Recipe,
    candles: dict[str, Candles],
    timeline: BundleTimeline,
    span: Span,
    strategy_class: type[MacroMicroStrategy] = MacroMicroStrategy,
    filters: Mapping[str, KnownFilters] | None = None,
    plain_loop: bool = False,
    keep_lines: bool = True,
    memory: ScoreMemory | None = None,
) -> Replay:
    """Trade [start, end) through Cerebro with ready bundles, which score on `recipe.device`.

    Feeds start one warm-up before the span, so that the first session that can be scored at all is
    the span's first day.

    Parameters
    ----------
    candles : by symbol; those of `recipe.beside` are fed to the networks and not traded.
    filters : each symbol's exchange rules; None takes them from recipe and candles
        (`symbol_rules`).
    plain_loop : take every bar, instead of passing over those at which nothing can happen
        (`fast_loop`); what is left is the same, to the last bit.
    keep_lines : False gives the lines up at the end, for the tables' sake.
    memory : what passes of this timeline share, so that candles are scored once; None for none.

    Raises
    ------
    BundleError
        When a bundle was trained on candles of the span.
    RecipeError
        When the recipe's device is not there.
    """
    timeline.require_out_of_sample(span.start_ms)
    interval_ms, settings = recipe.interval_ms, timeline.session
    feed_from = span.start_ms - settings.warmup * interval_ms
    traded = {symbol: part for symbol, part in candles.items() if symbol not in recipe.beside}
    rules = account_filters(recipe, traded, span.start_ms) if filters is None else filters
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = _broker(recipe, rules)
    bars = _feed(cerebro, {**traded, **candles}, traded, feed_from, span, interval_ms)
    cerebro.addstrategy(
        strategy_class,
        score_factory=lambda data: MicroScore(
            data, bundles=timeline, memory=memory, device=recipe.device
        ),
        untraded=tuple(name for name in recipe.beside if name in candles),
        plain_loop=plain_loop,
        keep_lines=keep_lines,
        **recipe.strategy_params(),
    )
    began = time.perf_counter()
    with young_garbage_only():
        strategy = cerebro.run()[0]
    return Replay(strategy, time.perf_counter() - began, bars, rules)


def _broker(recipe: Recipe, rules: Mapping[str, KnownFilters]) -> SpotBroker:
    return SpotBroker(
        cash=recipe.broker.cash,
        fill_without_trades=recipe.broker.fill_without_trades,
        fee_bps=recipe.broker.fee_bps,
        slippage_bps=recipe.broker.slippage_bps,
        allow_short=recipe.strategy.allow_short,
        filters={symbol: known.filters for symbol, known in rules.items()},
    )


def _feed(
    cerebro: bt.Cerebro,
    candles: Mapping[str, Candles],
    traded: Collection[str],
    from_ms: int,
    span: Span,
    interval_ms: int,
) -> int:
    """Add a feed per symbol, in this order; bars of the traded ones.

    Backtrader's first feed is the strategy's clock: it is one that is traded.
    """
    bars = 0
    for symbol, every in candles.items():
        part = every.between(_feed_start(every, from_ms), span.end_ms)
        if len(part) == 0:
            raise CandleError(f"{symbol} has no candle in {span}")
        bars += len(part) if symbol in traded else 0
        cerebro.adddata(ReplayFeed(candles=part, interval_ms=interval_ms, name=symbol))
    return bars


def _feed_start(candles: Candles, wanted_ms: int) -> int:
    """Open time of the candle at or just before `wanted_ms`.

    A feed that began with the first candle after a gap would warm up too late, and lose the span's
    first day. After a gap of a day or more it does begin there: a candle further back would open a
    session before the span.
    """
    before = int(np.searchsorted(candles.open_time, wanted_ms, side="right")) - 1
    if before < 0:
        return wanted_ms
    open_ms = int(candles.open_time[before])
    return open_ms if wanted_ms - open_ms < DAY_MS else wanted_ms
