"""What a run earned and how good its signals were: pure functions over the results tables.

Risk is measured on daily UTC returns with 365 days a year; drawdown on every bar. A metric that is
undefined (no trade, no spread, too short a span) is None, never 0 and never infinite.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.statistics import (
    DAYS_PER_YEAR,
    DEFAULT_RESAMPLES,
    Estimate,
    day_totals,
    diebold_mariano,
    paired_hit_difference,
    probabilistic_sharpe,
    ratio_estimates,
    wilson_interval,
)
from cppncripto_strategy.feeds.clock import DAY_MS

YEAR_MS = DAYS_PER_YEAR * DAY_MS
MIN_ANNUAL_DAYS = 30
BPS = 1e-4
# A position below this share of equity is dust, not exposure.
_DUST = 1e-9


@dataclass(frozen=True)
class Drawdown:
    """The deepest fall of an equity curve; `depth` is a share of the peak, 0 to 1.

    `recovered_ms` is the first stamp at or above the peak again, or None.
    """

    depth: float
    peak_ms: int | None
    trough_ms: int | None
    recovered_ms: int | None


@dataclass(frozen=True)
class AccountMetrics:
    """An equity curve and its ledger in numbers; shares are fractions, money is quote currency."""

    start_ms: int | None
    end_ms: int | None
    days: float
    start_equity: float | None
    final_equity: float | None
    total_return: float | None
    daily_return_mean: float | None
    daily_volatility: float | None
    cagr: float | None
    sharpe: float | None
    sortino: float | None
    max_drawdown: float | None
    drawdown_peak_ms: int | None
    drawdown_trough_ms: int | None
    drawdown_recovered_ms: int | None
    calmar: float | None
    probabilistic_sharpe: float | None
    time_in_market: float | None
    mean_exposure: float | None
    turnover_per_year: float | None
    fees_paid: float | None
    slippage_paid: float | None
    orders_filled: int | None
    orders_not_filled: int | None
    trades: int | None
    win_rate: float | None
    profit_factor: float | None


@dataclass(frozen=True)
class SideQuality:
    """How good one side's signals were at the label horizon.

    hit_ratio : share of signals whose forward return had the signal's sign (a zero return misses).
    precision : share of signals whose forward return passed the label threshold.
    recall : share of the candles that passed the threshold which carried the signal.
    break_even_hit_ratio : 1/2 + cost / (2 mean |forward return| at the signals); may exceed 1.
    net_return_bps : mean forward return in the signal's direction, less a round trip's cost.
    """

    signals: int
    judged: int
    hit_ratio: Estimate
    hit_ratio_wilson: tuple[float | None, float | None]
    precision: Estimate
    recall: Estimate
    mean_absolute_return_bps: float | None
    break_even_hit_ratio: float | None
    net_return_bps: Estimate


@dataclass(frozen=True)
class SignalQuality:
    """Signals judged by the return over the next `horizon` candles, from close to close."""

    horizon: int
    interval_ms: int
    label_threshold_bps: float
    round_trip_cost_bps: float
    candles: int
    judged_candles: int
    excluded_signals: int
    buy: SideQuality
    sell: SideQuality
    both: SideQuality


# ---------------------------------------------------------------- equity and returns


def daily_equity(equity: pd.DataFrame) -> pd.Series[float]:
    """Equity at the first stamp, at each UTC midnight, and at the last stamp.

    A midnight takes the last equity at or before it, so a day without bars is carried.

    Parameters
    ----------
    equity : table with close_time_ms (ordered) and equity.

    Returns
    -------
    Series indexed by stamp in UTC milliseconds (int64); empty for an empty table.
    """
    stamps = equity["close_time_ms"].to_numpy(np.int64)
    if len(stamps) == 0:
        return pd.Series(dtype=np.float64, index=pd.Index([], dtype=np.int64))
    first, last = int(stamps[0]), int(stamps[-1])
    midnights = np.arange(first // DAY_MS + 1, -(-last // DAY_MS), dtype=np.int64) * DAY_MS
    bounds = np.unique(np.concatenate([[first], midnights, [last]]))
    values = equity["equity"].to_numpy(np.float64)
    return pd.Series(values[np.searchsorted(stamps, bounds, side="right") - 1], index=bounds)


def daily_returns(equity: pd.DataFrame) -> pd.Series[float]:
    """Simple return of each UTC day, indexed by the day (naive datetime); they compound exactly.

    The first and last day may be partial. Equity that reaches 0 leaves NaN after it.
    """
    marks = daily_equity(equity)
    values = marks.to_numpy(np.float64)
    before = np.where(values[:-1] > 0, values[:-1], np.nan)
    ends = marks.index.to_numpy(np.int64)[1:]
    days = pd.to_datetime((ends - 1) // DAY_MS, unit="D")
    return pd.Series(values[1:] / before - 1.0, index=days, name="return")


def total_return(equity: FloatArray) -> float | None:
    """Last over first, less 1."""
    return _number(equity[-1] / equity[0] - 1.0) if len(equity) > 1 and equity[0] > 0 else None


def sharpe_ratio(daily: FloatArray) -> float | None:
    """Mean over sample standard deviation of daily returns, times sqrt(365); riskless rate 0."""
    if len(daily) < 2 or daily.std(ddof=1) < 1e-12:
        return None
    return _number(daily.mean() / daily.std(ddof=1) * math.sqrt(DAYS_PER_YEAR))


def sortino_ratio(daily: FloatArray) -> float | None:
    """Mean over root mean square of the losses (0 on gaining days), times sqrt(365)."""
    if len(daily) < 2:
        return None
    downside = math.sqrt(float(np.mean(np.minimum(daily, 0.0) ** 2)))
    return _number(daily.mean() / downside * math.sqrt(DAYS_PER_YEAR)) if downside > 1e-12 else None


def drawdown_series(equity: FloatArray) -> FloatArray:
    """Fall from the highest equity so far, as a share of it, 0 to 1."""
    peaks = np.maximum.accumulate(equity)
    return np.where(peaks > 0, 1.0 - equity / np.where(peaks > 0, peaks, 1.0), 0.0)


def max_drawdown(equity: pd.DataFrame) -> Drawdown:
    """The deepest fall over all bars, with its span."""
    stamps = equity["close_time_ms"].to_numpy(np.int64)
    values = equity["equity"].to_numpy(np.float64)
    falls = drawdown_series(values)
    if len(falls) == 0 or falls.max() <= 0:
        return Drawdown(0.0, None, None, None)
    trough = int(falls.argmax())
    peak = int(values[: trough + 1].argmax())
    back = np.flatnonzero(values[trough:] >= values[peak])
    recovered = int(stamps[trough + back[0]]) if len(back) else None
    return Drawdown(float(falls[trough]), int(stamps[peak]), int(stamps[trough]), recovered)


def annual_growth(growth: float | None, span_ms: int) -> float | None:
    """Compound annual growth rate of a total return over a span; 365 days a year.

    None for a span under MIN_ANNUAL_DAYS: a good afternoon is not a trillion percent a year.
    """
    if growth is None or growth <= -1 or span_ms < MIN_ANNUAL_DAYS * DAY_MS:
        return None
    exponent = YEAR_MS / span_ms * math.log1p(growth)
    return _number(math.expm1(exponent)) if exponent < 700 else None


def account_metrics(
    equity: pd.DataFrame,
    fills: pd.DataFrame | None = None,
    trades: pd.DataFrame | None = None,
) -> AccountMetrics:
    """Every account metric of one arm.

    Parameters
    ----------
    equity : table with close_time_ms and equity, and exposure where the arm had positions.
    fills, trades : the arm's ledger; None leaves what depends on it None.
    """
    stamps = equity["close_time_ms"].to_numpy(np.int64)
    values = equity["equity"].to_numpy(np.float64)
    span_ms = int(stamps[-1] - stamps[0]) if len(stamps) else 0
    returns = daily_returns(equity)
    daily = np.asarray(returns, dtype=np.float64)
    growth, fall = total_return(values), max_drawdown(equity)
    cagr = annual_growth(growth, span_ms)
    return AccountMetrics(
        start_ms=int(stamps[0]) if len(stamps) else None,
        end_ms=int(stamps[-1]) if len(stamps) else None,
        days=span_ms / DAY_MS,
        start_equity=_number(values[0]) if len(values) else None,
        final_equity=_number(values[-1]) if len(values) else None,
        total_return=growth,
        daily_return_mean=_mean(daily),
        daily_volatility=_number(daily.std(ddof=1)) if len(daily) > 1 else None,
        cagr=cagr,
        sharpe=sharpe_ratio(daily),
        sortino=sortino_ratio(daily),
        max_drawdown=fall.depth if len(values) else None,
        drawdown_peak_ms=fall.peak_ms,
        drawdown_trough_ms=fall.trough_ms,
        drawdown_recovered_ms=fall.recovered_ms,
        calmar=_divide(cagr, fall.depth),
        probabilistic_sharpe=probabilistic_sharpe(daily),
        **_exposure(equity),
        **_costs(fills, values, span_ms),
        **_round_trips(trades),
    )


def _exposure(equity: pd.DataFrame) -> dict[str, Any]:
    if "exposure" not in equity or len(equity) == 0:
        return {"time_in_market": None, "mean_exposure": None}
    exposure = equity["exposure"].to_numpy(np.float64)
    return {
        "time_in_market": float(np.mean(np.abs(exposure) > _DUST)),
        "mean_exposure": _mean(exposure),
    }


def _costs(fills: pd.DataFrame | None, values: FloatArray, span_ms: int) -> dict[str, Any]:
    names = ("turnover_per_year", "fees_paid", "slippage_paid")
    if fills is None:
        return {**dict.fromkeys(names), "orders_filled": None, "orders_not_filled": None}
    filled = fills[fills["status"] == "filled"]
    direction = np.where(filled["side"].to_numpy() == "buy", 1.0, -1.0)
    paid_over = filled["price"].to_numpy(np.float64) - filled["reference_price"].to_numpy(
        np.float64
    )
    slippage = direction * paid_over * filled["quantity"].to_numpy(np.float64)
    traded = float(filled["notional"].abs().sum()) * YEAR_MS
    mean_equity = _mean(values)
    return {
        "turnover_per_year": _divide(traded, (mean_equity or 0.0) * span_ms),
        "fees_paid": float(filled["fee"].sum()),
        "slippage_paid": float(np.nansum(slippage)),
        "orders_filled": len(filled),
        "orders_not_filled": len(fills) - len(filled),
    }


def _round_trips(trades: pd.DataFrame | None) -> dict[str, Any]:
    if trades is None:
        return {"trades": None, "win_rate": None, "profit_factor": None}
    pnl = trades["pnl"].to_numpy(np.float64)
    gained, lost = float(pnl[pnl > 0].sum()), float(-pnl[pnl < 0].sum())
    return {
        "trades": len(pnl),
        "win_rate": float(np.mean(pnl > 0)) if len(pnl) else None,
        "profit_factor": _divide(gained, lost),
    }


def buy_and_hold(
    prices: pd.DataFrame, initial_cash: float, fee_bps: float = 10.0, slippage_bps: float = 1.0
) -> pd.DataFrame:
    """Equity of equal shares of every symbol, bought once and held.

    Each symbol is bought at its first close, for an equal share of the cash, with one taker fee and
    slippage; until then its share is cash, so the first stamp still shows `initial_cash` and the
    costs show at the next. A symbol without a bar at a stamp keeps its last close.

    Parameters
    ----------
    prices : table with symbol, close_time_ms and close; the signals table will do.

    Returns
    -------
    Table with close_time_ms and equity, one row per distinct stamp.
    """
    closes = prices.pivot(index="close_time_ms", columns="symbol", values="close").sort_index()
    close = closes.ffill().to_numpy(np.float64)
    share = initial_cash / max(close.shape[1], 1)
    held = ~np.isnan(np.vstack([np.full((1, close.shape[1]), np.nan), close[:-1]]))
    first = np.array([column[~np.isnan(column)][0] for column in closes.to_numpy(np.float64).T])
    quantity = share / (first * (1 + slippage_bps * BPS) * (1 + fee_bps * BPS))
    value = np.where(held, quantity * close, share).sum(axis=1)
    stamps = closes.index.to_numpy(np.int64)
    return pd.DataFrame({"close_time_ms": stamps, "equity": value.astype(np.float64)})


# ---------------------------------------------------------------- signals


def forward_returns(signals: pd.DataFrame, horizon: int, interval_ms: int) -> FloatArray:
    """Return from each close to the close `horizon` candles later, in the table's row order.

    NaN where the symbol's next `horizon` candles are not all there: a gap, or the end.
    """
    result = np.full(len(signals), np.nan)
    stamps = signals["close_time_ms"].to_numpy(np.int64)
    close = signals["close"].to_numpy(np.float64)
    symbols = signals["symbol"].to_numpy()
    for symbol in pd.unique(signals["symbol"]):
        rows = np.flatnonzero(symbols == symbol)
        rows = rows[np.argsort(stamps[rows], kind="stable")]
        here, there = rows[:-horizon], rows[horizon:]
        whole = stamps[there] - stamps[here] == horizon * interval_ms
        result[here[whole]] = close[there[whole]] / close[here[whole]] - 1.0
    return result


def signal_quality(
    signals: pd.DataFrame,
    horizon: int,
    interval_ms: int,
    round_trip_cost_bps: float,
    label_threshold_bps: float | None = None,
    seed: int = 0,
    resamples: int = DEFAULT_RESAMPLES,
) -> SignalQuality:
    """Hit ratio, precision, recall and net return of buy signals, sell signals and both.

    Intervals are 95 % stationary bootstraps of whole UTC days over all symbols together. Signals
    without a forward return (a gap, or the end) are left out and counted.

    Parameters
    ----------
    signals : table with symbol, close_time_ms, close, signal (+1, -1, 0).
    horizon : candles of the label.
    round_trip_cost_bps : both fees and both slippages.
    label_threshold_bps : a move beyond it is what a signal should catch; default the round trip.
    """
    threshold = round_trip_cost_bps if label_threshold_bps is None else label_threshold_bps
    forward = forward_returns(signals, horizon, interval_ms)
    signal = signals["signal"].to_numpy(np.float64)
    judged = ~np.isnan(forward)
    sides = [
        _side_quality(
            signals, forward, signal, side, threshold, round_trip_cost_bps, seed, resamples
        )
        for side in ((1,), (-1,), (1, -1))
    ]
    return SignalQuality(
        horizon=horizon,
        interval_ms=interval_ms,
        label_threshold_bps=threshold,
        round_trip_cost_bps=round_trip_cost_bps,
        candles=len(signals),
        judged_candles=int(judged.sum()),
        excluded_signals=int(((signal != 0) & ~judged).sum()),
        buy=sides[0],
        sell=sides[1],
        both=sides[2],
    )


def _side_quality(
    signals: pd.DataFrame,
    forward: FloatArray,
    signal: FloatArray,
    side: tuple[int, ...],
    threshold_bps: float,
    cost_bps: float,
    seed: int,
    resamples: int,
) -> SideQuality:
    judged = ~np.isnan(forward)
    wanted = np.isin(signal, side)
    rows, move = wanted & judged, np.nan_to_num(forward)
    along = np.where(rows, move * signal, 0.0)
    caught = rows & (along > threshold_bps * BPS)
    passed = np.zeros(
        len(move), dtype=np.float64
    )  # candles that a signal of this side should catch
    for direction in side:
        passed += judged & (move * direction > threshold_bps * BPS)
    gain_bps = np.where(rows, along / BPS - cost_bps, 0.0)
    columns = np.stack([rows, along > 0, caught, passed, gain_bps], axis=1).astype(np.float64)
    totals = day_totals(signals["close_time_ms"].to_numpy(np.int64), columns)
    hit, precision, recall, net = ratio_estimates(
        totals, [(1, 0), (2, 0), (2, 3), (4, 0)], seed, resamples
    )
    mean_move = _mean(np.abs(forward[rows]))
    return SideQuality(
        signals=int(wanted.sum()),
        judged=int(rows.sum()),
        hit_ratio=hit,
        hit_ratio_wilson=wilson_interval(int((along > 0).sum()), int(rows.sum())),
        precision=precision,
        recall=recall,
        mean_absolute_return_bps=None if mean_move is None else mean_move / BPS,
        break_even_hit_ratio=break_even_hit_ratio(cost_bps, mean_move),
        net_return_bps=net,
    )


def break_even_hit_ratio(
    round_trip_cost_bps: float, mean_absolute_return: float | None
) -> float | None:
    """Hit ratio at which the mean signal pays its costs: 1/2 + cost / (2 E|r|); may exceed 1."""
    if mean_absolute_return is None or mean_absolute_return <= 0:
        return None
    return 0.5 + round_trip_cost_bps * BPS / (2 * mean_absolute_return)


def macro_contribution(
    signals: pd.DataFrame,
    horizon: int,
    interval_ms: int,
    seed: int = 0,
    resamples: int = DEFAULT_RESAMPLES,
) -> dict[str, Any]:
    """What the embedding changed: score against the score under a zero embedding, same candles.

    The hit difference counts the candles at which either score leans (is not 0) and the forward
    return is known; Diebold-Mariano compares the squared errors of both scores as forecasts of the
    move's sign, averaged over the symbols of each stamp.
    """
    forward = forward_returns(signals, horizon, interval_ms)
    score = signals["score"].to_numpy(np.float64)
    zero = signals["score_zero"].to_numpy(np.float64)
    rows = ~np.isnan(forward) & ~np.isnan(score) & ~np.isnan(zero) & ((score != 0) | (zero != 0))
    stamps, sign = signals["close_time_ms"].to_numpy(np.int64)[rows], np.sign(forward[rows])
    with_hit, without_hit = (np.sign(s[rows]) * sign > 0 for s in (score, zero))
    losses = pd.DataFrame(
        {"at": stamps, "a": (score[rows] - sign) ** 2, "b": (zero[rows] - sign) ** 2}
    )
    mean = losses.groupby("at").mean()
    test = diebold_mariano(mean["a"].to_numpy(), mean["b"].to_numpy(), horizon)
    contribution = score - zero
    return {
        "candles": int(rows.sum()),
        "hit_ratio_with": _mean(with_hit.astype(np.float64)),
        "hit_ratio_without": _mean(without_hit.astype(np.float64)),
        "hit_difference": asdict(
            paired_hit_difference(with_hit, without_hit, stamps, seed, resamples)
        ),
        "diebold_mariano": None if test is None else asdict(test),
        "mean_absolute_contribution": _mean(np.abs(contribution[~np.isnan(contribution)])),
    }


# ---------------------------------------------------------------- everything


def run_metrics(
    signals: pd.DataFrame,
    fills: pd.DataFrame,
    trades: pd.DataFrame,
    equity: pd.DataFrame,
    benchmark_equity: pd.DataFrame,
    *,
    horizon: int,
    interval_ms: int,
    fee_bps: float = 10.0,
    slippage_bps: float = 1.0,
    label_threshold_bps: float | None = None,
    seed: int = 0,
    resamples: int = DEFAULT_RESAMPLES,
    equity_without_macro: pd.DataFrame | None = None,
    fills_without_macro: pd.DataFrame | None = None,
    trades_without_macro: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """All metrics of a run as plain nested values, ready for metrics.json.

    Keys: strategy, without_macro (None where it was not run), benchmark (`AccountMetrics` each),
    signals (`SignalQuality`), macro (`macro_contribution`), drift, verdict.
    """
    cost_bps = 2 * (fee_bps + slippage_bps)
    quality = signal_quality(
        signals, horizon, interval_ms, cost_bps, label_threshold_bps, seed, resamples
    )
    without = (
        None
        if equity_without_macro is None
        else account_metrics(equity_without_macro, fills_without_macro, trades_without_macro)
    )
    metrics: dict[str, Any] = {
        "strategy": asdict(account_metrics(equity, fills, trades)),
        "without_macro": None if without is None else asdict(without),
        "benchmark": asdict(account_metrics(benchmark_equity)),
        "signals": asdict(quality),
        "macro": macro_contribution(signals, horizon, interval_ms, seed, resamples),
        "drift": drift_summary(signals),
    }
    metrics["verdict"] = verdict(metrics)
    return metrics


def drift_summary(signals: pd.DataFrame) -> dict[str, float | None]:
    """Mean, 95th percentile and maximum of the embedding drift over the days and symbols."""
    day = signals["close_time_ms"] // DAY_MS
    daily = signals["drift"].groupby([signals["symbol"], day]).last().to_numpy(np.float64)
    known = daily[~np.isnan(daily)]
    if len(known) == 0:
        return {"mean": None, "p95": None, "max": None}
    return {
        "mean": float(known.mean()),
        "p95": float(np.quantile(known, 0.95)),
        "max": float(known.max()),
    }


def verdict(metrics: dict[str, Any]) -> dict[str, Any]:
    """Whether there is an edge after costs, in words a person can act on.

    An edge needs all three: money made, a Sharpe ratio that is positive with 95 % probability, and
    signals whose mean net return has its whole 95 % interval above 0.
    """
    account, signals = metrics["strategy"], metrics["signals"]["both"]
    earned = account["total_return"]
    net, certainty = signals["net_return_bps"], account["probabilistic_sharpe"]
    if not account["trades"] and not account["orders_filled"]:
        return {"edge": False, "headline": "No trade was made", "detail": "Nothing to judge."}
    profitable = earned is not None and earned > 0
    certain = certainty is not None and certainty >= 0.95
    paying = net["low"] is not None and net["low"] > 0
    edge = profitable and certain and paying
    headline = (
        "An edge after fees"
        if edge
        else "Profit, but no proven edge after fees"
        if profitable
        else "No edge after fees"
    )
    return {"edge": edge, "headline": headline, "detail": _verdict_detail(account, signals)}


def _verdict_detail(account: dict[str, Any], signals: dict[str, Any]) -> str:
    hit, needed = signals["hit_ratio"], signals["break_even_hit_ratio"]
    parts = [f"The account returned {_percent(account['total_return'])}"]
    if account["fees_paid"] is not None:
        parts[0] += f" after {account['fees_paid']:,.2f} of fees"
    if hit["value"] is not None:
        parts.append(
            f"{_percent(hit['value'])} of the signals were right"
            + (
                f" (95 % interval {_percent(hit['low'])} to {_percent(hit['high'])})"
                if hit["low"] is not None
                else ""
            )
            + (f"; breaking even needs {_percent(needed)}" if needed is not None else "")
        )
    if account["probabilistic_sharpe"] is not None:
        chance = account["probabilistic_sharpe"]
        words = (
            "over 99.9 %"
            if chance > 0.999
            else "under 0.1 %"
            if chance < 0.001
            else _percent(chance)
        )
        parts.append(f"the true Sharpe ratio is above 0 with a probability of {words}")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.1f} %"


def _mean(values: NDArray[np.floating[Any]]) -> float | None:
    return _number(values.mean()) if len(values) else None


def _divide(top: float | None, bottom: float | None) -> float | None:
    return None if top is None or not bottom else _number(top / bottom)


def _number(value: float | np.floating[Any]) -> float | None:
    return float(value) if math.isfinite(value) else None
