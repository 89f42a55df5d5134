"""MacroMicroStrategy: the same orders in every mode, rules that hold, tables that add up."""

from __future__ import annotations

import itertools
import math
import os
from array import array
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.candles import Candles, gaps
from cppncripto_strategy.feeds.clock import DAY_MS, Span, utc_to_ms
from cppncripto_strategy.feeds.filters import SymbolFilters
from cppncripto_strategy.feeds.replay import ReplayFeed, bar_close_ms
from cppncripto_strategy.results import TABLES
from cppncripto_strategy.strategy import Decision, MacroMicroStrategy

STEP_MS = 300_000
MIDNIGHT_MS = 1_704_067_200_000
START_MS = MIDNIGHT_MS - 20 * STEP_MS
CASH = 10_000.0
FEE_BPS = 10.0
SLIPPAGE_BPS = 1.0
LEVEL = 0.5  # fixed thresholds: buy at or above it, sell at or below minus it
FINE = SymbolFilters(lot_step=Decimal("0.0001"), min_qty=Decimal(0), min_notional=Decimal(1))
MODES = [
    {"preload": preload, "runonce": runonce, "exactbars": exactbars}
    for preload, runonce, exactbars in itertools.product(
        (True, False), (True, False), (False, 1, -1, -2)
    )
]
Market = dict[str, tuple[Candles, list[float]]]


class Given(bt.Indicator):
    """Scores handed in, with everything else a MicroScore has."""

    lines = ("score", "p_buy", "p_sell", "score_zero")
    params = (("values", ()),)

    def __init__(self) -> None:
        super().__init__()
        self.macro = Macro(self.data)

    def next(self) -> None:
        score = self.p.values[len(self) - 1]
        for line, value in zip(self.lines, self.derived(score), strict=True):
            line[0] = value

    @staticmethod
    def derived(score: float) -> tuple[float, float, float, float]:
        return score, (1 + score) / 2, (1 - score) / 2, -score

    def once(self, start: int, end: int) -> None:
        rows = [self.derived(s) for s in self.p.values[start:end]]
        for i, line in enumerate(self.lines):
            line.array[start:end] = array("d", [row[i] for row in rows])


class Macro(bt.Indicator):
    lines = ("drift", "age")

    def __init__(self) -> None:
        super().__init__()

    def next(self) -> None:
        self.lines.drift[0], self.lines.age[0] = float(len(self)), 1000.0 * len(self)


class Level(bt.Indicator):
    lines = ("upper", "lower")

    def __init__(self) -> None:
        super().__init__()

    def next(self) -> None:
        self.lines.upper[0], self.lines.lower[0] = LEVEL, -LEVEL


def market(slots: dict[str, list[int]], seed: int = 0, calm: float = 0.01) -> Market:
    rng = np.random.default_rng(seed)
    out: Market = {}
    for name, part in slots.items():
        closes = 100 * np.exp(np.cumsum(rng.normal(0, calm, len(part))))
        opens = closes * np.exp(rng.normal(0, calm / 2, len(part)))
        candles = Candles.from_columns(
            open_time=START_MS + STEP_MS * np.array(part, dtype=np.int64),
            open=opens,
            high=np.maximum(opens, closes),
            low=np.minimum(opens, closes),
            close=closes,
            volume=np.ones(len(part)),
        )
        scores = rng.choice(
            [-0.9, -0.2, 0.2, 0.9, math.nan], len(part), p=[0.2, 0.25, 0.25, 0.2, 0.1]
        )
        out[name] = (candles, scores.tolist())
    return out


def run(
    world: Market,
    mode: dict[str, Any] | None = None,
    cls: type = MacroMicroStrategy,
    broker: Any = None,
    stdstats: bool = False,
    **params: Any,
) -> Any:
    cerebro = bt.Cerebro(stdstats=stdstats, **(mode or {}))
    cerebro.broker = broker or SpotBroker(
        cash=CASH,
        fee_bps=FEE_BPS,
        slippage_bps=SLIPPAGE_BPS,
        headroom_bps=0.0,
        filters=dict.fromkeys(world, FINE),
    )
    for name, (candles, _) in world.items():
        cerebro.adddata(ReplayFeed(candles=candles, interval_ms=STEP_MS, name=name))
    defaults = {
        "score_factory": lambda data: Given(data, values=world[data._name][1]),
        "threshold_factory": lambda line, data, score: Level(data),
    }
    cerebro.addstrategy(cls, **{**defaults, **params})
    return cerebro.run()[0]


def by_hand(world: Market, fraction: float, hold: int, cooldown: int, stop_pct: float) -> Any:
    """The strategy and the account once more, from the rules, without Backtrader."""
    fee, slip, lot = FEE_BPS / 1e4, SLIPPAGE_BPS / 1e4, 10_000
    cash, held, pending, book = CASH, {}, {}, {}
    bars = {n: {int(t): i for i, t in enumerate(c.open_time)} for n, (c, _) in world.items()}
    close: dict[str, float] = {}
    fills, curve = [], []
    for stamp in sorted({t + STEP_MS for part in bars.values() for t in part}):
        new = [n for n in world if stamp - STEP_MS in bars[n]]
        for n in new:
            close[n] = world[n][0].close[bars[n][stamp - STEP_MS]]
        for n in sorted(pending, key=lambda n: pending[n][3]):
            side, size, made, _ = pending[n]
            if n not in new:
                continue
            del pending[n]
            if made != stamp - STEP_MS:
                continue  # a gap
            price = world[n][0].open[bars[n][made]] * (1 + side * slip)
            if side > 0:
                size = min(size, math.floor(cash / (price * (1 + fee)) * lot + 1e-9) / lot)
                if size * price < 1:
                    continue  # the other symbol's fill took the cash
            cash -= side * size * price + size * price * fee
            held[n] = round(held.get(n, 0.0) + side * size, 4)
            fills.append((n, made, side, round(size, 4)))
            if side > 0:
                book[n] = [price, made, ""]
            else:
                book[n] = [0.0, made + cooldown * STEP_MS, ""]
        for n in new:
            score = world[n][1][bars[n][stamp - STEP_MS]]
            if held.get(n):
                entry, since, why = book[n]
                if stop_pct and close[n] / entry - 1 <= -stop_pct / 100:
                    why = why or "stop"
                if hold and (stamp - since) // STEP_MS >= hold:
                    why = why or "hold"
                if score <= -LEVEL:
                    why = why or "signal"
                book[n][2] = why
                if why:
                    pending[n] = (-1, held[n], stamp, len(pending))
            elif score >= LEVEL and stamp >= book.get(n, [0, 0])[1]:
                equity = cash + sum(s * close[m] for m, s in held.items())
                wish = min(fraction * equity, cash / (1 + fee + slip)) / close[n]
                size = math.floor(wish * lot + 1e-9) / lot
                if size * close[n] >= 1:
                    pending[n] = (1, size, stamp, len(pending))
        curve.append((stamp, cash + sum(s * close[m] for m, s in held.items())))
    return fills, curve


SLOTS = st.lists(st.integers(0, 60), min_size=2, max_size=61, unique=True).map(sorted)


@example(  # two symbols want all of the cash at the same open
    slots=([0, 1, 2], [0, 1]),
    seed=1,
    fraction=1.0,
    hold=0,
    cooldown=0,
    stop_pct=0.0,
    mode={"preload": True, "runonce": True, "exactbars": False},
)
@given(
    slots=st.tuples(SLOTS, SLOTS),
    seed=st.integers(0, 999),
    fraction=st.sampled_from([0.3, 0.5, 1.0]),
    hold=st.sampled_from([0, 1, 5]),
    cooldown=st.sampled_from([0, 4]),
    stop_pct=st.sampled_from([0.0, 1.0]),
    mode=st.sampled_from(MODES),
)
@settings(max_examples=100, deadline=None)
def test_fills_and_equity_equal_a_hand_written_simulation(
    slots: tuple[list[int], list[int]],
    seed: int,
    fraction: float,
    hold: int,
    cooldown: int,
    stop_pct: float,
    mode: dict[str, Any],
) -> None:
    """An order on the wrong bar, a wrong size, a rule off by one candle, a lost cent: all die."""
    world = market(dict(zip("AB", slots, strict=True)), seed)
    ran = run(
        world,
        mode,
        fraction=fraction,
        hold_candles=hold,
        cooldown_candles=cooldown,
        stop_pct=stop_pct,
    )
    fills, curve = by_hand(world, fraction, hold, cooldown, stop_pct)
    done = ran.fills[ran.fills["status"] == "filled"]
    got = [
        (f.symbol, f.created_ms, 1 if f.side == "buy" else -1, f.quantity)
        for f in done.itertuples()
    ]
    assert got == fills
    assert [stamp for stamp, _ in curve] == ran.equity["close_time_ms"].tolist()
    assert ran.equity["equity"].to_numpy() == pytest.approx([v for _, v in curve], abs=0.005)


def gappy(seed: int = 1) -> Market:
    rng = np.random.default_rng(seed)
    slots = {"A": sorted(rng.choice(400, 350, replace=False).tolist())}
    slots["B"] = sorted((40 + rng.choice(360, 300, replace=False)).tolist())
    return market(slots, seed)


class Recording(MacroMicroStrategy):
    """Notes the broker's own value at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, float] = {}

    def next(self) -> None:
        super().next()
        now_ms = max(bar_close_ms(d) for d in self.datas if len(d))
        self.values[now_ms] = self.broker.getvalue()


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode_leaves_the_same_tables(mode: dict[str, Any]) -> None:
    """A table that depends on how Cerebro was set up to run dies here."""
    world = gappy()
    params = {"threshold_factory": None, "window": 60, "min_scores": 10, "hold_candles": 9}
    reference, ran = run(world, **params), run(world, mode, **params)
    assert len(reference.trades) > 20
    for name in ("signals", "fills", "trades", "equity"):
        pd.testing.assert_frame_equal(
            getattr(reference, name), getattr(ran, name), check_exact=True
        )


@pytest.mark.parametrize("mode", MODES[:4], ids=str)
def test_equity_is_the_brokers_own_value_at_every_bar(mode: dict[str, Any]) -> None:
    """An equity curve rebuilt a bar early, late, or from the wrong close dies here."""
    ran = run(gappy(), mode, cls=Recording)
    table = ran.equity.set_index("close_time_ms")["equity"]
    assert sorted(ran.values) == table.index.tolist()
    np.testing.assert_allclose(table.to_numpy(), [ran.values[t] for t in table.index], rtol=1e-12)


@pytest.mark.parametrize("runonce", [True, False])
def test_observers_and_analyzers_change_no_order(runonce: bool) -> None:
    """The shortened bar loop, taken when nobody listens, deciding otherwise dies here."""
    world = gappy()
    alone = run(world, {"runonce": runonce})
    watched = run(world, {"runonce": runonce}, stdstats=True)
    assert list(watched.observers)
    for name in ("signals", "fills", "trades", "equity"):
        pd.testing.assert_frame_equal(
            getattr(alone, name), getattr(watched, name), check_exact=True
        )


@pytest.mark.parametrize("runonce", [True, False])
def test_indicators_can_be_read_in_the_rollover(runonce: bool) -> None:
    """The shortened bar loop leaving an indicator, or a nested one, behind its data dies here."""

    class Reads(MacroMicroStrategy):
        def __init__(self) -> None:
            super().__init__()
            self.read: list[tuple[float, ...]] = []

        def rollover(self, session_start_ms: int) -> None:
            for state in self.states:
                if len(state.data):
                    lines = state.score.score, state.score.macro.drift, state.threshold.upper
                    self.read.append((len(state.data), *(line[0] for line in lines)))

    world = gappy()
    expected = {
        (i + 1, world[name][1][i], float(i + 1), LEVEL)
        for name in world
        for i in range(len(world[name][1]))
        if not math.isnan(world[name][1][i])
    }
    ran = run(world, {"runonce": runonce}, cls=Reads)
    assert len(ran.read) >= 3
    assert {row for row in ran.read if not math.isnan(row[1])} <= expected


def test_trades_add_up_to_the_change_of_equity() -> None:
    """A round trip counted twice, or fees left out of it, dies here."""
    ran = run(gappy(), hold_candles=3)
    assert not any(ran.broker.getposition(d).size for d in ran.datas)
    assert CASH + ran.trades["pnl"].sum() == pytest.approx(ran.broker.getvalue(), abs=1e-6)
    filled = ran.fills[ran.fills["status"] == "filled"]
    assert filled["fee"].sum() == pytest.approx(ran.trades["fees"].sum())
    assert (ran.trades["candles_held"] >= 1).all()


def test_tables_have_the_columns_of_the_results_folder() -> None:
    """A column renamed on one side only dies here; so does one whose type depends on the rows."""
    ran, idle = run(gappy()), run(steady([0.0, 0.0]))
    for name in ("signals", "fills", "trades", "equity"):
        table = getattr(ran, name)
        assert list(TABLES[name]) == table.columns.tolist()
        assert table.dtypes.tolist() == getattr(idle, name).dtypes.tolist()
        stamps = [c for c in table.columns if c.endswith("_ms") and c != "age_ms"]
        assert {"int64"} == {str(table[c].dtype) for c in stamps}
    assert [len(t) for t in (idle.fills, idle.trades, idle.equity)] == [0, 0, 2]
    filled = ran.fills[ran.fills["status"] == "filled"]
    assert (filled["executed_ms"] > filled["created_ms"]).all()


def test_signals_hold_every_line_at_every_bar() -> None:
    """A line read one bar off, as nested indicators are under runonce, dies here."""
    world = gappy()
    for mode in ({"runonce": True}, {"runonce": False}, {"exactbars": 1}):
        table = run(world, mode).signals
        for name, (candles, scores) in world.items():
            rows = table[table["symbol"] == name]
            count = np.arange(1.0, len(candles) + 1)
            expected = {
                "close_time_ms": candles.open_time + STEP_MS,
                "close": candles.close,
                "score": scores,
                "p_buy": (1 + np.array(scores)) / 2,
                "score_zero": -np.array(scores),
                "upper": np.full(len(candles), LEVEL),
                "age_ms": 1000 * count,
                "drift": count,
                "signal": [
                    0 if math.isnan(s) else int(s >= LEVEL) - int(s <= -LEVEL) for s in scores
                ],
            }
            for column, values in expected.items():
                np.testing.assert_array_equal(values, rows[column], f"{name} {column} {mode}")


def test_a_trade_carries_the_scores_that_opened_it() -> None:
    """The score of the fill's bar, one candle too late, written as the reason for entry dies."""
    world = gappy()
    ran = run(world)
    first = ran.trades[ran.trades["symbol"] == "B"].iloc[0]
    candles, scores = world["B"]
    decided = int(np.searchsorted(candles.open_time, first["entry_ms"] - 2 * STEP_MS))
    assert scores[decided] == first["entry_score"]
    assert -scores[decided] == first["entry_score_zero"]


class LiveFeed(ReplayFeed):
    """Bar by bar, and out of step with the others, as a live feed may be."""

    def __init__(self) -> None:
        super().__init__()

    def islive(self) -> bool:
        return True

    def next(self, datamaster: Any = None, ticks: bool = True) -> bool | None:
        return bt.feed.DataBase.next(self, datamaster, ticks)  # type: ignore[no-any-return]


def test_a_live_feed_gives_the_orders_of_the_backtest() -> None:
    """A paper session that its own replay would not confirm dies here."""
    world = gappy()
    cerebro = bt.Cerebro(stdstats=False, quicknotify=True)
    cerebro.broker = SpotBroker(
        cash=CASH,
        fee_bps=FEE_BPS,
        slippage_bps=SLIPPAGE_BPS,
        headroom_bps=0.0,
        filters=dict.fromkeys(world, FINE),
    )
    for name, (candles, _) in world.items():
        cerebro.adddata(LiveFeed(candles=candles, interval_ms=STEP_MS, name=name))
    params = {"window": 60, "min_scores": 10, "hold_candles": 9, "cooldown_candles": 2}
    cerebro.addstrategy(
        MacroMicroStrategy,
        score_factory=lambda data: Given(data, values=world[data._name][1]),
        **params,
    )
    live, replay = cerebro.run()[0], run(world, threshold_factory=None, **params)
    assert len(replay.trades) > 20
    for name in ("signals", "fills", "trades", "equity"):
        pd.testing.assert_frame_equal(getattr(replay, name), getattr(live, name), check_exact=True)


@pytest.mark.parametrize("cut", [60, 150, 301])
def test_cutting_off_the_future_changes_no_past_order(cut: int) -> None:
    """An order, a size or a threshold that depends on candles not yet closed dies here."""
    world = gappy()
    end_ms = START_MS + cut * STEP_MS
    past: Market = {}
    for name, (candles, scores) in world.items():
        rows = int(np.searchsorted(candles.open_time, end_ms))
        past[name] = (candles[:rows], scores[:rows])
    params = {"threshold_factory": None, "window": 60, "min_scores": 10}
    whole, short = run(world, **params), run(past, **params)
    signals = whole.signals[whole.signals["close_time_ms"] <= end_ms].reset_index(drop=True)
    pd.testing.assert_frame_equal(signals, short.signals, check_exact=True)
    done = whole.fills[whole.fills["executed_ms"] <= end_ms].reset_index(drop=True)
    kept = short.fills[short.fills["reason"] != "end"].reset_index(drop=True)
    pd.testing.assert_frame_equal(done, kept, check_exact=True)
    assert len(done) > 2


@pytest.mark.real
def test_no_order_crosses_the_outage_of_march_2023() -> None:
    """A fill on the far side of a real exchange outage dies here."""
    root = os.environ.get("CPPN_BT_REAL_MARKET")
    if not root:
        pytest.skip("CPPN_BT_REAL_MARKET is not set")
    outage = Span(utc_to_ms("2023-03-24 12:40"), utc_to_ms("2023-03-24 14:00"))
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = SpotBroker(cash=CASH)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        table = pq.read_table(Path(root) / "candles" / f"{symbol}-5m.parquet")
        candles = Candles.from_arrow(table).between(
            outage.start_ms - 2 * DAY_MS, outage.end_ms + DAY_MS
        )
        assert outage in gaps(candles.open_time, STEP_MS)
        cerebro.adddata(ReplayFeed(candles=candles, interval_ms=STEP_MS, name=symbol))
    # A score that turns at every bar has an order under way when the exchange stops.
    cerebro.addstrategy(
        MacroMicroStrategy,
        score_factory=lambda data: Given(data, values=[0.9, -0.9] * 1000),
        threshold_factory=lambda line, data, score: Level(data),
    )
    fills = cerebro.run()[0].fills
    filled = fills[fills["status"] == "filled"]
    assert len(filled) > 100
    assert (filled["executed_ms"] - filled["created_ms"] == STEP_MS).all()
    held_up = fills[fills["created_ms"] == outage.start_ms]
    assert {"gap"} == set(held_up["reason"])


def steady(scores: list[float], closes: list[float] | None = None, first: int = 0) -> Market:
    """One symbol, no gaps; opens equal the previous close."""
    price = np.array(closes or [100.0] * len(scores))
    opens = np.concatenate([price[:1], price[:-1]])
    candles = Candles.from_columns(
        open_time=START_MS + STEP_MS * (first + np.arange(len(scores))),
        open=opens,
        high=np.maximum(opens, price),
        low=np.minimum(opens, price),
        close=price,
        volume=np.ones(len(scores)),
    )
    return {"A": (candles, scores)}


def sides(ran: Any) -> list[tuple[str, int, str]]:
    done = ran.fills[ran.fills["status"] == "filled"]
    slots = (done["created_ms"] - START_MS) // STEP_MS - 1
    return list(zip(done["side"], slots.tolist(), done["reason"], strict=True))


def test_hold_limit_closes_after_exactly_that_many_candles() -> None:
    """A holding limit off by one candle against the label's horizon dies here."""
    ran = run(steady([0.9] + [0.0] * 12), hold_candles=6)
    assert sides(ran) == [("buy", 0, "signal"), ("sell", 6, "hold_limit")]
    assert ran.trades["candles_held"].tolist() == [6]


def test_a_fresh_signal_renews_the_hold() -> None:
    """renew_hold that changes nothing, or renews always, dies here."""
    scores = [0.9, 0, 0, 0, 0.9] + [0.0] * 10
    assert ("sell", 4 + 6, "hold_limit") in sides(
        run(steady(scores), hold_candles=6, renew_hold=True)
    )
    assert ("sell", 6, "hold_limit") in sides(run(steady(scores), hold_candles=6))


def test_min_hold_delays_the_signal_but_not_the_stop() -> None:
    """A minimum hold that also blocks the protective exit dies here."""
    scores = [0.9] + [-0.9] * 9
    assert sides(run(steady(scores), min_hold=5))[1] == ("sell", 5, "signal")
    falling = [100.0, 100.0, 90.0] + [90.0] * 7
    ran = run(steady(scores, falling), min_hold=5, stop_pct=5.0)
    assert sides(ran)[1] == ("sell", 2, "stop")


def test_the_stop_fills_at_the_open_after_the_close_that_broke_it() -> None:
    """A stop filled at its own price, which no market offered, dies here."""
    world = steady([0.9] + [0.0] * 5, [100.0, 100.0, 80.0, 70.0, 70.0, 70.0])
    sale = run(world, stop_pct=10.0).fills.iloc[1]
    assert (sale["reason"], sale["reference_price"]) == ("stop", 80.0)


def test_cooldown_waits_after_an_exit() -> None:
    """A re-entry on the candle after an exit, despite the cooldown, dies here."""
    scores = [0.9, 0.0, -0.9] + [0.9] * 9
    assert sides(run(steady(scores)))[2] == ("buy", 3, "signal")
    # Sold at the open of slot 3, so a cooldown of 4 candles ends with the close of slot 6.
    assert sides(run(steady(scores), cooldown_candles=4))[2] == ("buy", 6, "signal")


def test_a_nan_score_enters_nothing_and_a_held_position_can_still_leave() -> None:
    """NaN read as zero or as a signal dies here; so does a stop that needs a score."""
    assert sides(run(steady([math.nan] * 8))) == []
    world = steady([0.9] + [math.nan] * 7, [100.0, 100.0, 80.0] + [80.0] * 5)
    assert sides(run(world, stop_pct=10.0))[1] == ("sell", 2, "stop")


def test_an_exit_cancelled_by_a_gap_is_sent_again_and_an_entry_is_not() -> None:
    """A position left open by an outage, or an entry on a stale signal after it, dies here."""
    candles, _ = steady([0.0] * 12)["A"]
    rows = [0, 1, 2, 6, 7, 8, 9]  # slots 3 to 5 are missing
    out = {"A": (candles[np.array(rows)], [0.9, 0.0, -0.9, math.nan, 0.0, 0.0, 0.0])}
    ran = run(out)
    assert sides(ran) == [("buy", 0, "signal"), ("sell", 6, "signal")]
    assert ran.fills[ran.fills["status"] == "cancelled"]["reason"].tolist() == ["gap"]
    out = {"A": (candles[np.array(rows)], [0.0, 0.0, 0.9, math.nan, 0.0, 0.0, 0.0])}
    assert sides(run(out)) == []


def test_a_daily_loss_stops_entries_until_the_next_utc_day() -> None:
    """A loss limit that forgets at once, or never, dies here."""
    bars = 60
    midnight = 19  # the bar of slot 19 closes at 00:00 and belongs to the new day
    closes = [100.0, 100.0] + [80.0] * (bars - 2)
    scores = [0.9, 0.0, -0.9] + [0.9, -0.9] * ((bars - 3) // 2) + [0.0]
    free = [slot for side, slot, _ in sides(run(steady(scores, closes))) if side == "buy"]
    limited = [
        slot
        for side, slot, _ in sides(run(steady(scores, closes), max_daily_loss_pct=5.0))
        if side == "buy"
    ]
    assert [slot for slot in free if slot == 0 or slot >= midnight] == limited
    assert len(free) > len(limited) > 3


def test_a_decision_that_sends_no_order_leaves_a_row() -> None:
    """Silence where an account is too small, or blocked for the day, dies here."""
    scores = [0.9, 0.0, -0.9] + [0.9, 0.0] * 6
    closes = [100.0, 100.0] + [80.0] * 13
    blocked = run(steady(scores, closes), max_daily_loss_pct=5.0).fills
    assert [(row.status, row.reason) for row in blocked.itertuples()] == [
        ("filled", "signal"),
        ("filled", "signal"),
        *[("refused", "daily_loss")] * 6,
    ]
    slots = (blocked["created_ms"] - START_MS) // STEP_MS - 1
    assert slots.tolist() == [0, 2, 3, 5, 7, 9, 11, 13]
    assert "5 % of the day's starting equity" in blocked["detail"].iloc[-1]
    dear = SymbolFilters(min_notional=Decimal(500))
    small = run(
        steady([0.9, 0.0, 0.9], [100.0] * 3),
        broker=SpotBroker(cash=400.0, filters={"A": dear}),
        fraction=0.5,
    ).fills
    assert small["reason"].tolist() == ["min_notional"] * 2
    assert small["side"].tolist() == ["buy"] * 2
    assert small["quantity"].tolist() == pytest.approx([2.0, 2.0])


def test_an_entry_above_the_maximum_says_what_was_cut() -> None:
    """A position smaller than the recipe asks for, and nobody told, dies here."""
    capped = SymbolFilters(max_qty=Decimal(3))
    broker = SpotBroker(cash=CASH, fee_bps=0, slippage_bps=0, filters={"A": capped})
    (fill,) = run(steady([0.9, 0.0, 0.0], [100.0] * 3), broker=broker).fills.itertuples()
    assert fill.quantity == 3.0
    assert fill.detail.endswith("the exchange's maximum quantity")


class Rollovers(MacroMicroStrategy):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, int]] = []

    def rollover(self, session_start_ms: int) -> None:
        now_ms = max(bar_close_ms(d) for d in self.datas if len(d))
        self.calls.append((session_start_ms, now_ms))


@pytest.mark.parametrize("runonce", [True, False])
def test_rollover_once_a_day_although_midnight_is_missing(runonce: bool) -> None:
    """A rollover per symbol, per bar, or none when the 00:00 candle is missing, dies here."""
    day = DAY_MS // STEP_MS
    world = market(
        {
            "A": [s for s in range(2 * day) if s not in (18, 19, 20)],
            "B": [s for s in range(5, 2 * day) if s not in (18, 19, 20, 21)],
        }
    )
    ran = run(world, {"runonce": runonce}, cls=Rollovers)
    late = START_MS + 22 * STEP_MS  # slots 18 to 20 are missing: 00:10 closes first
    assert [
        (MIDNIGHT_MS - DAY_MS, START_MS + STEP_MS),
        (MIDNIGHT_MS, late),
        (MIDNIGHT_MS + DAY_MS, MIDNIGHT_MS + DAY_MS),
    ] == ran.calls


def test_a_symbol_that_starts_late_does_not_hold_up_the_others() -> None:
    """Backtrader's prenext, which waits for every feed, silencing all of them dies here."""
    slots = {"A": list(range(30)), "B": list(range(20, 30))}
    world = market(slots, 3)
    ran = run(world)
    first = ran.fills[ran.fills["symbol"] == "A"]["created_ms"].min()
    assert first < START_MS + 20 * STEP_MS
    assert ran.signals["symbol"].value_counts().to_dict() == {"A": 30, "B": 10}


@pytest.mark.parametrize("mode", [MODES[0], MODES[5], MODES[-2]], ids=str)
def test_a_feed_that_is_not_traded_changes_no_order(mode: dict[str, Any]) -> None:
    """Orders on a feed that is only there to be read, or a share of the account kept for it."""
    world = market({"A": list(range(40)), "B": list(range(3, 40, 2))}, 3)
    alone = run({"A": world["A"]}, mode)
    beside = run(world, mode, untraded=("B",))
    assert len(alone.fills) > 0
    pd.testing.assert_frame_equal(alone.fills, beside.fills)
    pd.testing.assert_frame_equal(alone.signals, beside.signals)
    assert [state.data._name for state in beside.states] == ["A"]


@pytest.mark.parametrize(
    ("untraded", "message"),
    [(("C",), "names C, and Cerebro's feeds are A, B"), (("A", "B"), "leaves nothing to trade")],
)
def test_untraded_names_that_cannot_be_are_refused(untraded: tuple[str, ...], message: str) -> None:
    """A misspelt market symbol that is traded after all."""
    world = market({"A": list(range(9)), "B": list(range(9))})
    with pytest.raises(RecipeError, match=message):
        run(world, untraded=untraded)


def test_trading_the_zero_embedding_turns_every_signal() -> None:
    """traded_line that is recorded but not traded dies here."""
    world = gappy()
    plain, zero = run(world), run(world, traded_line="score_zero")
    np.testing.assert_array_equal(-plain.signals["signal"], zero.signals["signal"])
    np.testing.assert_array_equal(plain.signals["score"], zero.signals["score"])
    assert plain.fills["created_ms"].iloc[0] != zero.fills["created_ms"].iloc[0]


def test_seeds_come_from_the_score_unless_they_are_given() -> None:
    """A bundle's seeds left unused, given to the wrong symbol, or to the zero line, die here."""

    class Bundled(Given):
        bundle_seeds = [(0, np.array([-0.4, 0.4]))]

    world = gappy()
    params = {
        "score_factory": lambda data: Bundled(data, values=world[data._name][1]),
        "threshold_factory": None,
        "threshold_mode": "static",
        "quantile": 0.1,
    }
    quiet = np.isnan(np.concatenate([scores for _, scores in world.values()]))

    def uppers(**more: Any) -> set[float]:
        table = run(world, **{**params, **more}).signals
        return set(table["upper"].to_numpy()[~quiet].tolist())

    assert {float(np.quantile([-0.4, 0.4], 0.9))} == uppers()
    given_ = {"A": [(0, [1.0, 2.0])], "B": [(0, [3.0, 4.0])]}
    assert {float(np.quantile(s[0][1], 0.9)) for s in given_.values()} == uppers(seeds=given_)
    with pytest.raises(RecipeError, match="no seeds"):
        uppers(traded_line="score_zero")


def test_shorts_only_where_the_account_allows_them() -> None:
    """allow_short without effect, or with effect on a spot account, dies here."""
    scores = [-0.9, 0.0, 0.0, 0.9, 0.0, 0.0]
    broker = SpotBroker(cash=CASH, allow_short=True, filters={"A": FINE})
    ran = run(steady(scores), broker=broker, allow_short=True)
    assert sides(ran) == [("sell", 0, "signal"), ("buy", 3, "signal")]
    assert len(ran.trades) == 1
    assert sides(run(steady(scores))) == [("buy", 3, "signal")]


def test_it_trades_with_backtraders_own_broker() -> None:
    """A strategy that only works with our broker dies here."""
    broker = bt.brokers.BackBroker(cash=CASH)
    broker.setcommission(commission=FEE_BPS / 1e4)
    ran = run(steady([0.9, 0.0, -0.9, 0.0, 0.9, 0.0]), broker=broker, fraction=0.5)
    assert ran.broker.getposition(ran.data).size > 0
    assert ran.equity["equity"].iloc[-1] == pytest.approx(ran.broker.getvalue())
    assert ran.equity["exposure"].iloc[-1] == pytest.approx(0.5, abs=0.01)


def test_a_bare_line_is_score_enough() -> None:
    """A strategy that needs our own indicator class dies here."""
    world = gappy()
    ran = run(
        world,
        score_factory=lambda data: bt.indicators.ROC(data.close, period=3),
        threshold_factory=None,
        window=50,
        min_scores=10,
    )
    assert len(ran.trades) > 5
    assert ran.signals["score_zero"].isna().all()
    closes = world["A"][0].close
    rows = ran.signals[ran.signals["symbol"] == "A"]["score"].to_numpy()
    np.testing.assert_allclose(rows[3:], closes[3:] / closes[:-3] - 1)


def test_tables_can_be_read_while_running() -> None:
    """Tables that exist only after stop(), useless to a live screen, die here."""

    class Peek(MacroMicroStrategy):
        lengths: list[int] = []

        def rollover(self, session_start_ms: int) -> None:
            self.refresh_tables()
            self.lengths.append(len(self.signals))

    run(steady([0.0] * 40), cls=Peek)
    assert Peek.lengths == [1, 20]


@pytest.mark.parametrize("mode", [{"runonce": True}, {"exactbars": 1}], ids=str)
def test_decisions_are_reported_as_they_stand_in_the_table(mode: dict[str, Any]) -> None:
    """A live screen that shows another score than the one traded on dies here."""

    class Tells(MacroMicroStrategy):
        def __init__(self) -> None:
            super().__init__()
            self.reported: list[Any] = []

        def decided(self, decision: Decision) -> None:
            self.reported.append(asdict(decision))

    ran = run(gappy(), mode, cls=Tells)
    reported = pd.DataFrame(ran.reported).sort_values(
        ["symbol", "close_time_ms"], ignore_index=True
    )
    table = ran.signals.sort_values(["symbol", "close_time_ms"], ignore_index=True)
    pd.testing.assert_frame_equal(table, reported, check_exact=True)


def test_a_session_that_keeps_no_rows_trades_the_same() -> None:
    """Saving memory that changes the orders, or does not save it, dies here."""
    world = gappy()
    lean = run(world, {"exactbars": 1}, keep_rows=False)
    assert [len(lean.signals), len(lean.equity)] == [0, 0]
    pd.testing.assert_frame_equal(run(world).fills, lean.fills, check_exact=True)


def test_dust_of_a_cancelled_exit_does_not_close_the_next_position() -> None:
    """An exit that left unsaleable dust, remembered into the next position, dies here."""
    strict = SymbolFilters(lot_step=Decimal("0.0001"), min_qty=Decimal(0), min_notional=Decimal(50))
    broker = SpotBroker(cash=CASH, fee_bps=0, slippage_bps=0, filters={"A": strict})
    candles, _ = steady([0.0] * 12, [100.0] * 3 + [60.0] * 9)["A"]
    # The exit decided at slot 2 is cancelled by the gap; after it 0.6 coins are worth 36.
    world = {
        "A": (
            candles[np.array([0, 1, 2, 5, 6, 7, 8, 9])],
            [0.9, 0.0, -0.9, 0.0, 0.9, 0.0, 0.0, 0.0],
        )
    }
    ran = run(world, broker=broker, fraction=0.006)
    assert ran.fills[ran.fills["status"] == "cancelled"]["reason"].tolist() == ["gap"]
    assert sides(ran) == [("buy", 0, "signal"), ("buy", 6, "signal")]


class LateFeed(LiveFeed):
    """Holds back the bar that closes at 23:55 until the other symbol has closed at 00:00."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds_to_wait = 2

    def next(self, datamaster: Any = None, ticks: bool = True) -> bool | None:
        if len(self) == 18 and self.rounds_to_wait:
            if datamaster is None:
                return None
            self.rounds_to_wait -= 1
            return False
        return super().next(datamaster, ticks)


def test_a_late_bar_of_yesterday_does_not_reopen_it() -> None:
    """Two rollovers for one day, with its loss limit forgotten, die here."""
    world = market({"A": list(range(40)), "B": list(range(40))})
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.broker = SpotBroker(cash=CASH)
    for name, kind in (("A", LiveFeed), ("B", LateFeed)):
        cerebro.adddata(kind(candles=world[name][0], interval_ms=STEP_MS, name=name))
    cerebro.addstrategy(
        Rollovers,
        score_factory=lambda data: Given(data, values=world[data._name][1]),
        threshold_factory=lambda line, data, score: Level(data),
    )
    ran = cerebro.run()[0]
    assert ran.signals["symbol"].value_counts().to_dict() == {"A": 40, "B": 40}
    assert [session for session, _ in ran.calls] == [MIDNIGHT_MS - DAY_MS, MIDNIGHT_MS]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 1.5}, "fraction"),
        ({"hold_candles": -1}, "hold_candles"),
        ({"hold_candles": 2, "min_hold": 3}, "min_hold"),
        ({"stop_pct": 100.0}, "stop_pct"),
        ({"traded_line": "nonsense"}, "nonsense"),
        ({"score_factory": None}, "bundles"),
        ({"threshold_factory": None, "threshold_mode": "static"}, "no seeds"),
    ],
)
def test_impossible_settings_are_named(params: dict[str, Any], words: str) -> None:
    """A setting accepted in silence and ignored dies here."""
    with pytest.raises(RecipeError, match=words):
        run(steady([0.0, 0.0]), **params)
