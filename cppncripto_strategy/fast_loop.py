"""The loop over bars under runonce, without the bars at which nothing can happen.

Under runonce every line exists before the loop begins. So after each step the strategy's rules say
which bar could be the next to need a decision; feeds, indicators and the strategy's own time are
moved to the bar before it, and Cerebro's loop takes that bar as always: the same feeds, broker and
strategy code run, only fewer times. A bar too many costs time and changes nothing; a bar too few
would change results, so whatever this module does not know makes the loop take every bar.

What it knows: an order that waits, or a notification, needs every bar; without a position an entry
needs a signal after the cooldown; a position is left by an exit that is sent again, a signal
against it after `min_hold`, the holding limit (by stamps, so that gaps count), or a close beyond
the stop; `renew_hold` needs the signals in the position's direction; a position that may be dust
needs what either case needs; a day's first bar is needed where somebody looks at it. What a symbol
needs changes only at a bar that was taken for it, so an account of many symbols asks only those,
and at a bar only they decide. Shadow signals are judged a day at a time, when the day is over.

Left out: streaming and live runs (they have no lines ahead), and other strategies, feeds and
brokers.
"""

from __future__ import annotations

import inspect
import logging
from array import array
from bisect import bisect_left
from typing import Any

import numpy as np

from cppncripto_strategy.arrays import FloatArray, IntArray, union_of_ascending
from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.evaluation.shadow import KnownOutcomes
from cppncripto_strategy.feeds.clock import DAY_MS, nums_to_ms
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.lines import past_view
from cppncripto_strategy.models.scoring.threshold import signals_of
from cppncripto_strategy.runonce import indicator_clocks

log = logging.getLogger(__name__)

NEVER = 2**62
"""A bar, or a step, that never comes."""
_STOP_WINDOW = 64
"""Closes compared with a stop at a time; the window doubles while none is beyond it."""
_FREE_HOOKS = {"__init__", "rollover", "start", "stop", "refresh_tables"}
"""What a subclass may override: it is called at bars that are taken anyway, or outside the loop."""
_BACKTRADER_HOOKS = {"nextstart", "notify_trade", "notify_cashvalue", "notify_fund"} | {
    "notify_timer",
    "notify_data",
    "notify_store",
}


def why_every_bar(strategy: Any, base: type) -> str:
    """Why each bar has to be taken, for a person; empty where bars may be passed over.

    Parameters
    ----------
    strategy : a `MacroMicroStrategy` under runonce, after its first step.
    base : the class whose decisions this module knows.
    """
    cerebro, broker = strategy.cerebro, strategy.broker
    overridden = _overridden(type(strategy), base)
    feeds = [data for data in strategy.datas if not _is_preloaded(data)]
    reasons = (
        (strategy.p.plain_loop, "it was asked for"),
        (overridden, f"{type(strategy).__name__} overrides {', '.join(overridden)}"),
        (strategy._quick_step is None, "an observer, an analyzer or an indicator looks at each"),
        (len(cerebro.runningstrats) > 1, "there is another strategy"),
        (cerebro.runwriters, "there is a writer"),
        (cerebro._pretimers or cerebro._timers or cerebro._timerscheat, "there is a timer"),
        (cerebro.p.cheat_on_open, "cheat_on_open looks at each open"),
        (type(broker) is not SpotBroker, f"the broker is a {type(broker).__name__}"),
        (feeds, f"{', '.join(str(data._name) for data in feeds)}: no preloaded ReplayFeed"),
        (not all(s.lines.keeps_past for s in strategy.states), "lines forget their past"),
        (not _clocks_come_first(strategy), "an indicator is older than what it hangs on"),
    )
    return next((reason for holds, reason in reasons if holds), "")


def _overridden(own: type, base: type) -> list[str]:
    """Names of the functions that a subclass replaced, and whose effect is not known here."""
    functions = {name for name, value in vars(base).items() if inspect.isfunction(value)}
    names = sorted((functions | _BACKTRADER_HOOKS) - _FREE_HOOKS)
    return [name for name in names if getattr(own, name, None) is not getattr(base, name, None)]


def _is_preloaded(data: Any) -> bool:
    """Whether a feed lies in memory as it will be, its stamps ascending."""
    if type(data) is not ReplayFeed or not data._preloaded:
        return False
    return bool((np.diff(_stamps_of(data)) > 0).all())


def _clocks_come_first(strategy: Any) -> bool:
    """Whether each indicator's clock is moved before it, so that none lags a bar behind."""
    moved = {id(line) for data in strategy.datas for line in data.lines}
    for clock, buffers in indicator_clocks(strategy):
        if id(clock) not in moved:
            return False
        moved.update(id(line) for line in buffers)
    return True


def _stamps_of(data: Any) -> FloatArray:
    """Stamps of all bars of a preloaded feed, Backtrader day numbers."""
    return past_view(data.lines.datetime, data.buflen())


def _steps_of(merged: FloatArray, stamps: FloatArray) -> IntArray:
    """The step at which each of a feed's stamps, which are all among the merged, is new, (N,)."""
    whole = len(stamps) == len(merged)
    return np.arange(len(stamps)) if whole else np.searchsorted(merged, stamps)


def _bars_after(merged: FloatArray, stamps: FloatArray) -> IntArray:
    """A feed's bars after each step, (M,)."""
    new = np.zeros(len(merged), dtype=np.int64)
    new[_steps_of(merged, stamps)] = 1
    return np.cumsum(new)


def _whole(values: IntArray, code: str = "i") -> array[int]:
    """Whole numbers that are read one by one: quicker than numpy, smaller than a list."""
    return array(code, values.astype(code).tobytes())


class _Symbol:
    """What lies ahead of one symbol, by bar number; lives as long as the loop.

    Attributes
    ----------
    stamps : UTC ms of each bar's close; steps : the loop's step at which each bar is new.
    signals, sides, buys, sells : bars with a signal and which (+1, -1), those to buy and to sell.
    """

    def __init__(self, state: Any, merged: FloatArray, broker: SpotBroker) -> None:
        data = state.data
        stamps = _stamps_of(data)
        stamps_ms = nums_to_ms(stamps)
        lines = state.lines.columns(len(stamps))
        side = signals_of(lines["traded"], lines["upper"], lines["lower"])
        self.state, self.close = state, lines["close"]
        self.stamps = _whole(stamps_ms, "q")
        self.steps = _whole(_steps_of(merged, stamps))
        self.signals: list[int] = np.flatnonzero(side).tolist()
        self.sides: list[int] = side[side != 0].tolist()
        self.buys: list[int] = np.flatnonzero(side > 0).tolist()
        self.sells: list[int] = np.flatnonzero(side < 0).tolist()
        # 0 where a close is unknown: then nothing is sure whatever the price.
        low, high = float(self.close.min()), float(self.close.max())
        self._low, self._high = (low, high) if low > 0 else (0.0, 0.0)
        self._broker, self._filters = broker, broker.filters_of(data)
        # From here on the loop judges the shadow signals, and no longer each decision.
        self._shadow, state.shadow = state.shadow, None
        self._judged = int(state.bars)
        if self._shadow is not None:
            self._outcomes = KnownOutcomes(self._shadow.measure, stamps_ms, self.close, side)

    def next_step(self, now: int, p: Any) -> int:
        """The first step after `now` at which the strategy's rules could do anything.

        Parameters
        ----------
        p : the strategy's params.
        """
        order = self.state.order
        if order is not None and order.alive():
            return now + 1
        bar = self.next_bar(p)
        return max(now + 1, self.steps[bar]) if bar < len(self.steps) else NEVER

    def next_bar(self, p: Any) -> int:
        """The first bar not decided on yet at which the strategy's rules could do anything.

        Parameters
        ----------
        p : the strategy's params.
        """
        state = self.state
        position = self._broker.positions.get(state.data)
        size = position.size if position is not None else 0.0
        held = self._held(size)
        entry = NEVER if held == "surely" else self._next_entry(p.allow_short)
        leave = NEVER if held == "no" else self._next_exit(p, size)
        return min(entry, leave)

    def _held(self, size: float) -> str:
        """Whether a size is a position: "surely" or "no" whatever the price; else "maybe"."""
        size, filters = abs(size), self._filters
        if not size:
            return "no"
        enough = size > 2.0 * float(filters.min_qty)  # as the broker's own first look at dust
        if self._low and enough and size * self._low > 2.0 * float(filters.min_notional):
            return "surely"
        if not self._high or (enough and size * self._high > 2.0 * float(filters.min_notional)):
            return "maybe"
        quantity = filters.floor_quantity(size)
        dust = quantity == 0.0 or not filters.notional_is_enough(quantity, self._high)
        return "no" if dust else "maybe"

    def _next_entry(self, allow_short: bool) -> int:
        state = self.state
        first = max(state.bars, self._first_at(state.no_entry_before_ms))
        return _from(self.signals if allow_short else self.buys, first)

    def _next_exit(self, p: Any, size: float) -> int:
        state, bar = self.state, int(self.state.bars)
        if state.exit_reason:
            return bar  # sent again at the next bar, whatever that is
        against, along = (self.sells, self.buys) if size > 0 else (self.buys, self.sells)
        step_ms, since_ms = state.interval_ms, state.entry_open_ms
        first: int = _from(against, max(bar, self._first_at(since_ms + p.min_hold * step_ms)))
        if p.hold_candles:
            first = min(first, max(bar, self._first_at(since_ms + p.hold_candles * step_ms)))
        if p.renew_hold:
            first = min(first, _from(along, bar))
        if p.stop_pct:
            first = min(first, self._next_stop(bar, first, 1 if size > 0 else -1, p.stop_pct))
        return first

    def _next_stop(self, bar: int, before: int, direction: int, stop_pct: float) -> int:
        """The first bar, and before the one given, whose close is beyond the stop."""
        end, window = min(before, len(self.close)), _STOP_WINDOW
        while bar < end:
            part = self.close[bar : min(bar + window, end)]
            # The operations of the strategy's own rule, so that a tie falls on the same side.
            moved = direction * (part / self.state.entry_price - 1.0)
            beyond = np.flatnonzero(moved <= -stop_pct / 100.0)
            if len(beyond):
                return bar + int(beyond[0])
            bar, window = bar + window, 2 * window
        return NEVER

    def _first_at(self, stamp_ms: int) -> int:
        """The first bar that closes at or after a stamp."""
        return bisect_left(self.stamps, stamp_ms)

    def judge_shadows(self, until_bar: int, session_ms: int, is_over: bool = True) -> None:
        """Judge the shadow signals of the bars before `until_bar`, all of them of one day.

        Parameters
        ----------
        session_ms : 00:00 UTC of that day. is_over : whether no bar of it is to come.
        """
        shadow, bar = self._shadow, self._judged
        if shadow is None or bar >= until_bar:
            return
        self._judged = until_bar
        if is_over and shadow.is_fresh():
            shadow.take(self._outcomes.between(bar, until_bar))
            return
        # The day in which the loop begins, or the run ends: what still waits is in the state.
        number = bisect_left(self.signals, bar)
        while True:
            signal = self.signals[number] if number < len(self.signals) else NEVER
            bar = min(signal, max(bar, self._first_at(shadow.due_ms)))
            if bar >= until_bar:
                return
            side = 0
            if bar == signal:
                side, number = self.sides[number], number + 1
            shadow.see(bar, self.stamps[bar], float(self.close[bar]), side, session_ms)
            bar += 1


def _from(bars: list[int], first: int) -> int:
    """The first of ascending bar numbers that is not before `first`."""
    place = bisect_left(bars, first)
    return bars[place] if place < len(bars) else NEVER


class FastLoop:
    """Moves a run on to the bar before the next one that matters; lives as long as the run.

    Parameters
    ----------
    strategy : a `MacroMicroStrategy` of which `why_every_bar` says nothing.
    looks_at_days : whether the first bar of each UTC day is taken.
    asks_all : whether somebody else may change what a symbol needs: then all decide at each bar.

    Attributes
    ----------
    steps : steps of the whole run; passed : those that were not taken, so far.
    """

    def __init__(self, strategy: Any, looks_at_days: bool, asks_all: bool = False) -> None:
        self._strategy, self._broker = strategy, strategy.broker
        feeds = [(data, _stamps_of(data)) for data in strategy.datas]
        merged = union_of_ascending([stamps for _, stamps in feeds])
        self._merged = merged
        # Each feed's lines, and its bars after each step.
        self._feeds: list[tuple[list[Any], array[int]]] = [
            (list(data.lines), _whole(_bars_after(merged, stamps))) for data, stamps in feeds
        ]
        of_feed = {id(data): bars for (data, _), (_, bars) in zip(feeds, self._feeds, strict=True)}
        self._symbols = [
            (_Symbol(state, merged, self._broker), of_feed[id(state.data)])
            for state in strategy.states
        ]
        self._stamps: IntArray = nums_to_ms(merged)
        self._days = [*self._first_steps_of_days(), NEVER]
        self._day = bisect_left(self._days, strategy.lines.datetime.lencount)  # the next to begin
        # The account adds positions up in the order in which symbols first had a bar.
        listed = sorted((symbol.steps[0], n) for n, (symbol, _) in enumerate(self._symbols))
        self._unlisted = [(step, strategy.states[n].data) for step, n in listed]
        self._coming = [0] * len(self._symbols)  # the step that each symbol needs next
        self._looks_at_days, self._asks_all = looks_at_days, asks_all
        self.steps, self.passed = len(merged), 0

    def _first_steps_of_days(self) -> list[int]:
        """Steps at which a UTC day begins for the symbols that are traded."""
        parts = [np.frombuffer(symbol.steps, dtype=np.intc) for symbol, _ in self._symbols]
        steps = union_of_ascending(parts)
        days = self._stamps[steps] // DAY_MS
        first = np.flatnonzero(np.diff(days, prepend=-1))
        return [int(step) for step in steps[first]]

    def jump(self) -> None:
        """After a step: pass over the bars at which nothing can happen."""
        now = self._strategy.lines.datetime.lencount - 1
        if now + 1 < self.steps:
            target = self._next_step(now)
            self._begin_days(target)
            if target > now + 1:
                self._pass_over(now, target)
            self._say_who_decides(target)

    def report(self) -> None:
        """At the end of the run: judge what is left, and log how many steps it took."""
        for symbol, _ in self._symbols:
            symbol.judge_shadows(symbol.state.bars, self._strategy._session_ms, is_over=False)
        taken = self.steps - self.passed
        log.info("the run took %d of %d bars: at the others nothing happens", taken, self.steps)

    def _next_step(self, now: int) -> int:
        """The step to be taken next; the last one always is."""
        broker, p, coming = self._broker, self._strategy.p, self._coming
        for number, (symbol, _) in enumerate(self._symbols):
            if symbol.state.decides:  # nothing else changes what it needs
                coming[number] = symbol.next_step(now, p)
        if broker.pending or broker.submitted or broker.notifs or broker._toactivate:
            return now + 1
        target = min(self.steps - 1, *coming)
        return min(target, self._days[self._day]) if self._looks_at_days else target

    def _say_who_decides(self, target: int) -> None:
        """All symbols at a day's first bar, a symbol's first, and the last; else who needs it."""
        unlisted = bool(self._unlisted) and self._unlisted[0][0] <= target
        begins = self._days[self._day - 1] == target
        everybody = self._asks_all or unlisted or begins or target == self.steps - 1
        for (symbol, _), step in zip(self._symbols, self._coming, strict=True):
            symbol.state.decides = everybody or step <= target

    def _pass_over(self, now: int, target: int) -> None:
        """Leave everything as it is after the step before `target`.

        Indicators follow their clocks at the next step, see `runonce.QuickStep`.
        """
        strategy, last = self._strategy, target - 1
        while self._unlisted and self._unlisted[0][0] < target:
            self._broker.getposition(self._unlisted.pop(0)[1])
        for lines, bars in self._feeds:
            _move(lines, bars[last] - lines[0].lencount)
        times = strategy.lines.datetime
        times.array.extend(array("d", self._merged[now + 1 : target].tobytes()))
        times._idx += last - now
        times.lencount += last - now
        self.passed += last - now

    def _begin_days(self, target: int) -> None:
        """Judge the shadows of each day that is over by `target`; begin those passed over."""
        strategy = self._strategy
        while (step := self._days[self._day]) <= target:
            for symbol, bars in self._symbols:
                symbol.judge_shadows(bars[step - 1], strategy._session_ms)
            if step < target and strategy.meter is not None:
                strategy._begin_session(int(self._stamps[step]))
            self._day += 1


def _move(lines: list[Any], bars: int) -> None:
    """Move line buffers on by so many bars."""
    for line in lines:
        line._idx += bars
        line.lencount += bars


def fast_loop(strategy: Any, base: type) -> FastLoop | None:
    """The loop that passes bars over, or None where each has to be taken; the log says why.

    Parameters
    ----------
    strategy, base : as for `why_every_bar`.
    """
    reason = why_every_bar(strategy, base)
    if reason:
        log.info("the run takes every bar: %s", reason)
        return None
    watched = type(strategy).rollover is not base.rollover  # type: ignore[attr-defined]
    return FastLoop(strategy, watched or bool(strategy.p.max_daily_loss_pct), asks_all=watched)
