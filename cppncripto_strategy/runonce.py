"""A shorter step after each bar under runonce, for a strategy that nobody else listens to.

Backtrader's own step walks through observers, analyzers, notifications and every line of the
strategy. Where none of them would notice, it is enough to move the indicators along and decide.
Left out: runs bar by bar (runonce=False, live), which keep Backtrader's step.
"""

from __future__ import annotations

import itertools
from array import array
from typing import Any

import backtrader as bt

_HOOKS = ("next", "prenext", "nextstart", "notify_cashvalue", "notify_fund", "clear")


class QuickStep:
    """The step after a bar: indicators move along, notifications are delivered, `next` decides."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy
        self._clocks = indicator_clocks(strategy)

    def __call__(self, dt: float) -> None:
        """Take the step to the bar stamped `dt` (Backtrader day number)."""
        strategy = self._strategy
        for clock, buffers in self._clocks:
            bars = clock.lencount - buffers[0].lencount  # more than one where bars were passed over
            if bars:
                for line in buffers:
                    line._idx += bars
                    line.lencount += bars
        strategy.lines.datetime.forward(dt)
        if strategy._orderspending or strategy._tradespending:
            self._notify()
            strategy.next()
            strategy.clear()
        else:
            strategy.next()

    def _notify(self) -> None:
        """As Backtrader's, which calls hooks, analyzers and account beside `notify_order`."""
        strategy = self._strategy
        if not getattr(strategy, "hears_only_ends", False):
            strategy._notify()
            return
        for order in strategy._orderspending:
            strategy.notify_order(order)


def quick_step(strategy: Any, base: type, scores: list[Any]) -> QuickStep | None:
    """The shorter step, or None where somebody needs the whole one.

    Parameters
    ----------
    base : class whose hooks may be skipped; a subclass that overrides one needs the whole step.
    scores : the strategy's score indicators; their own `advance` may take a macro along, which
        the shorter step does already.
    """
    plain = all(getattr(type(strategy), hook) is getattr(base, hook) for hook in _HOOKS)
    watchers = [*strategy.analyzers, *strategy._slave_analyzers]
    at_stop = all(getattr(watcher, "only_at_stop", False) for watcher in watchers)
    only_ours = strategy.lines.fullsize() == 1 and not strategy._oldsync
    known = {bt.Indicator.advance, *(type(score).advance for score in scores)}
    ordinary = all(
        type(indicator).advance in known
        for indicator in strategy._lineiterators[bt.LineIterator.IndType]
        if isinstance(indicator, bt.Indicator)
    )
    alone = at_stop and only_ours and not len(strategy.observers)
    return QuickStep(strategy) if plain and ordinary and alone else None


def hears_only_orders(strategy: Any) -> bool:
    """Whether a strategy of the shorter step is all that hears of its orders, in `notify_order`."""
    return not (strategy.analyzers or strategy._slave_analyzers or strategy.cerebro.p.quicknotify)


def give_up_lines(strategy: Any, but: list[Any]) -> None:
    """Empty the lines of all indicators and feeds, but these: nobody reads them any more."""
    kept = {id(line) for line in but}
    buffers = [list(data.lines) for data in strategy.datas]
    buffers += [own for _, own in indicator_clocks(strategy)]
    for line in itertools.chain.from_iterable(buffers):
        if id(line) not in kept and line.mode == line.UnBounded:
            line.array = array("d")


def indicator_clocks(strategy: Any) -> list[tuple[Any, list[Any]]]:
    """Each indicator's clock and buffers, the nested ones behind those that own them.

    Backtrader itself leaves nested indicators behind under runonce.
    """
    waiting, clocks = list(strategy._lineiterators[bt.LineIterator.IndType]), []
    for indicator in waiting:
        clocks.append((indicator._clock.lines[0], list(indicator.lines)))
        nested = getattr(indicator, "_lineiterators", {})
        waiting.extend(nested.get(bt.LineIterator.IndType, ()))
    return clocks
