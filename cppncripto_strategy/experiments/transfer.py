"""Does what was learned on some symbols hold on another that was never seen?

For every symbol three networks score it over the same span: one that learned from it alone, one
that learned from all the others, and one that learned from all. All are trained by the same
walk-forward, so the span is out of sample for each of them.

Left out: trading. Hit ratios at signals and over all candles say what the networks know; costs are
the backtest's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.evaluation.statistics import DEFAULT_RESAMPLES, day_totals, ratio_estimates
from cppncripto_strategy.evaluation.superiority import confidence_set, superiority
from cppncripto_strategy.experiments.family import Family
from cppncripto_strategy.experiments.page import family_section
from cppncripto_strategy.experiments.runner import RecipeRunner, setups_of
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.market import session_tables
from cppncripto_strategy.models.bundle import BundleTimeline
from cppncripto_strategy.models.device import resolve_device
from cppncripto_strategy.models.inputs.sessions import SessionTable
from cppncripto_strategy.models.learning.walkforward import walk_forward
from cppncripto_strategy.models.scoring.batch import embed_sessions, score_sessions
from cppncripto_strategy.models.scoring.threshold import (
    ScoreThreshold,
    ThresholdSettings,
    signals_of,
)
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.preflight import checked_span
from cppncripto_strategy.progress import Progress
from cppncripto_strategy.reports.blocks import Section, Table
from cppncripto_strategy.reports.pages import write_page
from cppncripto_strategy.reports.values import MISSING, interval, settings_rows
from cppncripto_strategy.results import to_plain

# What a network learned from, in the order of `training_sets`.
ROLES = ("the symbol itself", "the others", "all symbols")
COIN = "a coin"


@dataclass(frozen=True)
class TransferPlan:
    """What is tried.

    Parameters
    ----------
    learn : how every network learns; its label's horizon judges the scores.
    threshold : how scores become signals.
    start_ms, end_ms : span scored, UTC milliseconds, end exclusive.
    seed : of training and intervals.
    cache : folder of finished bundles, or None.
    """

    learn: LearnSettings
    threshold: ThresholdSettings
    start_ms: int
    end_ms: int
    seed: int = 0
    cache: Path | None = None


@dataclass(frozen=True, eq=False)
class Transfer:
    """What was found.

    Parameters
    ----------
    table : one row per symbol, training set and place, as `transfer_table` says.
    family : the three training sets against a coin, all at once, by each day's share of hits over
        all candles and symbols, less one half.
    """

    table: pd.DataFrame
    family: Family

    def to_plain(self) -> dict[str, object]:
        """Plain values for JSON: words first."""
        family = self.family.to_plain()
        words = family.pop("words")
        return {"words": words, "family": family, "rows": to_plain(self.table.to_dict("records"))}


def recipe_transfer(runner: RecipeRunner, progress: Progress | None = None) -> Transfer:
    """What transfers between a recipe's symbols."""
    recipe, market = runner.recipe, runner.market()
    span = checked_span(recipe, market)
    settings = recipe.learn_settings(recipe.macro.enabled)
    tables = {t.symbol: t for t in session_tables(market, settings.session)}
    plan = TransferPlan(
        learn=settings,
        threshold=recipe.threshold.settings(),
        start_ms=span.start_ms,
        end_ms=span.end_ms,
        seed=recipe.seed,
        cache=runner.cache,
    )
    return transfer_table(tables, plan, setups_of(market), progress)


def transfer_table(
    tables: Mapping[str, SessionTable],
    plan: TransferPlan,
    setups: Mapping[str, IntArray] | None = None,
    progress: Progress | None = None,
    resamples: int = DEFAULT_RESAMPLES,
) -> Transfer:
    """Score every symbol with networks that did and did not learn from it.

    Parameters
    ----------
    tables : session tables by symbol, at least two.
    setups : symbol -> close times (UTC ms) of planted setups, where the market is planted.

    Returns
    -------
    Its table has one row per symbol and training set: scored, learned_from, seen (whether the
    symbol was among them), where ("all", "signals", "setups"), candles, hit, low, high.

    Raises
    ------
    RecipeError
        With fewer than two symbols there is nothing to transfer between.
    """
    if len(tables) < 2:
        raise RecipeError(
            f"transfer needs at least two symbols, the recipe names {list(tables)}: add one"
        )
    symbols = list(tables)
    sets = list(dict.fromkeys(names for s in symbols for names in training_sets(s, symbols)))
    rows: list[dict[str, object]] = []
    daily: dict[str, list[pd.DataFrame]] = {role: [] for role in ROLES}
    for number, names in enumerate(sets):
        report = _share(progress, number, len(sets), "+".join(names))
        timeline = _trained([tables[name] for name in names], plan, report)
        for symbol in symbols:
            mine = training_sets(symbol, symbols)
            if names in mine:
                known = None if setups is None else setups.get(symbol)
                judged, hits = _judge(tables[symbol], timeline, plan, known, resamples)
                about = {"scored": symbol, "learned_from": "+".join(names), "seen": symbol in names}
                rows.extend({**about, **row} for row in judged)
                daily[ROLES[mine.index(names)]].append(hits)
    rows.sort(key=lambda row: symbols.index(str(row["scored"])))
    return Transfer(pd.DataFrame(rows), _family(daily, plan.seed))


def _family(daily: Mapping[str, Sequence[pd.DataFrame]], seed: int) -> Family:
    """The training sets against a coin, from hits and candles of each day and symbol."""
    shares = day_shares(daily)
    rows = pd.concat(shares, axis=1, join="inner").dropna().to_numpy(np.float64).T
    return Family(
        benchmark=COIN,
        against_benchmark=superiority(rows, ROLES, np.zeros(rows.shape[1]), COIN, seed),
        against_cash=None,
        best=confidence_set(rows, ROLES, seed),
        arms=ROLES,
    )


def day_shares(daily: Mapping[str, Sequence[pd.DataFrame]]) -> dict[str, pd.Series[float]]:
    """Per training set, each day's share of hits over the candles of all symbols, less one half."""
    sums = {role: pd.concat(list(parts)).groupby(level=0).sum() for role, parts in daily.items()}
    return {role: table["hits"] / table["candles"] - 0.5 for role, table in sums.items()}


def _trained(
    tables: Sequence[SessionTable], plan: TransferPlan, progress: Progress
) -> BundleTimeline:
    return walk_forward(
        tables, plan.start_ms, plan.end_ms, plan.learn, plan.seed, plan.cache, progress
    )


def _share(progress: Progress | None, number: int, parts: int, name: str) -> Progress:
    """The callback of one part of the work, as a callback of the whole."""

    def report(done: int, total: int, text: str) -> None:
        if progress is not None:
            thousandths = round(1000 * (number + done / max(total, 1)))
            progress(thousandths, 1000 * parts, f"{name}: {text}")

    return report


def training_sets(symbol: str, symbols: Sequence[str]) -> list[tuple[str, ...]]:
    """What a symbol's networks learn from: itself, all others, all."""
    others = tuple(name for name in symbols if name != symbol)
    return [(symbol,), others, tuple(symbols)]


def _judge(
    table: SessionTable,
    timeline: BundleTimeline,
    plan: TransferPlan,
    setups: IntArray | None,
    resamples: int,
) -> tuple[list[dict[str, object]], pd.DataFrame]:
    """Hit ratios of one symbol under one timeline, with day-block intervals; hits and candles of
    each day, over all candles."""
    device = resolve_device(plan.learn.device)
    scored = score_sessions(table, timeline, embed_sessions(table, timeline, device), device)
    forward = plan.learn.label.compute(table.grid).forward_return
    close_ms = table.grid.close_time
    inside = (close_ms >= plan.start_ms) & (close_ms < plan.end_ms)
    known = inside & np.isfinite(scored.score) & np.isfinite(forward)
    signal = _signals(scored.score, close_ms, inside, timeline, plan.threshold)
    places = {"all": known, "signals": known & (signal != 0)}
    if setups is not None:
        places["setups"] = known & np.isin(close_ms, setups)
    rows = []
    for where, at in places.items():
        hit = (np.sign(scored.score[at]) == np.sign(forward[at])).astype(np.float64)
        totals = day_totals(close_ms[at], np.stack([hit, np.ones_like(hit)], axis=1))
        estimate = ratio_estimates(totals, [(0, 1)], plan.seed, resamples)[0]
        rows.append(
            {
                "where": where,
                "candles": int(at.sum()),
                "hit": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
            }
        )
    return rows, _daily_hits(scored.score[known], forward[known], close_ms[known])


def _daily_hits(score: FloatArray, forward: FloatArray, close_ms: IntArray) -> pd.DataFrame:
    """Hits and candles, indexed by UTC day."""
    hits = (np.sign(score) == np.sign(forward)).astype(np.float64)
    table = pd.DataFrame({"hits": hits, "candles": 1.0}, index=close_ms // DAY_MS)
    return table.groupby(level=0).sum()


def _signals(
    score: FloatArray,
    close_ms: IntArray,
    inside: NDArray[np.bool_],
    timeline: BundleTimeline,
    settings: ThresholdSettings,
) -> IntArray:
    """Signals (T,) of the streaming threshold, seeded by the first bundle, over the scored span."""
    threshold = ScoreThreshold(settings)
    threshold.seed(timeline.bundles[0].score_seed)
    upper, lower = np.full((2, len(score)), np.nan)
    for row in np.flatnonzero(inside):
        upper[row], lower[row] = threshold.update(float(score[row]), int(close_ms[row]))
    return signals_of(score, upper, lower)


def write_transfer_page(found: Transfer, path: Path, about: Mapping[str, object]) -> None:
    """Write what was found as a self-contained page."""
    sections = [
        family_section(found.family, "each day's share of hits over all candles"),
        Section(
            "Does it transfer?",
            Table(*readable(found.table), text=[1]),
            note="Share of scores whose sign was the sign of the move at the label horizon, with"
            " 95 % intervals from resampling whole days. A network that never saw the symbol and"
            " hits as often as one that did has learned something that symbols share.",
        ),
        Section("How it was run", Table(["", ""], settings_rows(about), text=[1])),
    ]
    write_page(path, "Transfer between symbols", sections)


def readable(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Heading and rows as text: one row per scored symbol and training set."""
    places = [where for where in ("setups", "signals", "all") if (table["where"] == where).any()]
    head = ["Scored", "Learned from", "Seen", *(f"Hit, {where}" for where in places)]
    rows = []
    for key, part in table.groupby(["scored", "learned_from", "seen"], sort=False):
        scored, learned_from, seen = (str(item) for item in key)
        cells = {str(row["where"]): _cell(row) for _, row in part.iterrows()}
        rows.append(
            [
                scored,
                learned_from,
                "yes" if seen == "True" else "no",
                *(cells.get(where, MISSING) for where in places),
            ]
        )
    return head, rows


def _cell(row: pd.Series) -> str:
    values = {k: None if pd.isna(row[k]) else float(row[k]) for k in ("hit", "low", "high")}
    return interval({"value": values["hit"], "low": values["low"], "high": values["high"]})
