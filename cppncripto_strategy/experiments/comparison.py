"""Two arms of an experiment on the same candles: how far apart, how surely, and in words.

Each arm was run under several seeds. Days are resampled in blocks, all symbols and both arms of a
day together, and seeds are resampled with them, so an interval holds both the luck of the span and
the luck of the initialisation. Few seeds are few: three say little about the spread of the fourth.

Sources: as `statistics`; the two-level resampling after Davison & Hinkley 1997, section 3.8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray
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
# What E1's criterion asks of macro, as a fraction of hit ratio.
MACRO_GAIN = 0.05
EARNS = "earns anything at all (Sharpe above 0)"
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
    """

    seed: int
    decisions: pd.DataFrame
    daily: pd.Series[float]


@dataclass(frozen=True)
class Resampling:
    """How days are resampled; `shared` days are the same days in all seeds, resampled at once."""

    shared: bool
    seed: int
    resamples: int

    def stream(self, number: int) -> int:
        """Seed of the resampling of seed number `number`."""
        return self.seed if self.shared else self.seed + number


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

    @property
    def hit_proved(self) -> bool:
        """Whether a hits more: interval above 0 and Diebold-Mariano agreeing at 5 %."""
        test = self.diebold_mariano
        agrees = test is not None and test.statistic < 0 and test.p_value < SIGNIFICANT
        low = self.hit_difference.low
        return low is not None and low > 0 and agrees


def compare(
    name_a: str,
    name_b: str,
    cells_a: Sequence[CellTables],
    cells_b: Sequence[CellTables],
    horizon: int,
    label_threshold: float,
    shared_market: bool,
    where: Where,
    seed: int = 0,
    resamples: int = DEFAULT_RESAMPLES,
) -> Comparison:
    """Compare two arms that ran under the same seeds on the same candles.

    Parameters
    ----------
    cells_a, cells_b : in the same order of seeds.
    horizon : candles of the label.
    label_threshold : fraction a move must exceed to count for precision.
    shared_market : whether all seeds saw the same candles (real ones); then a day is resampled in
        all seeds at once.
    """
    pairs = [_paired(a, b, where) for a, b in zip(cells_a, cells_b, strict=True)]
    days = [_union_days(pair) for pair in pairs]
    how = Resampling(shared_market, seed, resamples)
    hits = [_hit_totals(pair, day) for pair, day in zip(pairs, days, strict=True)]
    precision = [
        _precision_totals(a, b, label_threshold) for a, b in zip(cells_a, cells_b, strict=True)
    ]
    accounts = [_common_days(a.daily, b.daily) for a, b in zip(cells_a, cells_b, strict=True)]
    by_seed = tuple(float(_ratio_gap(total.sum(axis=0))) for total in hits)
    return Comparison(
        a=name_a,
        b=name_b,
        where=where,
        candles=sum(len(pair) for pair in pairs),
        hit_a=_mean_ratio(hits, 0),
        hit_b=_mean_ratio(hits, 1),
        hit_difference=pooled(hits, _ratio_gap, how),
        hit_by_seed=by_seed,
        diebold_mariano=_forecast_test(pairs, 1 if where == "setups" else horizon, shared_market),
        sharpe_difference=pooled([_moments(x, y) for x, y in accounts], _sharpe_gap, how),
        drawdown_difference=_drawdown_gap(accounts, how),
        precision_difference=pooled(precision, _ratio_gap, how),
    )


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
    one = np.ones(len(table))
    columns = np.stack([hit_a, one, hit_b, one], axis=1).astype(np.float64)
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
    """Difference of the deepest drawdowns of daily equity, days resampled in blocks."""
    from arch.bootstrap import StationaryBootstrap

    count = sum(len(a) for a, _ in accounts)
    if min((len(a) for a, _ in accounts), default=0) < MIN_DAYS:
        return Estimate(None, None, None, count)
    value = float(np.mean([_deepest(a) - _deepest(b) for a, b in accounts]))
    drawn = []
    for k, (a, b) in enumerate(accounts):
        # Longer blocks than for a mean: a drawdown is made of runs of days.
        rng = np.random.default_rng(how.stream(k))
        bootstrap = StationaryBootstrap(max(5.0, len(a) ** 0.5), np.arange(len(a)), seed=rng)
        draw = bootstrap.apply(
            lambda at, a=a, b=b: _deepest(a[at]) - _deepest(b[at]), how.resamples
        )
        drawn.append(np.asarray(draw, dtype=np.float64).ravel())
    return _two_level(value, np.stack(drawn), how.seed, count)


def _deepest(daily: FloatArray) -> float:
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


# ---------------------------------------------------------------- words


@dataclass(frozen=True)
class Verdict:
    """The answer to an experiment's question.

    Parameters
    ----------
    met : whether the description's criterion is met, and surely.
    headline : the answer in one sentence. proofs : what was asked for and whether it holds.
    """

    met: bool
    headline: str
    proofs: tuple[tuple[str, bool], ...]


def points(estimate: Estimate, unit: str = "points", scale: float = 100.0) -> str:
    """A difference in words: "+5.2 points [3.1, 7.4]"."""
    if estimate.value is None:
        return "undefined"
    text = f"{scale * estimate.value:+.2f} {unit}".strip()
    if estimate.low is None or estimate.high is None:
        return f"{text} (no interval)"
    return f"{text} [{scale * estimate.low:+.2f}, {scale * estimate.high:+.2f}]"


def above(estimate: Estimate) -> bool:
    """Whether the whole interval lies above 0."""
    return estimate.low is not None and estimate.low > 0


def below(estimate: Estimate) -> bool:
    """Whether the whole interval lies below 0."""
    return estimate.high is not None and estimate.high < 0


def judge_macro(found: Comparison, gain_wanted: float = MACRO_GAIN) -> Verdict:
    """E1: does macro add `gain_wanted` of hit ratio?"""
    value = found.hit_difference.value
    reaches = value is not None and value >= gain_wanted
    proofs = (
        ("the interval of the hit difference lies above 0", above(found.hit_difference)),
        ("Diebold-Mariano favours macro at 5 %", _favours_a(found)),
        (f"the gain is at least {100 * gain_wanted:g} points", reaches),
    )
    gap = points(found.hit_difference)
    if found.hit_proved and reaches:
        headline = f"Macro helps, as much as hoped: {gap} of hit ratio."
    elif found.hit_proved:
        headline = f"Macro helps, less than the {100 * gain_wanted:g} points hoped for: {gap}."
    elif below(found.hit_difference):
        headline = f"Macro hurts: {gap} of hit ratio."
    else:
        headline = f"No gain from macro is shown: {gap} of hit ratio."
    return Verdict(found.hit_proved and reaches, headline, proofs)


def judge_window(found: Comparison, sharpe_a: float | None) -> Verdict:
    """E3: does the longer short window earn a higher return for its risk?

    Parameters
    ----------
    sharpe_a : Sharpe ratio of the longer window itself. Where all lose, the one that trades less
        loses less: that is a saving of fees and no sign of a better decision.
    """
    better, earns = above(found.sharpe_difference), _earns(sharpe_a)
    proofs = (
        ("the interval of the Sharpe difference lies above 0", better),
        (f"{found.a} {EARNS}", earns),
        ("the interval of the hit difference lies above 0", above(found.hit_difference)),
        ("Diebold-Mariano favours it at 5 %", _favours_a(found)),
    )
    met = better and earns
    sharpe = points(found.sharpe_difference, "Sharpe", 1.0)
    hit = points(found.hit_difference)
    if met:
        headline = f"{found.a} earns more for its risk than {found.b}: {sharpe}; hits {hit}."
    elif found.hit_proved:
        headline = (
            f"{found.a} hits more often than {found.b} ({hit}), but no higher return for its risk"
            f" is shown: {sharpe}."
        )
    elif better:
        headline = f"{found.a} only loses less than {found.b}: {sharpe}; hits {hit}."
    elif below(found.hit_difference) or below(found.sharpe_difference):
        headline = f"{found.a} is worse than {found.b}: {sharpe}; hits {hit}."
    else:
        headline = f"No difference between {found.a} and {found.b} is shown: {sharpe}; hits {hit}."
    return Verdict(met, headline, proofs)


def judge_objective(
    found: Comparison, sharpe_a: float | None, error_a: float | None, error_b: float | None
) -> Verdict:
    """E2: does objective a give a better Sharpe ratio and a lower reconstruction loss?

    Parameters
    ----------
    sharpe_a : Sharpe ratio of objective a itself, see `judge_window`.
    error_a, error_b : error of a ridge that reconstructs the days from the frozen embedding, the
        one measure of reconstruction that objectives without a decoder have, too.
    """
    lower = error_a is not None and error_b is not None and error_a < error_b
    better, earns = above(found.sharpe_difference), _earns(sharpe_a)
    proofs = (
        ("the interval of the Sharpe difference lies above 0", better),
        (f"{found.a} {EARNS}", earns),
        ("the reconstruction error is lower", lower),
        ("the interval of the hit difference lies above 0", above(found.hit_difference)),
    )
    met = better and earns and lower
    sharpe = points(found.sharpe_difference, "Sharpe", 1.0)
    errors = (
        "reconstruction was not measured"
        if error_a is None or error_b is None
        else f"reconstruction error {error_a:.3f} against {error_b:.3f}"
    )
    word = "beats" if met else "is not shown to beat"
    return Verdict(met, f"{found.a} {word} {found.b}: {sharpe}; {errors}.", proofs)


def judge_threshold(found: Comparison, sharpe_a: float | None) -> Verdict:
    """E4: does threshold a bring a lower drawdown at no loss of precision?

    Parameters
    ----------
    sharpe_a : Sharpe ratio under threshold a itself, see `judge_window`.
    """
    lower, earns = below(found.drawdown_difference), _earns(sharpe_a)
    no_loss = not below(found.precision_difference)
    proofs = (
        ("the interval of the drawdown difference lies below 0", lower),
        (f"{found.a} {EARNS}", earns),
        ("precision is not shown to be lower", no_loss),
    )
    met = lower and earns and no_loss
    words = (
        f"drawdown {points(found.drawdown_difference)}, precision"
        f" {points(found.precision_difference)}"
    )
    if met:
        headline = f"The {found.a} threshold draws down less than the {found.b} one: {words}."
    elif lower and no_loss:
        headline = f"The {found.a} threshold only loses less than the {found.b} one: {words}."
    elif above(found.drawdown_difference):
        headline = f"The {found.a} threshold draws down more than the {found.b} one: {words}."
    else:
        headline = f"No gain in drawdown is shown, {found.a} against {found.b}: {words}."
    return Verdict(met, headline, proofs)


def _earns(sharpe: float | None) -> bool:
    return sharpe is not None and sharpe > 0


def _favours_a(found: Comparison) -> bool:
    test = found.diebold_mariano
    return test is not None and test.statistic < 0 and test.p_value < SIGNIFICANT
