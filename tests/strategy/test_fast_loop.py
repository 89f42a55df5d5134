"""The loop that passes bars over against the loop that takes every bar: the same bits."""

from __future__ import annotations

import dataclasses
import logging
import math
from array import array
from decimal import Decimal
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cppncripto_strategy import fast_loop
from cppncripto_strategy.analyzers import AtStop
from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.evaluation.evidence import EvidenceSettings
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.filters import SymbolFilters
from cppncripto_strategy.feeds.replay import ReplayFeed, bar_close_ms
from cppncripto_strategy.runonce import indicator_clocks
from cppncripto_strategy.strategy import Decision, MacroMicroStrategy

STEP_MS = 1_800_000
DAY_BARS = DAY_MS // STEP_MS
START_MS = 1_704_067_200_000 - 7 * STEP_MS
LEVEL = 0.5
CASES = 300
TABLES = ("signals", "fills", "trades", "equity", "evidence")


class Given(bt.Indicator):
    """Scores handed in, with a forecast of volatility beside them."""

    lines = ("score", "p_buy", "p_sell", "score_zero")
    params = (("values", ()), ("volatility", ()))

    def __init__(self) -> None:
        super().__init__()
        self.macro = Macro(self.data, values=self.p.volatility)

    def next(self) -> None:
        for line in self.lines:
            line[0] = self.p.values[len(self) - 1]

    def once(self, start: int, end: int) -> None:
        values = array("d", self.p.values[start:end])
        for line in self.lines:
            line.array[start:end] = values


class Macro(bt.Indicator):
    lines = ("drift", "age", "volatility")
    params = (("values", ()),)

    def next(self) -> None:
        self.lines.volatility[0] = self.p.values[len(self) - 1]

    def once(self, start: int, end: int) -> None:
        self.lines.volatility.array[start:end] = array("d", self.p.values[start:end])


class Level(bt.Indicator):
    lines = ("upper", "lower")

    def next(self) -> None:
        self.lines.upper[0], self.lines.lower[0] = LEVEL, -LEVEL

    def once(self, start: int, end: int) -> None:
        for line, level in zip(self.lines, (LEVEL, -LEVEL), strict=True):
            line.array[start:end] = array("d", [level] * (end - start))


class Watching(MacroMicroStrategy):
    """Keeps what a strategy sees when a day begins."""

    def start(self) -> None:
        self.days: list[tuple[Any, ...]] = []

    def rollover(self, session_start_ms: int) -> None:
        seen = [self.broker.getvalue(), self.broker.getcash(), len(self), self.datetime[0]]
        bars = [(len(data), data.close[0]) if len(data) else (0, 0.0) for data in self.datas]
        scores = [(len(s.score), s.score.score[0]) for s in self.states if len(s.score)]
        self.days.append((session_start_ms, seen, bars, [repr(score) for score in scores]))


@dataclasses.dataclass(frozen=True)
class World:
    """Symbols of one random market, and the account that trades them."""

    candles: dict[str, Candles]
    scores: dict[str, list[float]]
    volatility: dict[str, list[float]]
    filters: SymbolFilters
    untraded: tuple[str, ...]
    gated: bool


def symbol_rows(rng: Any, bars: int, late: int, holes: float) -> Any:
    """Candle numbers of a symbol: it may be listed late, end early, and miss some, or a day."""
    rows = np.arange(late, bars - int(rng.integers(0, bars // 4)))
    kept = rng.random(len(rows)) >= holes
    if holes:
        first, length = (int(rng.integers(1, n)) for n in (max(len(rows), 2), 2 * DAY_BARS))
        kept[first : first + length] = False
    kept[0] = True
    return rows[kept]


def world_of(seed: int, bars: int, symbols: int, holes: float, rate: float, market: bool) -> World:
    """A random market; `rate` is the share of candles with a signal."""
    rng = np.random.default_rng(seed)
    candles, scores, volatility = {}, {}, {}
    for number in range(symbols + market):
        late = int(rng.integers(0, bars // 2)) if number and rng.random() < 0.5 else 0
        rows = symbol_rows(rng, bars, late, holes)
        close = 100 * np.exp(np.cumsum(rng.normal(0, rng.choice([1e-3, 0.01, 0.03]), len(rows))))
        opens = close * np.exp(rng.normal(0, 0.003, len(rows)))
        name = "ABCD"[number]
        candles[name] = Candles.from_columns(
            open_time=START_MS + STEP_MS * rows.astype(np.int64),
            open=opens,
            high=np.maximum(opens, close),
            low=np.minimum(opens, close),
            close=close,
            volume=np.where(rng.random(len(rows)) < 0.05, 0.0, 1.0),
        )
        quiet = rng.choice([0.2, -0.2, math.nan], len(rows), p=[0.45, 0.45, 0.1])
        loud = rng.choice([0.9, -0.9, LEVEL, -LEVEL], len(rows))
        scores[name] = np.where(rng.random(len(rows)) < rate, loud, quiet).tolist()
        daily = rng.choice([0.01, 0.02, 0.05, math.nan], len(rows), p=[0.4, 0.3, 0.2, 0.1])
        volatility[name] = daily.tolist()
    step, minimum = rng.choice([0.0001, 0.01, 1.0]), rng.choice([1.0, 10.0, 900.0])
    lot = Decimal(str(step))
    filters = SymbolFilters(lot_step=lot, min_qty=lot, min_notional=Decimal(str(minimum)))
    untraded = ("ABCD"[symbols],) if market else ()
    return World(candles, scores, volatility, filters, untraded, bool(rng.random() < 0.25))


def open_gate(data: Any) -> bool:
    """A gate that is shut every other six hours: exits are refused until it opens."""
    return bar_close_ms(data) // (DAY_MS // 4) % 2 == 0


def run(
    world: World, plain: bool, cls: type = MacroMicroStrategy, setup: Any = None, **params: Any
):
    """A whole run, by either loop."""
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = SpotBroker(
        cash=10_000.0,
        allow_short=params.get("allow_short", False),
        filters=dict.fromkeys(world.candles, world.filters),
        trade_gate=open_gate if world.gated else None,
    )
    for name, candles in world.candles.items():
        cerebro.adddata(ReplayFeed(candles=candles, interval_ms=STEP_MS, name=name))
    if setup is not None:
        setup(cerebro)

    def score(data: Any) -> Any:
        name = data._name
        return Given(data, values=world.scores[name], volatility=world.volatility[name])

    level = {"threshold_factory": lambda line, data, score: Level(data)}
    adaptive = "quantile" in params
    params = {**({} if adaptive else level), "untraded": world.untraded, **params}
    cerebro.addstrategy(cls, score_factory=score, plain_loop=plain, **params)
    return next(s for s in cerebro.run() if isinstance(s, MacroMicroStrategy))


def trades_of(strategy: Any) -> list[Any]:
    """Backtrader's own trades, as they were when they ended or when the run did."""
    fields = ("status", "size", "price", "value", "commission", "pnl", "pnlcomm")
    fields = (*fields, "baropen", "dtopen", "barclose", "dtclose", "barlen")
    trades = [t for by_id in strategy._trades.values() for ts in by_id.values() for t in ts]
    return [tuple(getattr(trade, name) for name in fields) for trade in trades]


def places(strategy: Any) -> list[tuple[int, int]]:
    """Length and index of every line of every feed and indicator, and of the strategy's time."""
    lines = [line for data in strategy.datas for line in data.lines]
    lines += [line for _, buffers in indicator_clocks(strategy) for line in buffers]
    return [(line.lencount, line.idx) for line in (*lines, strategy.lines.datetime)]


def assert_same(fast: Any, plain: Any) -> None:
    """Everything that either loop leaves, to the last bit."""
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(fast, name), getattr(plain, name), check_exact=True)
    ours, theirs = fast.broker, plain.broker
    assert ours.ledger == theirs.ledger
    assert [repr(fill) for fill in ours.fills] == [repr(fill) for fill in theirs.fills]
    for name in ("cash", "_value", "_fundval", "_valuemkt"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert [p.size for p in ours.positions.values()] == [p.size for p in theirs.positions.values()]
    assert trades_of(fast) == trades_of(plain)
    assert places(fast) == places(plain)
    assert fast.lines.datetime.array == plain.lines.datetime.array
    for one, other in zip(fast.states, plain.states, strict=True):
        kept = ("bars", "entry_price", "entry_open_ms", "exit_reason", "no_entry_before_ms")
        for name in kept:
            assert repr(getattr(one, name)) == repr(getattr(other, name)), name
    if fast.meter is not None:
        bars = {state.data._name: state.bars for state in fast.states}
        assert fast.meter.snapshot(bars) == plain.meter.snapshot(bars)
    assert getattr(fast, "days", None) == getattr(plain, "days", None)


SETTINGS = st.fixed_dictionaries(
    {
        "hold_candles": st.sampled_from([0, 2, 6, 40]),
        "renew_hold": st.booleans(),
        "min_hold": st.sampled_from([0, 0, 2]),
        "cooldown_candles": st.sampled_from([0, 3, 30]),
        "stop_pct": st.sampled_from([0.0, 0.5, 4.0]),
        "max_daily_loss_pct": st.sampled_from([0.0, 0.1, 2.0]),
        "allow_short": st.booleans(),
        "sizing": st.sampled_from(["fraction", "volatility"]),
        "fraction": st.sampled_from([None, 0.3, 1.0]),
        "evidence": st.sampled_from(["trade", "wait"]),
    },
    optional={"quantile": st.sampled_from([0.02, 0.2])},
)
WORLDS = st.builds(
    world_of,
    seed=st.integers(0, 2**32 - 1),
    bars=st.integers(60, 420),
    symbols=st.integers(1, 3),
    holes=st.sampled_from([0.0, 0.0, 0.02, 0.3]),
    rate=st.sampled_from([0.005, 0.03, 0.15]),
    market=st.booleans(),
)
EVIDENCE = st.builds(
    EvidenceSettings,
    alpha=st.sampled_from([0.05, 0.9]),
    per=st.sampled_from(["account", "symbol"]),
    sides=st.sampled_from(["trade", "both"]),
    closing_days=st.sampled_from([2.0, 90.0]),
    horizon=st.sampled_from([1, 5]),
)


# Without shrinking: a case names its seed and its settings, and takes a moment to run again.
PHASES = (Phase.explicit, Phase.generate)


@settings(max_examples=CASES, suppress_health_check=list(HealthCheck), phases=PHASES)
@given(world=WORLDS, params=SETTINGS, evidence=EVIDENCE, watching=st.booleans())
def test_both_loops_leave_the_same_bits(world, params, evidence, watching):
    """A bar passed over at which something would have happened, or a line that is left behind."""
    params = {**params, "evidence_settings": evidence}
    if "quantile" in params:
        params = {**params, "window": 60, "min_scores": 20}
    cls = Watching if watching else MacroMicroStrategy
    fast, plain = (run(world, plain, cls, **params) for plain in (False, True))
    assert plain._fast_loop is None
    assert fast._fast_loop is not None
    assert_same(fast, plain)


def test_stop_judged_like_the_strategy_does_where_it_is_a_tie():
    """A close exactly at the stop taken by one loop and passed over by the other."""
    world = world_of(5, 200, 1, 0.0, 0.03, market=False)
    entries = run(world, plain=True).fills.query("status == 'filled'")
    price, since = entries["price"].iloc[0], entries["executed_ms"].iloc[0]
    candles = world.candles["A"]
    at = int(np.searchsorted(candles.open_time + STEP_MS, since)) + 3
    close = candles.close.copy()
    close[at] = price * (1 - 0.05)
    moved = 100 * (close[at] / price - 1.0)
    world = dataclasses.replace(world, candles={"A": dataclasses.replace(candles, close=close)})
    for stop in (-moved, np.nextafter(-moved, 0), np.nextafter(-moved, 100)):
        fast, plain = (run(world, loop, stop_pct=float(stop)) for loop in (False, True))
        assert_same(fast, plain)


def test_quiet_market_is_passed_over(caplog):
    """A loop that takes every bar after all, and a log that does not say how many it took."""
    world = world_of(3, 400, 2, 0.0, 0.02, market=True)
    with caplog.at_level(logging.INFO, logger="cppncripto_strategy"):
        strategy = run(world, plain=False, hold_candles=6)
    loop = strategy._fast_loop
    taken = loop.steps - loop.passed
    assert len(strategy.fills) > 2
    assert taken < loop.steps / 4
    assert f"the run took {taken} of {loop.steps} bars" in caplog.text


def test_symbols_that_need_nothing_are_not_asked(monkeypatch):
    """An account of many symbols that costs all of them at each bar that one of them needs."""
    world = world_of(7, 400, 3, 0.0, 0.05, market=False)
    asked, next_step = [], fast_loop._Symbol.next_step
    decided, on_candle = [], MacroMicroStrategy._on_candle

    def ask(symbol: Any, now: int, p: Any) -> int:
        asked.append(now)
        return next_step(symbol, now, p)

    def decide(strategy: Any, state: Any, bar: int) -> None:
        decided.append(bar)
        on_candle(strategy, state, bar)

    monkeypatch.setattr(fast_loop._Symbol, "next_step", ask)
    monkeypatch.setattr(fast_loop, "_overridden", lambda own, base: [])
    monkeypatch.setattr(MacroMicroStrategy, "_on_candle", decide)
    strategy = run(world, plain=False, hold_candles=6)
    loop = strategy._fast_loop
    taken = loop.steps - loop.passed
    assert len(strategy.fills) > 10
    assert taken > 50
    for calls in (asked, decided):
        assert taken <= len(calls) < 2 * taken  # of three symbols, all would be three times as many


class HearsBars(MacroMicroStrategy):
    def next(self) -> None:
        super().next()
        self.heard = getattr(self, "heard", 0) + 1


class HearsDecisions(MacroMicroStrategy):
    def decided(self, decision: Decision) -> None:
        self.heard = getattr(self, "heard", 0) + 1


class HearsTrades(MacroMicroStrategy):
    def notify_trade(self, trade: Any) -> None:
        self.heard = getattr(self, "heard", 0) + 1


class LeavesEarly(MacroMicroStrategy):
    """A rule that only the subclass knows: the account must follow it at every bar."""

    def _exit_reason(self, state: Any, bar: int, *rest: Any) -> str:
        return "seventh bar" if bar % 7 == 0 else super()._exit_reason(state, bar, *rest)


class EveryBar(bt.Analyzer):
    def next(self) -> None:
        self.rets["bars"] = self.rets.get("bars", 0) + 1


class AtTheEnd(AtStop):
    def analyse(self) -> dict[str, Any]:
        return {"bars": len(self.strategy)}


class Idle(bt.Strategy):
    pass


class Broker(SpotBroker):
    pass


def replaced_broker(cerebro: Any) -> None:
    cerebro.broker = Broker(cash=10_000.0)


def timer(cerebro: Any) -> None:
    cerebro.add_timer(when=bt.timer.SESSION_START)


LISTENERS = {
    "it was asked for": {"plain": True},
    "HearsBars overrides next": {"cls": HearsBars},
    "HearsDecisions overrides decided": {"cls": HearsDecisions},
    "HearsTrades overrides notify_trade": {"cls": HearsTrades},
    "LeavesEarly overrides _exit_reason": {"cls": LeavesEarly},
    "an analyzer": {"setup": lambda cerebro: cerebro.addanalyzer(EveryBar)},
    "an observer": {"setup": lambda cerebro: cerebro.addobserver(bt.observers.Broker)},
    "another strategy": {"setup": lambda cerebro: cerebro.addstrategy(Idle)},
    "the broker is a Broker": {"setup": replaced_broker},
    "a timer": {"setup": timer},
}


@pytest.mark.parametrize("reason", LISTENERS)
def test_whoever_looks_at_each_bar_gets_each_bar(reason, caplog):
    """A hook that is called at some bars only, or a loop that guesses at rules it does not know."""
    world = world_of(11, 120, 2, 0.02, 0.1, market=False)
    asked = {"plain": False, "hold_candles": 6, **LISTENERS[reason]}
    with caplog.at_level(logging.INFO, logger="cppncripto_strategy"):
        strategy = run(world, **asked)
    assert strategy._fast_loop is None
    assert "the run takes every bar: " in caplog.text
    assert reason in caplog.text
    bars = len(np.unique(np.concatenate([c.open_time for c in world.candles.values()])))
    assert len(strategy) == bars
    if asked.get("cls") is HearsBars:
        assert strategy.heard == bars


@pytest.mark.parametrize("mode", [{"runonce": False}, {"exactbars": 1}, {"preload": False}])
def test_streaming_runs_take_every_bar_and_leave_the_same_tables(mode):
    """A shortcut under a run that has no lines ahead."""
    world = world_of(12, 150, 2, 0.02, 0.1, market=False)
    streamed = run(world, plain=False, setup=lambda c: set_mode(c, mode), hold_candles=6)
    fast = run(world, plain=False, hold_candles=6)
    assert streamed._fast_loop is None
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(streamed, name), getattr(fast, name))


def set_mode(cerebro: Any, mode: dict[str, Any]) -> None:
    for name, value in mode.items():
        setattr(cerebro.p, name, value)


def test_analyzer_that_looks_at_the_end_alone_does_not_slow_the_loop():
    """Every run has one: a loop that is never taken dies here."""
    world = world_of(3, 200, 1, 0.0, 0.02, market=False)
    strategy = run(world, plain=False, setup=lambda cerebro: cerebro.addanalyzer(AtTheEnd))
    assert strategy._fast_loop.passed > 0
    assert strategy.analyzers[0].get_analysis() == {"bars": strategy._fast_loop.steps}


class HearsOrders(AtStop):
    """Looks at the end, at every order it was notified of until then."""

    def start(self) -> None:
        self.heard: list[str] = []

    def notify_order(self, order: Any) -> None:
        self.heard.append(order.getstatusname())

    def analyse(self) -> dict[str, Any]:
        return {"heard": self.heard}


def test_orders_on_their_way_are_not_copied_for_nobody():
    """Two copies of each order that no one reads, or an analyzer that misses what it listens to."""
    world = dataclasses.replace(world_of(3, 400, 2, 0.0, 0.05, market=False), gated=False)
    alone = run(world, plain=False, hold_candles=6)
    heard = run(world, False, setup=lambda c: c.addanalyzer(HearsOrders), hold_candles=6)
    filled = int((alone.fills["status"] == "filled").sum())
    assert filled > 10
    statuses = [order.getstatusname() for order in alone._orders]
    assert statuses.count("Completed") == filled
    assert statuses.count("Accepted") <= 1  # of an order that was sent before the loop began
    notified = heard.analyzers[0].get_analysis()["heard"]
    assert notified.count("Submitted") == notified.count("Accepted")
    assert notified.count("Accepted") >= notified.count("Completed") == filled
    assert_same(alone, heard)
