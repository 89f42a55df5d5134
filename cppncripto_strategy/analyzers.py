"""Backtrader analyzers: quality of the signals, drift of the embeddings, latency of the networks.

They work in anybody's Cerebro (`cerebro.addanalyzer(SignalQuality, horizon=6)`), compute in
`stop()` from recorded arrays, and cost nothing per bar. Account figures (Sharpe, drawdown, costs)
are left to `metrics`, which the results folder uses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.evaluation.signals import Yardstick, signal_quality
from cppncripto_strategy.evaluation.statistics import DEFAULT_RESAMPLES
from cppncripto_strategy.feeds.clock import DAY_MS, nums_to_ms
from cppncripto_strategy.feeds.replay import bar_interval_ms
from cppncripto_strategy.lines import past_values

Analysis = dict[str, Any]


class AtStop(bt.Analyzer):
    """An analyzer that only looks once, when the run is over."""

    # MacroMicroStrategy skips the per-bar calls of analyzers that say so.
    only_at_stop = True

    def create_analysis(self) -> None:
        """Start empty: there is no analysis before the end."""
        self.rets: Analysis = {}

    def get_analysis(self) -> Analysis:
        """The analysis as plain values; empty before the run has ended."""
        return self.rets

    def stop(self) -> None:
        """Compute the analysis."""
        self.rets = self.analyse()

    def analyse(self) -> Analysis:
        """What a subclass computes."""
        raise NotImplementedError


class SignalQuality(AtStop):
    """Hit ratio, precision and recall of buy and sell signals at a horizon, with intervals.

    Params
    ------
    horizon : candles from the signal's close to the close that judges it.
    round_trip_cost_bps : both fees and both slippages; decides the break-even hit ratio.
    label_threshold_bps : the move a signal should catch; None is the round trip's cost.
    signal : callable(strategy, data) -> line whose sign is the signal, for strategies without a
        `signals` table of their own.
    seed, resamples : of the bootstrap over days.

    Raises
    ------
    RecipeError
        At the end of a run whose strategy has no signals, or whose lines forgot their past.
    """

    params: Any = (
        ("horizon", 6),
        ("round_trip_cost_bps", 22.0),
        ("label_threshold_bps", None),
        ("signal", None),
        ("seed", 0),
        ("resamples", DEFAULT_RESAMPLES),
    )

    def analyse(self) -> Analysis:
        """The fields of `evaluation.signals.SignalQuality`."""
        if self.p.horizon < 1:
            raise RecipeError(f"horizon must be at least one candle, got {self.p.horizon}")
        yardstick = Yardstick(
            horizon=self.p.horizon,
            interval_ms=bar_interval_ms(self.strategy.data),
            round_trip_cost_bps=self.p.round_trip_cost_bps,
            label_threshold_bps=self.p.label_threshold_bps,
            seed=self.p.seed,
            resamples=self.p.resamples,
        )
        return asdict(signal_quality(signals_of(self.strategy, self.p.signal), yardstick))


def signals_of(strategy: Any, signal: Callable[[Any, Any], Any] | None) -> pd.DataFrame:
    """The strategy's signals table, or one made of a line per feed whose sign is the signal.

    Raises
    ------
    RecipeError
        When there is neither, or a line keeps only its last values (exactbars=1).
    """
    if signal is None:
        table = getattr(strategy, "signals", None)
        if not isinstance(table, pd.DataFrame):
            raise RecipeError(
                f"{type(strategy).__name__} has no signals table: pass"
                " signal=lambda strategy, data: <line whose sign is the signal>"
            )
        return table
    parts = [_signals_from_lines(data, signal(strategy, data)) for data in strategy.datas]
    return pd.concat(parts, ignore_index=True)


def _signals_from_lines(data: Any, line: Any) -> pd.DataFrame:
    bars = len(data)
    values = np.sign(past_values(line, bars))
    return pd.DataFrame(
        {
            "symbol": pd.Series([data._name] * bars, dtype="str"),
            "close_time_ms": nums_to_ms(past_values(data.lines.datetime, bars)),
            "close": past_values(data.lines.close, bars),
            "signal": np.nan_to_num(values).astype(np.int64),
        }
    )


class EmbeddingDrift(AtStop):
    """How far each session's embedding was from what its bundle had seen, per symbol.

    Needs a strategy with a `signals` table that has drift and age_ms (MacroMicroStrategy). A
    session counts with its first finite drift; sessions without an embedding are counted apart.

    Params
    ------
    alarm : drift above which a session counts as drifted.
    """

    params: Any = (("alarm", 1.0),)

    def analyse(self) -> Analysis:
        """Per symbol: sessions, sessions_without, mean, p95, max, last, above_alarm, max_age_ms."""
        table = signals_of(self.strategy, None)
        groups = table.groupby("symbol", sort=False)
        return {str(symbol): self._of_symbol(rows) for symbol, rows in groups}

    def _of_symbol(self, rows: pd.DataFrame) -> Analysis:
        session = (rows["close_time_ms"] // DAY_MS * DAY_MS).rename("session_ms")
        drift = rows["drift"].groupby(session).first()  # the first that is not NaN
        known = drift.dropna().to_numpy(np.float64)
        return {
            "sessions": len(drift),
            "sessions_without": len(drift) - len(known),
            "mean": _or_none(known, np.mean),
            "p95": _or_none(known, lambda values: np.quantile(values, 0.95)),
            "max": _or_none(known, np.max),
            "last": float(known[-1]) if len(known) else None,
            "above_alarm": int((known > self.p.alarm).sum()),
            "max_age_ms": _or_none(rows["age_ms"].dropna().to_numpy(np.float64), np.max),
        }


def _or_none(values: NDArray[np.float64], measure: Callable[[Any], Any]) -> float | None:
    return float(measure(values)) if len(values) else None


class Latency(AtStop):
    """Seconds that the networks take, by a wall clock around their indicators.

    Streaming runs (live, runonce=False): seconds per call of the score and of the macro indicator,
    calls on a bar already scored left out. Batch runs: seconds of the whole `once`, and bars per
    second. Watches every indicator of the strategy with a line called score, and its `macro`.

    Params
    ------
    clock : callable() -> seconds.
    """

    params: Any = (("clock", time.perf_counter),)

    def start(self) -> None:
        """Put a stopwatch around each network."""
        scores = [ind for ind in self.strategy.getindicators_lines() if _has_score(ind)]
        macros = [ind.macro for ind in scores if getattr(ind, "macro", None) is not None]
        clock = self.p.clock
        self._score = [Stopwatch(indicator, clock) for indicator in scores]
        self._macro = [Stopwatch(indicator, clock) for indicator in macros if _can_step(indicator)]

    def analyse(self) -> Analysis:
        """score_calls, score_p50_s, score_p99_s, score_max_s, batch_bars, batch_s,
        bars_per_second, macro_s (in all), macro_max_s; None where there was none."""
        calls = np.array([s for watch in self._score for s in watch.call_s])
        macro = np.array([s for watch in self._macro for s in (*watch.call_s, *watch.batch_s)])
        batch_s = sum(s for watch in self._score for s in watch.batch_s)
        bars = sum(watch.batch_bars for watch in self._score)
        return {
            "score_calls": len(calls),
            "score_p50_s": _or_none(calls, np.median),
            "score_p99_s": _or_none(calls, lambda values: np.quantile(values, 0.99)),
            "score_max_s": _or_none(calls, np.max),
            "batch_bars": bars,
            "batch_s": batch_s if bars else None,
            "bars_per_second": bars / batch_s if batch_s > 0 else None,
            "macro_s": _or_none(macro, np.sum),
            "macro_max_s": _or_none(macro, np.max),
        }


class Stopwatch:
    """Times one indicator's `next` and `once`; lives as long as the indicator."""

    def __init__(self, indicator: Any, clock: Callable[[], float]) -> None:
        self.call_s: list[float] = []
        self.batch_s: list[float] = []
        self.batch_bars = 0
        self._clock, self._indicator, self._seen = clock, indicator, 0
        self._next, self._once = indicator.next, indicator.once
        indicator.next, indicator.once = self._timed_next, self._timed_once

    def _timed_next(self) -> None:
        began = self._clock()
        self._next()
        took_s = self._clock() - began
        if len(self._indicator) > self._seen:  # not the repeat when another symbol ticks
            self.call_s.append(took_s)
            self._seen = len(self._indicator)

    def _timed_once(self, start: int, end: int) -> None:
        calls = len(self.call_s)
        began = self._clock()
        self._once(start, end)
        self.batch_s.append(self._clock() - began)
        self.batch_bars += end - start
        del self.call_s[calls:]  # an indicator without a batch of its own steps through next


def _has_score(indicator: Any) -> bool:
    return "score" in indicator.lines.getlinealiases()


def _can_step(indicator: Any) -> bool:
    return hasattr(indicator, "next") and hasattr(indicator, "once")
