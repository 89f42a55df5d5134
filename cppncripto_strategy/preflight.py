"""Runs that cannot mean anything, found before anything is trained.

Each step looks at a recipe, its candles and the span it trades. What makes a run meaningless is
refused, all of it at once, each in a sentence with the numbers and the setting to change; what is
legal but likely a mistake is a warning in the log. Backtests, checks, experiments, evolutions and
paper sessions all ask here.

Left out: how many sessions are usable (the learner sees their features), and whether a single
candle is sound (the store does).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray
from cppncripto_strategy.errors import CppnError, TrainingError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, Span, ms_to_date, ms_to_utc
from cppncripto_strategy.market import Market, traded_span
from cppncripto_strategy.models.device import resolve_device
from cppncripto_strategy.models.forecasting.panel import MIN_FIT_DAYS
from cppncripto_strategy.models.forecasting.terms import MONTH_DAYS
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.labels import BPS, Labels
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.models.learning.learner import SEED_QUANTILES
from cppncripto_strategy.models.settings import LearnSettings
from cppncripto_strategy.recipe import Recipe

log = logging.getLogger(__name__)

_CLASSES = {1: "buy", -1: "sell", 0: "hold"}


class Finding(NamedTuple):
    """What a step found, in a sentence; `fatal` when the run could not mean anything."""

    text: str
    fatal: bool = True


@dataclass(frozen=True)
class Prospect:
    """A run before it begins.

    Parameters
    ----------
    candles : by symbol.
    span : what is traded, or None where that is not known.
    live : candles of the span are still to come, so none can be missing.
    beside : candles that are read and not traded, by symbol.
    """

    recipe: Recipe
    candles: Mapping[str, Candles]
    span: Span | None
    live: bool = False
    beside: Mapping[str, Candles] = field(default_factory=dict)

    @cached_property
    def learn(self) -> LearnSettings:
        """How the recipe learns."""
        return self.recipe.learn_settings(self.recipe.macro.enabled)

    @cached_property
    def stamps(self) -> list[int]:
        """When networks are trained, UTC ms; none without a span."""
        if self.span is None:
            return []
        return calendar(self.span.start_ms, self.span.end_ms, self.learn.retrain_days)

    @property
    def day(self) -> int:
        """Candles per day."""
        return self.learn.session.day_candles

    @cached_property
    def labels(self) -> list[tuple[CandleGrid, Labels]]:
        """Grid and labels of every symbol that has candles."""
        interval_ms = self.recipe.interval_ms
        grids = [CandleGrid.from_candles(c, interval_ms) for c in self.candles.values() if len(c)]
        return [(grid, self.learn.label.compute(grid)) for grid in grids]


def checked_span(recipe: Recipe, market: Market) -> Span:
    """`market.traded_span`, of a run that can mean something.

    Raises
    ------
    RecipeError
        When the networks are to learn and score on a device that is not there.
    TrainingError
        Naming everything that would make the run meaningless.
    CppnError
        As `traded_span` does, when nothing else is wrong.
    """
    resolve_device(recipe.device)
    try:
        span = traded_span(recipe, market)
    except CppnError as cause:
        problems = _problems(Prospect(recipe, market.candles, None, beside=market.beside))
        if not problems:
            raise
        raise TrainingError(_together([*problems, str(cause)])) from cause
    _require(Prospect(recipe, market.candles, span, beside=market.beside))
    return span


def check_live(recipe: Recipe, market: Market, midnight_ms: int) -> None:
    """Refuse networks for today that could not mean anything.

    Raises
    ------
    TrainingError
        As `checked_span` does.
    """
    today = Span(midnight_ms, midnight_ms + 1)
    _require(Prospect(recipe, market.candles, today, live=True, beside=market.beside))


def _require(prospect: Prospect) -> None:
    problems = _problems(prospect)
    if problems:
        raise TrainingError(_together(problems))


def _problems(prospect: Prospect) -> list[str]:
    """What is fatal; what is not is logged."""
    steps = (
        symbols_traded,
        market_read,
        market_moves,
        horizon_fits,
        validation_left,
        threshold_fills,
        forecasts_learned,
    )
    found = [finding for step in steps for finding in step(prospect)]
    # Labels last: those of an impossible horizon would take as long to make as it is.
    if not any(finding.fatal for finding in found):
        found += label_classes(prospect)
    for finding in found:
        if not finding.fatal:
            log.warning("%s", finding.text)
    return [finding.text for finding in found if finding.fatal]


def _together(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    lines = "".join(f"\n  {number}. {text}" for number, text in enumerate(problems, 1))
    return f"this run could not mean anything, for {len(problems)} reasons:{lines}"


def symbols_traded(prospect: Prospect) -> Iterator[Finding]:
    """A symbol without a candle where it is traded, or where its networks learn."""
    for symbol, candles in prospect.candles.items():
        if len(candles) == 0:
            yield Finding(f"{symbol} has no candle: fetch or import it, or take it out of symbols")
            continue
        if prospect.span is None:
            continue
        times, span = candles.open_time, prospect.span
        first, last = (ms_to_utc(int(times[i])) for i in (0, -1))
        have = f"its {len(times):,} candles open from {first} to {last}"
        if not prospect.live and not _any_in(times, span.start_ms, span.end_ms):
            yield Finding(
                f"{symbol} has no candle in the traded span {_days(span)} ({have}): take it out of"
                " symbols, choose another timerange, or give its candles"
            )
        start, split = _training(prospect, prospect.stamps[0])
        if not _any_in(times, start, split):
            yield Finding(
                f"{symbol} has no candle in the first training days {_days(Span(start, split))}"
                f" ({have}): its networks learn from the other symbols alone. Start the timerange"
                " later, or give earlier candles",
                fatal=len(prospect.candles) == 1,
            )


def market_read(prospect: Prospect) -> Iterator[Finding]:
    """A market symbol without candles where the networks that read it learn or trade."""
    name, span = prospect.recipe.features.market, prospect.span
    if name is None or span is None:
        return
    candles = {**prospect.candles, **prospect.beside}.get(name)
    times = np.empty(0, np.int64) if candles is None else candles.open_time
    places = [("the first training days", Span(*_training(prospect, prospect.stamps[0])))]
    places += [] if prospect.live else [("the traded span", span)]
    for what, part in places:
        present = int(np.count_nonzero((times >= part.start_ms) & (times < part.end_ms)))
        share = present * prospect.recipe.interval_ms / (part.end_ms - part.start_ms)
        if share < 0.5:
            yield Finding(
                f"the market symbol {name} (features.market) has {share:.0%} of the candles of"
                f" {what} {_days(part)}: a day is not embedded unless half of its long window has"
                " them. Give its candles, choose another timerange, or leave features.market out",
                fatal=present == 0,
            )


def market_moves(prospect: Prospect) -> Iterator[Finding]:
    """A market that never moves."""
    if prospect.span is None:
        return
    training = Span(*_training(prospect, prospect.stamps[0]))
    places = ("the first training days", training), ("the traded span", prospect.span)
    for symbol, candles in prospect.candles.items():
        for what, span in places:
            closes = candles.between(span.start_ms, span.end_ms).close
            if len(closes) > 1 and (closes == closes[0]).all():
                yield Finding(
                    f"{symbol} never moves in {what} {_days(span)}: all {len(closes):,} closes are"
                    f" {closes[0]:g}. Look at its candles, take it out of symbols, or choose"
                    " another timerange",
                    fatal=span is training,
                )


def forecasts_learned(prospect: Prospect) -> Iterator[Finding]:
    """Positions sized by a forecast that nothing can be learned from."""
    learn, needed = prospect.learn, MIN_FIT_DAYS + MONTH_DAYS // 2
    days = learn.train_days + learn.validate_days + learn.session.warmup // prospect.day
    if prospect.recipe.strategy.sizing == "volatility" and days < needed:
        yield Finding(
            f'strategy.sizing = "volatility" needs a forecast, and {days} days of candles before a'
            f" training teach none ({needed} are needed): every entry would be refused. Raise"
            f" walkforward.train_days = {learn.train_days}, or size by a fraction"
        )


def horizon_fits(prospect: Prospect) -> Iterator[Finding]:
    """A horizon beyond the training days."""
    learn = prospect.learn
    horizon, rows = learn.label.horizon, learn.train_days * prospect.day
    if horizon >= rows:
        yield Finding(
            f"label.horizon = {horizon:,} candles reaches beyond the {rows:,} candles of"
            f" walkforward.train_days = {learn.train_days}: no label would be known before they"
            f" end. Lower label.horizon below {rows:,}, or raise walkforward.train_days"
        )


def validation_left(prospect: Prospect) -> Iterator[Finding]:
    """An embargo, or a horizon, as long as the validation days."""
    learn, day = prospect.learn, prospect.day
    memory, field = learn.session.table.memory, learn.micro_settings().receptive_field
    lost = memory + field + learn.label.horizon
    rows = learn.validate_days * day
    if rows <= lost:
        yield Finding(
            f"walkforward.validate_days = {learn.validate_days} is {rows:,} candles, of which the"
            f" first {memory + field:,} are embargoed ({memory:,} of feature memory, {field:,} of"
            f" short window) and the last {learn.label.horizon:,} (label.horizon) have no label"
            " yet: none is left to validate on. Raise walkforward.validate_days to at least"
            f" {lost // day + 1:,}, or lower label.horizon"
        )


def threshold_fills(prospect: Prospect) -> Iterator[Finding]:
    """A window of scores that can never fill, because each new bundle starts it afresh."""
    settings, learn = prospect.recipe.threshold.settings(), prospect.learn
    if settings.mode == "static":
        return
    period = learn.retrain_days * prospect.day
    spans = [period] if learn.retrain == "calendar" or not learn.use_macro else []
    if prospect.span is not None and not prospect.live:
        span = prospect.span
        spans.append((span.end_ms - span.start_ms) // prospect.recipe.interval_ms)
    reach = SEED_QUANTILES + min(spans, default=settings.window)
    why = (
        f"a bundle brings {SEED_QUANTILES} scores and meets {reach - SEED_QUANTILES:,} candles"
        " before it is replaced or the run ends"
    )
    if settings.least_scores > reach:
        yield Finding(
            f"threshold.window = {settings.window:,} needs {settings.least_scores:,} scores before"
            f" the first signal, and {why}: no signal could ever come. Lower threshold.window to at"
            f" most {7 * reach:,}"
        )
    elif settings.window > reach:
        yield Finding(
            f"threshold.window = {settings.window:,} never fills: {why}, so the quantiles are made"
            f" of at most {reach:,} scores. Lower threshold.window, or raise"
            " walkforward.retrain_days",
            fatal=False,
        )


def label_classes(prospect: Prospect) -> Iterator[Finding]:
    """Labels all of one class: a network that always says the same has learned them."""
    if prospect.recipe.micro.head != "classes":
        return
    for stamp in prospect.stamps:
        start, split = _training(prospect, stamp)
        for what, span in (("training", Span(start, split)), ("validation", Span(split, stamp))):
            targets, moves = _labels_in(prospect, span)
            if len(targets) and (targets == targets[0]).all():
                fatal = what == "training"
                yield Finding(_one_class(prospect, what, span, targets, moves), fatal)
                if fatal:
                    return  # later bundles have the same cause


def _labels_in(prospect: Prospect, span: Span) -> tuple[IntArray, FloatArray]:
    """Targets and forward returns of all symbols that are known inside a span."""
    targets, moves = [np.empty(0, np.int64)], [np.empty(0)]
    for grid, labels in prospect.labels:
        close = grid.close_time
        known = close + labels.horizon * grid.interval_ms <= span.end_ms
        inside = labels.valid & known & (close >= span.start_ms)
        targets.append(labels.target[inside].astype(np.int64))
        moves.append(labels.forward_return[inside])
    return np.concatenate(targets), np.concatenate(moves)


def _one_class(
    prospect: Prospect, what: str, span: Span, targets: IntArray, moves: FloatArray
) -> str:
    label, only = prospect.recipe.label, int(targets[0])
    largest = float(np.abs(moves).max()) / BPS
    name = {"fixed": "threshold_bps", "barrier": "barrier_bps"}.get(label.kind)
    if only == 0 and name is not None:
        fix = f"lower label.{name} = {getattr(label, name):g}, or raise label.horizon"
    elif label.kind == "trade" and only == 0:
        fix = "no trade pays its costs: raise label.horizon, or lower broker.fee_bps"
    else:
        days = "train_days" if what == "training" else "validate_days"
        fix = f"raise walkforward.{days}, or change [label]"
    return (
        f"all {len(targets):,} labels of the {what} days {_days(span)} are {_CLASSES[only]!r} (the"
        f" largest move within label.horizon = {label.horizon} candles is {largest:.1f} bps):"
        f" nothing can be learned from them; {fix}"
    )


def _training(prospect: Prospect, stamp_ms: int) -> tuple[int, int]:
    """Start and end of the training days before a stamp, UTC ms."""
    split = stamp_ms - prospect.learn.validate_days * DAY_MS
    return split - prospect.learn.train_days * DAY_MS, split


def _any_in(times: IntArray, start_ms: int, end_ms: int) -> bool:
    return bool(((times >= start_ms) & (times < end_ms)).any())


def _days(span: Span) -> str:
    return f"{ms_to_date(span.start_ms)} to {ms_to_date(span.end_ms)}"
