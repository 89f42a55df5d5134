"""An account in numbers: what it earned, risked, paid and traded; and buy-and-hold beside it.

Pure functions over the results tables; what an account lacks (fills, trades, exposure) leaves the
metrics that need it None. Left out: whether its signals were right (`signals`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.evaluation.returns import (
    YEAR_MS,
    compound_annual_growth,
    daily_returns,
    max_drawdown,
    sharpe_ratio,
    sortino_ratio,
    total_return,
)
from cppncripto_strategy.evaluation.statistics import probabilistic_sharpe
from cppncripto_strategy.evaluation.undefined import defined, mean, ratio
from cppncripto_strategy.feeds.clock import DAY_MS

BPS = 1e-4
# A position below this share of equity is dust, not exposure.
_DUST = 1e-9


@dataclass(frozen=True, eq=False)
class Account:
    """What an account leaves behind: tables of `results`.

    Parameters
    ----------
    equity : table with close_time_ms (ordered) and equity, and exposure where it had positions.
    fills, trades : its orders and round trips; None where they were not kept.
    """

    equity: pd.DataFrame
    fills: pd.DataFrame | None = None
    trades: pd.DataFrame | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """What trading costs per side, basis points of notional: taker fee and slippage."""

    fee_bps: float = 10.0
    slippage_bps: float = 1.0

    @property
    def round_trip_bps(self) -> float:
        """Both fees and both slippages, basis points."""
        return 2 * (self.fee_bps + self.slippage_bps)


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


def account_metrics(account: Account) -> AccountMetrics:
    """Every metric of one account; None where undefined."""
    equity = account.equity
    stamps = equity["close_time_ms"].to_numpy(np.int64)
    values = equity["equity"].to_numpy(np.float64)
    span_ms = int(stamps[-1] - stamps[0]) if len(stamps) else 0
    returns = daily_returns(equity)
    daily = np.asarray(returns, dtype=np.float64)
    growth, fall = total_return(values), max_drawdown(equity)
    cagr = compound_annual_growth(growth, span_ms)
    return AccountMetrics(
        start_ms=int(stamps[0]) if len(stamps) else None,
        end_ms=int(stamps[-1]) if len(stamps) else None,
        days=span_ms / DAY_MS,
        start_equity=defined(values[0]) if len(values) else None,
        final_equity=defined(values[-1]) if len(values) else None,
        total_return=growth,
        daily_return_mean=mean(daily),
        daily_volatility=defined(daily.std(ddof=1)) if len(daily) > 1 else None,
        cagr=cagr,
        sharpe=sharpe_ratio(daily),
        sortino=sortino_ratio(daily),
        max_drawdown=fall.depth if len(values) else None,
        drawdown_peak_ms=fall.peak_ms,
        drawdown_trough_ms=fall.trough_ms,
        drawdown_recovered_ms=fall.recovered_ms,
        calmar=ratio(cagr, fall.depth),
        probabilistic_sharpe=probabilistic_sharpe(daily),
        **_exposure(equity),
        **_costs(account.fills, values, span_ms),
        **_round_trips(account.trades),
    )


def _exposure(equity: pd.DataFrame) -> dict[str, Any]:
    if "exposure" not in equity or len(equity) == 0:
        return {"time_in_market": None, "mean_exposure": None}
    exposure = equity["exposure"].to_numpy(np.float64)
    return {
        "time_in_market": float(np.mean(np.abs(exposure) > _DUST)),
        "mean_exposure": mean(exposure),
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
    mean_equity = mean(values)
    return {
        "turnover_per_year": ratio(traded, (mean_equity or 0.0) * span_ms),
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
        "profit_factor": ratio(gained, lost),
    }


def buy_and_hold(
    prices: pd.DataFrame, initial_cash: float, costs: Costs | None = None
) -> pd.DataFrame:
    """Equity of equal shares of every symbol, bought once and held.

    Each symbol is bought at its first close, for an equal share of the cash, with one taker fee and
    slippage; until then its share is cash, so the first stamp still shows `initial_cash` and the
    costs show at the next. A symbol without a bar at a stamp keeps its last close.

    Parameters
    ----------
    prices : table with symbol, close_time_ms and close; the signals table will do.
    initial_cash : quote units.
    costs : of buying; None is `Costs()`.

    Returns
    -------
    Table with close_time_ms and equity, one row per distinct stamp.

    Raises
    ------
    ValueError
        When a symbol has two prices at one stamp.
    """
    costs = costs or Costs()
    stamps, closes = _closes(prices)
    close = pd.DataFrame(closes).ffill().to_numpy(np.float64)
    share = initial_cash / max(close.shape[1], 1)
    bought = ~np.isnan(np.vstack([np.full((1, close.shape[1]), np.nan), close[:-1]]))
    first = np.array([column[~np.isnan(column)][0] for column in closes.T])
    quantity = share / (first * (1 + costs.slippage_bps * BPS) * (1 + costs.fee_bps * BPS))
    value = np.where(bought, quantity * close, share).sum(axis=1)
    return pd.DataFrame({"close_time_ms": stamps, "equity": value.astype(np.float64)})


def _closes(prices: pd.DataFrame) -> tuple[IntArray, FloatArray]:
    """Distinct stamps (N,) and every symbol's close there (N, symbols), NaN without a bar.

    Written in place: pandas' pivot of a row per candle takes several times the table's memory.
    """
    stamps = np.unique(prices["close_time_ms"].to_numpy(np.int64))
    codes, names = pd.factorize(prices["symbol"], sort=True)
    closes = np.full((len(stamps), len(names)), np.nan)
    given = np.zeros(closes.shape, dtype=bool)
    for code in range(len(names)):
        own = prices.loc[codes == code, ["close_time_ms", "close"]]
        at = np.searchsorted(stamps, own["close_time_ms"].to_numpy(np.int64))
        closes[at, code], given[at, code] = own["close"].to_numpy(np.float64), True
    if given.sum() != len(prices):
        doubled = len(prices) - int(given.sum())
        raise ValueError(f"{doubled} of {len(prices)} prices repeat another's symbol and stamp")
    return stamps, closes
