"""Two arms of an experiment on the same candles: how far apart, and how surely.

Each arm was run under several seeds. Days are resampled in blocks, all symbols and both arms of a
day together, and seeds are resampled with them, so an interval holds both the luck of the span and
the luck of the initialisation. Few seeds are few: three say little about the spread of the fourth.

Left out: the answer in words (`verdicts`).

Sources: as `statistics`; the two-level resampling after Davison & Hinkley 1997, section 3.8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.class_scores import (
    CONSTANT,
    SCORES,
    A,
    B,
    paired_probabilities,
    score_totals,
)
from cppncripto_strategy.evaluation.returns import drawdown_series, sharpe_of_sums
from cppncripto_strategy.evaluation.statistics import (
    DieboldMariano,
    Estimate,
    bootstrap_days,
    diebold_mariano,
)
from cppncripto_strategy.feeds.clock import DAY_MS

DEFAULT_RESAMPLES = 1_000
SIGNIFICANT = 0.05
MIN_DAYS = 5
Where = Literal["setups", "signals", "all"]


@dataclass(frozen=True, eq=False)
class CellTables:
    """What one arm left under one seed.

    Parameters
    ----------
    seed : of networks, and of the market where it is planted.
    decisions : columns symbol, close_time_ms, score, signal, forward_return, setup; one row per
        candle with a score and a known forward return.
    daily : daily UTC returns of the account, indexed by day.

    Decisions have p_buy, p_sell, label, constant_buy and constant_sell too, where probabilities are
    compared (see `evaluation.class_scores`).
    """

    seed: int
    decisions: pd.DataFrame
    daily: pd.Series[float]


@dataclass(frozen=True)
class Resampling:
    """How days are resampled.

    Parameters
    ----------
    shared : whether all seeds saw the same candles (real ones); a day is then resampled in all
        seeds at once.
    seed : of the draws.
    resamples : how many.
    """

    shared: bool
    seed: int = 0
    resamples: int = DEFAULT_RESAMPLES

    def stream(self, number: int) -> int:
        """Seed of the resampling of seed number `number`."""
        return self.seed if self.shared else self.seed + number


@dataclass(frozen=True)
class ProperScore:
    """A proper score of both arms' probabilities; lower is better. See `evaluation.proper_scores`.

    Parameters
    ----------
    a, b, constant : mean over candles and seeds, of each arm and of the training days' class
        frequencies.
    difference : a minus b. over_constant : a minus the constant; both with intervals over days and
        seeds.
    """

    a: float | None
    b: float | None
    constant: float | None
    difference: Estimate
    over_constant: Estimate


@dataclass(frozen=True)
class Comparison:
    """Arm a against arm b; differences are a minus b, hit ratios and shares as fractions.

    Parameters
    ----------
    where : the candles on which hits are compared: setups of a planted market, candles at which
        either arm signals, or all.
    candles : how many of them, over all seeds.
    hit_a, hit_b : hit ratio of each arm's score there, mean over seeds.
    hit_difference : with its interval over days and seeds.
    hit_by_seed : the difference of each seed.
    diebold_mariano : squared error of the scores as forecasts of the move's sign; None where
        undefined. Negative statistics favour a.
    sharpe_difference, drawdown_difference, precision_difference : of the accounts, and of the
        signals (right about a move beyond the threshold).
    proper_scores : log_loss and brier of the probabilities on all candles with a label; None where
        an arm has no probabilities.
    """

    a: str
    b: str
    where: Where
    candles: int
    hit_a: float | None
    hit_b: float | None
    hit_difference: Estimate
    hit_by_seed: tuple[float, ...]
    diebold_mariano: DieboldMariano | None
    sharpe_difference: Estimate
    drawdown_difference: Estimate
    precision_difference: Estimate
    proper_scores: Mapping[str, ProperScore] | None = None

    @property
    def hit_proved(self) -> bool:
        """Whether a hits more: interval above 0 and Diebold-Mariano agreeing at 5 %."""
        test = self.diebold_mariano
        agrees = test is not None and test.statistic < 0 and test.p_value < SIGNIFICANT
        low = self.hit_difference.low
        return low is not None and low > 0 and agrees


@dataclass(frozen=True, eq=False)
class ArmTables:
    """An arm by its name, and what it left under each seed."""

    name: str
    cells: Sequence[CellTables]


@dataclass(frozen=True)
class Question:
    """Where and how two arms are compared.

    Parameters
    ----------
    where : the candles on which hits are compared, see `Comparison`.
    horizon : candles of the label.
    label_threshold : fraction a move must exceed to count for precision.
    resampling : of days and seeds.
    """

    where: Where
    horizon: int
    label_threshold: float
    resampling: Resampling


def compare(a: ArmTables, b: ArmTables, question: Question) -> Comparison:
    """Compare two arms that ran under the same seeds, in the same order, on the same candles."""
    where, how = question.where, question.resampling
    both = list(zip(a.cells, b.cells, strict=True))
    pairs = [_paired(x, y, where) for x, y in both]
    hits = [_hit_totals(pair, _union_days(pair)) for pair in pairs]
    precision = [_precision_totals(x, y, question.label_threshold) for x, y in both]
    accounts = [_common_days(x.daily, y.daily) for x, y in both]
    steps = 1 if where == "setups" else question.horizon
    return Comparison(
        a=a.name,
        b=b.name,
        where=where,
        candles=sum(len(pair) for pair in pairs),
        hit_a=_mean_ratio(hits, 0),
        hit_b=_mean_ratio(hits, 1),
        hit_difference=pooled(hits, _ratio_gap, how),
        hit_by_seed=tuple(float(_ratio_gap(total.sum(axis=0))) for total in hits),
        diebold_mariano=_forecast_test(pairs, steps, how.shared),
        sharpe_difference=pooled([_moments(x, y) for x, y in accounts], _sharpe_gap, how),
        drawdown_difference=_drawdown_gap(accounts, how),
        precision_difference=pooled(precision, _ratio_gap, how),
        proper_scores=_proper_scores(both, how),
    )


def _proper_scores(
    both: Sequence[tuple[CellTables, CellTables]], how: Resampling
) -> dict[str, ProperScore] | None:
    pairs = [paired_probabilities(a.decisions, b.decisions) for a, b in both]
    if any(len(pair) == 0 for pair in pairs):
        return None
    found = {}
    for score in SCORES:
        arms = [score_totals(pair, score, A, B) for pair in pairs]
        constant = [score_totals(pair, score, A, CONSTANT) for pair in pairs]
        found[score] = ProperScore(
            a=_mean_ratio(arms, 0),
            b=_mean_ratio(arms, 1),
            constant=_mean_ratio(constant, 1),
            difference=pooled(arms, _ratio_gap, how),
            over_constant=pooled(constant, _ratio_gap, how),
        )
    return found


def _paired(a: CellTables, b: CellTables, where: Where) -> pd.DataFrame:
    """Both arms' scores on the candles they share, restricted to where they are compared."""
    keys = ["symbol", "close_time_ms"]
    both = a.decisions.merge(
        b.decisions[[*keys, "score", "signal"]],
        on=keys,
        suffixes=("_a", "_b"),
        validate="one_to_one",
    )
    if where == "setups":
        both = both[both["setup"]]
    elif where == "signals":
        both = both[(both["signal_a"] != 0) | (both["signal_b"] != 0)]
    return both.sort_values(keys[::-1], kind="stable")


def _union_days(table: pd.DataFrame) -> NDArray[np.int64]:
    return np.unique(table["close_time_ms"].to_numpy(np.int64) // DAY_MS)


def _hit_totals(table: pd.DataFrame, days: NDArray[np.int64]) -> FloatArray:
    """Per day: hits of a, candles, hits of b, candles; (days, 4)."""
    sign = np.sign(table["forward_return"].to_numpy(np.float64))
    hit_a, hit_b = (
        np.sign(table[c].to_numpy(np.float64)) * sign > 0 for c in ("score_a", "score_b")
    )
    candles = np.ones(len(table))
    columns = np.stack([hit_a, candles, hit_b, candles], axis=1).astype(np.float64)
    return _by_day(table, columns, days)


def _precision_totals(a: CellTables, b: CellTables, threshold: float) -> FloatArray:
    """Per day: signals of a that caught a move, signals of a, the same of b; (days, 4)."""
    days = np.union1d(_union_days(a.decisions), _union_days(b.decisions))
    parts = []
    for cell in (a, b):
        table = cell.decisions
        signal = table["signal"].to_numpy(np.float64)
        caught = signal * table["forward_return"].to_numpy(np.float64) > threshold
        columns = np.stack([caught, signal != 0], axis=1).astype(np.float64)
        parts.append(_by_day(table, columns, days))
    return np.concatenate(parts, axis=1)


def _by_day(table: pd.DataFrame, columns: FloatArray, days: NDArray[np.int64]) -> FloatArray:
    totals = np.zeros((len(days), columns.shape[1]))
    at = np.searchsorted(days, table["close_time_ms"].to_numpy(np.int64) // DAY_MS)
    np.add.at(totals, at, columns)
    return totals


def _common_days(a: pd.Series[float], b: pd.Series[float]) -> tuple[FloatArray, FloatArray]:
    both = pd.concat([a, b], axis=1, join="inner").dropna()
    return both.iloc[:, 0].to_numpy(np.float64), both.iloc[:, 1].to_numpy(np.float64)


def _moments(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.stack([np.ones_like(a), a, a * a, b, b * b], axis=1)


# Statistics of sums, vectorised over leading axes.


def _ratio_gap(sums: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        gap: FloatArray = sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]
    return gap


def _sharpe_gap(sums: FloatArray) -> FloatArray:
    days, sum_a, squares_a, sum_b, squares_b = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return sharpe_of_sums(days, sum_a, squares_a) - sharpe_of_sums(days, sum_b, squares_b)


def _mean_ratio(totals: Sequence[FloatArray], arm: int) -> float | None:
    sums = [total.sum(axis=0) for total in totals]
    ratios = [s[2 * arm] / s[2 * arm + 1] for s in sums if s[2 * arm + 1] > 0]
    return float(np.mean(ratios)) if ratios else None


def pooled(
    totals: Sequence[FloatArray],
    statistic: Callable[[FloatArray], FloatArray],
    how: Resampling,
) -> Estimate:
    """Mean over seeds of a statistic of summed daily totals, days and seeds resampled.

    Parameters
    ----------
    totals : per seed, float array (days, K).
    statistic : maps sums (..., K) to values (...); NaN where undefined.
    """
    values = np.array([statistic(total.sum(axis=0)) for total in totals])
    count = sum(len(total) for total in totals)
    if not np.isfinite(values).any():
        return Estimate(None, None, None, count)
    value = float(np.nanmean(values))
    if min(len(total) for total in totals) < MIN_DAYS:
        return Estimate(value, None, None, count)
    drawn = np.stack(
        [
            statistic(bootstrap_days(t, lambda sums: sums, how.stream(k), how.resamples))
            for k, t in enumerate(totals)
        ]
    )  # (seeds, resamples)
    return _two_level(value, drawn, how.seed, count)


def _two_level(value: float, drawn: FloatArray, seed: int, count: int) -> Estimate:
    """Resample seeds over the resampled days and take the percentiles of the mean."""
    seeds, resamples = drawn.shape
    rng = np.random.default_rng([seed, seeds])
    chosen = rng.integers(0, seeds, (seeds, resamples)) if seeds > 1 else np.zeros((1, resamples))
    picked = np.take_along_axis(drawn, chosen.astype(np.int64), axis=0)
    known = np.isfinite(picked).any(axis=0)
    if not known.any():
        return Estimate(value, None, None, count)
    means = np.nanmean(picked[:, known], axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(value, float(low), float(high), count)


def _drawdown_gap(accounts: Sequence[tuple[FloatArray, FloatArray]], how: Resampling) -> Estimate:
    """Difference of the maximum drawdowns of daily equity, days resampled in blocks."""
    from arch.bootstrap import StationaryBootstrap

    count = sum(len(a) for a, _ in accounts)
    if min((len(a) for a, _ in accounts), default=0) < MIN_DAYS:
        return Estimate(None, None, None, count)
    value = float(np.mean([_max_drawdown(a) - _max_drawdown(b) for a, b in accounts]))
    drawn = []
    for k, (a, b) in enumerate(accounts):
        # Longer blocks than for a mean: a drawdown is made of runs of days.
        rng = np.random.default_rng(how.stream(k))
        bootstrap = StationaryBootstrap(max(5.0, len(a) ** 0.5), np.arange(len(a)), seed=rng)
        draw = bootstrap.apply(
            lambda at, a=a, b=b: _max_drawdown(a[at]) - _max_drawdown(b[at]), how.resamples
        )
        drawn.append(np.asarray(draw, dtype=np.float64).ravel())
    return _two_level(value, np.stack(drawn), how.seed, count)


def _max_drawdown(daily: FloatArray) -> float:
    return float(drawdown_series(np.cumprod(np.concatenate([[1.0], 1.0 + daily]))).max())


def _forecast_test(
    pairs: Sequence[pd.DataFrame], horizon: int, shared: bool
) -> DieboldMariano | None:
    """Diebold-Mariano on squared errors against the move's sign, averaged at equal stamps."""
    parts = []
    for pair in pairs:
        sign = np.sign(pair["forward_return"].to_numpy(np.float64))
        losses = pd.DataFrame(
            {
                "at": pair["close_time_ms"].to_numpy(np.int64),
                "a": (pair["score_a"].to_numpy(np.float64) - sign) ** 2,
                "b": (pair["score_b"].to_numpy(np.float64) - sign) ** 2,
            }
        )
        parts.append(losses)
    if shared:  # one market: the seeds are repetitions, not more time
        mean = pd.concat(parts).groupby("at", sort=True).mean()
    else:
        mean = pd.concat([part.groupby("at", sort=True).mean() for part in parts])
    return diebold_mariano(mean["a"].to_numpy(), mean["b"].to_numpy(), horizon)
