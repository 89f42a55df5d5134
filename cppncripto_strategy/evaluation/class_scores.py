"""Two forecasts' class probabilities on the same candles: log loss and Brier, beside the constant.

Compared are all candles that both scored and whose label is known, not the signals alone: a
probability that nothing will happen counts, too. The constant forecast gives every candle the class
frequencies of the training days. Left out: what the labels are (`class_labels`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.proper_scores import brier_score, log_loss
from cppncripto_strategy.evaluation.signals import Yardstick
from cppncripto_strategy.evaluation.statistics import day_totals, ratio_estimates
from cppncripto_strategy.feeds.clock import DAY_MS

CLASS_COLUMNS = ("label", "constant_buy", "constant_sell")
_SCORES: Mapping[str, Callable[..., FloatArray]] = {"log_loss": log_loss, "brier": brier_score}
SCORES = tuple(_SCORES)
_DAYS_JOINED = 32


@dataclass(frozen=True)
class Candidate:
    """The columns of a table of paired candles that hold one forecast's probabilities."""

    p_buy: str
    p_sell: str


A, B = Candidate("p_buy_a", "p_sell_a"), Candidate("p_buy_b", "p_sell_b")
CONSTANT = Candidate("constant_buy", "constant_sell")


def with_classes(decisions: pd.DataFrame, classes: pd.DataFrame | None) -> pd.DataFrame:
    """Decisions with the columns of `class_labels.class_table`, NaN where it has no row."""
    if classes is None:
        return decisions.assign(**dict.fromkeys(CLASS_COLUMNS, np.nan))
    keys = ["symbol", "close_time_ms"]
    return decisions.merge(classes, on=keys, how="left", validate="one_to_one")


def paired_probabilities(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """The candles with a label that both arms gave probabilities for; empty where one has none.

    Parameters
    ----------
    a, b : decisions of both arms under one seed; the label's columns are taken from the first.
    """
    keys, own = ["symbol", "close_time_ms"], ["p_buy", "p_sell"]
    if not {*own, *CLASS_COLUMNS} <= set(a) or not set(own) <= set(b):
        return pd.DataFrame(columns=[*keys, *CLASS_COLUMNS])  # cells kept before there were any
    both = a[[*keys, *own, *CLASS_COLUMNS]].merge(
        b[[*keys, *own]], on=keys, suffixes=("_a", "_b"), validate="one_to_one"
    )
    return both.dropna().sort_values(keys[::-1], kind="stable")


def score_totals(pair: pd.DataFrame, score: str, first: Candidate, second: Candidate) -> FloatArray:
    """Per day: summed score of the first, candles, of the second, candles; (days, 4)."""
    ones = np.ones(len(pair))
    a, b = _losses(pair, score, first), _losses(pair, score, second)
    return day_totals(pair["close_time_ms"], np.stack([a, ones, b, ones], axis=1))


def _losses(pair: pd.DataFrame, score: str, candidate: Candidate) -> FloatArray:
    """A score of one forecast on every candle of a table of pairs, (N,)."""
    given = (pair[name].to_numpy(np.float64) for name in (candidate.p_buy, candidate.p_sell))
    return _SCORES[score](*given, pair["label"].to_numpy(np.float64))


def class_scores(
    traded: pd.DataFrame,
    without_macro: pd.DataFrame | None,
    classes: pd.DataFrame,
    yardstick: Yardstick,
) -> dict[str, Any] | None:
    """How good a run's probabilities were, with macro and without, beside the constant's.

    Parameters
    ----------
    traded, without_macro : signals of the run, and of the network trained without macro or None;
        columns symbol, close_time_ms, p_buy, p_sell.
    classes : as `class_labels.class_table` gives them.
    yardstick : its seed and resamples are those of the intervals, over whole days.

    Returns
    -------
    candles, and for each of log_loss and brier: traded, without_macro and constant (means), and
    over_without, over_constant and without_over_constant (estimates of the difference; negative
    where the first is better); what needs the arm without macro is None without it. None where no
    candle has a label and probabilities.
    """
    bare = traded if without_macro is None else without_macro
    totals: dict[str, list[FloatArray]] = {score: [] for score in SCORES}
    candles = 0
    for pair in _pairs_in_time(traded, bare, classes):
        candles += len(pair)
        for score, parts in totals.items():
            parts.append(_loss_totals(pair, score))
    if candles == 0:
        return None
    found: dict[str, Any] = {"candles": candles}
    for score, parts in totals.items():
        found[score] = _beside(np.concatenate(parts), yardstick)
        if without_macro is None:
            found[score] |= dict.fromkeys(("without_macro", "over_without"))
            found[score] |= {"without_over_constant": None}
    return found


def _pairs_in_time(
    a: pd.DataFrame, b: pd.DataFrame, classes: pd.DataFrame
) -> Iterator[pd.DataFrame]:
    """The pairs of all candles, so many days at a time: joined whole, they would fill memory."""
    own = ["symbol", "close_time_ms", "p_buy", "p_sell"]
    if len(a) == 0:
        return
    stamps = a["close_time_ms"]
    first, end, step = (
        int(stamps.min()) // DAY_MS * DAY_MS,
        int(stamps.max()),
        _DAYS_JOINED * DAY_MS,
    )
    for start in range(first, end + 1, step):
        x, y, known = (
            table.loc[table["close_time_ms"].between(start, start + step - 1), columns]
            for table, columns in ((a, own), (b, own), (classes, list(classes)))
        )
        pair = paired_probabilities(with_classes(x, known), y)
        if len(pair):
            yield pair


def _loss_totals(pair: pd.DataFrame, score: str) -> FloatArray:
    """Per day: summed scores of arms and constant, their differences, candles; (days, 7)."""
    a, b, constant = (_losses(pair, score, candidate) for candidate in (A, B, CONSTANT))
    columns = [a, b, constant, a - b, a - constant, b - constant, np.ones(len(pair))]
    return day_totals(pair["close_time_ms"], np.stack(columns, axis=1))


def _beside(totals: FloatArray, yardstick: Yardstick) -> dict[str, Any]:
    """One score of the two arms and the constant, and their differences from one resampling."""
    sums = totals.sum(axis=0)
    pairs = [(3, 6), (4, 6), (5, 6)]
    gaps = ratio_estimates(totals, pairs, yardstick.seed, yardstick.resamples)
    means = zip(("traded", "without_macro", "constant"), sums[:3] / sums[6], strict=True)
    named = zip(("over_without", "over_constant", "without_over_constant"), gaps, strict=True)
    return {name: float(mean) for name, mean in means} | {name: asdict(gap) for name, gap in named}
