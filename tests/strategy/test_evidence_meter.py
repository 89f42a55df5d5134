"""Evidence in a running strategy: the same in every mode, causal, and what waiting for it does."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.evaluation.evidence import EvidenceSettings, weigh
from cppncripto_strategy.evaluation.shadow import Measure, daily_means, daily_results
from cppncripto_strategy.evidence_meter import EvidenceMeter, round_trip_cost_bps
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.strategy import MacroMicroStrategy

MIDNIGHT_MS = 1_704_067_200_000
HORIZON, LEVEL, DAYS = 3, 0.5, 60
COST_BPS = 2 * (10.0 + 1.0)
SETTINGS = EvidenceSettings(horizon=HORIZON, closing_days=30.0)
MODES = [
    {"preload": preload, "runonce": runonce, "exactbars": exactbars}
    for preload, runonce, exactbars in itertools.product((True, False), (True, False), (False, 1))
]


class Scores(bt.Indicator):
    lines = ("score",)
    params = (("values", ()),)

    def next(self) -> None:
        self.lines.score[0] = self.p.values[len(self) - 1]


class Level(bt.Indicator):
    lines = ("upper", "lower")

    def __init__(self) -> None:
        super().__init__()

    def next(self) -> None:
        self.lines.upper[0], self.lines.lower[0] = LEVEL, -LEVEL


def market(days=DAYS, skill_until=DAYS, seed=0, missing=()):
    """Hourly candles, and scores that are right four times of five until a day, then never."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 24 * days + HORIZON)))
    size = 24 * days
    up = np.sign(close[HORIZON:] / close[:size] - 1)
    right = np.where(rng.random(size) < 0.8, 1, -1) * (rng.random(size) < 0.3)
    right[24 * skill_until :] = -np.abs(right[24 * skill_until :])
    kept = np.setdiff1d(np.arange(size), missing)
    price = close[:size][kept]
    candles = Candles.from_columns(
        open_time=MIDNIGHT_MS + HOUR_MS * kept,
        open=price,
        high=price,
        low=price,
        close=price,
        volume=np.ones(len(kept)),
    )
    return candles, (up * right)[kept].tolist()


def run(world: dict[str, Any], mode: Any = None, broker: Any = None, **params: Any) -> Any:
    cerebro = bt.Cerebro(stdstats=False, **(mode or {}))
    cerebro.broker = broker or SpotBroker(cash=10_000, fee_bps=10, slippage_bps=1)
    for name, (candles, _) in world.items():
        cerebro.adddata(ReplayFeed(candles=candles, interval_ms=HOUR_MS, name=name))
    defaults = {
        "score_factory": lambda data: Scores(data, values=world[data._name][1]),
        "threshold_factory": lambda line, data, score: Level(data),
        "evidence_settings": SETTINGS,
        "hold_candles": HORIZON,
    }
    cerebro.addstrategy(MacroMicroStrategy, **{**defaults, **params})
    return cerebro.run()[0]


def two_symbols(**more):
    return {
        "A": market(seed=1, missing=[30, 31, 300, *range(150, 160)], **more),
        "B": market(seed=2, missing=[*range(500, 540)], **more),
    }


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("per", ["account", "symbol"])
def test_every_mode_gives_the_batch_evidence_to_the_last_bit(mode, per):
    """A wealth that depends on how Cerebro steps, or on which symbol comes first."""
    settings = EvidenceSettings(horizon=HORIZON, per=per, sides="both")
    strategy = run(two_symbols(days=30), mode, evidence_settings=settings)
    measure = Measure(HORIZON, HOUR_MS, COST_BPS)
    groups = [("account", ["A", "B"])] if per == "account" else [("A", ["A"]), ("B", ["B"])]
    last_ms = int(strategy.signals["close_time_ms"].max()) // DAY_MS * DAY_MS
    for name, symbols in groups:
        days = daily_results(strategy.signals, dict.fromkeys(symbols, measure), last_ms)
        x = np.array([settings.clipped(bps) for bps in daily_means(list(days.values()))])
        path = weigh(x, settings, settings.needed(len(groups)))
        rows = strategy.evidence[strategy.evidence["bet"] == name]
        assert rows["session_ms"].tolist() == list(days)
        judged = rows[rows["signals"] > 0]
        for column in ("stake", "wealth", "closing"):
            assert judged[column].tolist() == getattr(path, column).tolist()
        assert judged["open"].tolist() == path.open.astype(int).tolist()
        assert rows["crossed"].tolist() == [day.crossed for day in days.values()]
        assert rows["incomplete"].tolist() == [day.incomplete for day in days.values()]
    assert strategy.evidence["incomplete"].sum() > 0
    assert strategy.evidence["wealth"].max() > 20


def test_waiting_costs_no_evidence():
    """Signals that count only where they were traded."""
    world = two_symbols()
    traded, waited = (run(world, evidence=rule) for rule in ("trade", "wait"))
    pd.testing.assert_frame_equal(traded.evidence, waited.evidence)
    assert len(traded.trades) > len(waited.trades) > 0


def entries(strategy):
    bought = strategy.fills[(strategy.fills["status"] == "filled")]
    return bought[bought["side"] == "buy"]["created_ms"]


def test_no_entry_before_there_is_evidence_and_none_once_it_is_gone():
    """An account that trades on nothing, or on what is over; an exit that waits."""
    strategy = run({"A": market(days=140, skill_until=70)}, evidence="wait", fraction=0.5)
    rows = strategy.evidence.set_index("session_ms")["open"]
    known = {day + DAY_MS: bool(is_open) for day, is_open in rows.items()}
    state, by_day = False, {}
    for day in range(MIDNIGHT_MS, MIDNIGHT_MS + 140 * DAY_MS, DAY_MS):
        state = known.get(day, state)
        by_day[day] = state
    days = entries(strategy) // DAY_MS * DAY_MS
    assert set(by_day.values()) == {True, False}
    assert all(by_day[day] for day in days)
    assert not by_day[MIDNIGHT_MS + 139 * DAY_MS]  # closed again by the end
    assert float(strategy.equity["exposure"].iloc[-1]) == 0.0
    blocked = strategy.fills[strategy.fills["reason"] == "evidence"]
    assert set(blocked["status"]) == {"refused"}
    assert not any(by_day[day] for day in blocked["created_ms"] // DAY_MS * DAY_MS)
    assert blocked["detail"].str.contains("of the 20 needed").all()


def test_the_rule_to_trade_changes_no_order():
    """A meter that gets in the way of those who did not ask for it."""
    world = two_symbols()
    with_meter = run(world)
    without = run(world, evidence_settings=EvidenceSettings(horizon=24))  # no evidence possible
    assert without.meter is None
    pd.testing.assert_frame_equal(with_meter.fills, without.fills)
    pd.testing.assert_frame_equal(with_meter.equity, without.equity)


@pytest.mark.parametrize("hour", [0, 1, 2, 13, 23])
def test_later_candles_change_nothing_before_them(hour):
    """A day that is weighed before its outcomes are known: cuts just after midnight show it."""
    candles, scores = market(seed=3)
    whole = run({"A": (candles, scores)}, evidence="wait")
    cut_ms = MIDNIGHT_MS + 40 * DAY_MS + hour * HOUR_MS
    keep = int(np.searchsorted(candles.open_time + HOUR_MS, cut_ms, side="right"))
    part = run({"A": (candles[:keep], scores[:keep])}, evidence="wait")
    known = whole.evidence[whole.evidence["session_ms"] + DAY_MS <= cut_ms]
    assert len(known) > 20
    pd.testing.assert_frame_equal(part.evidence, known)
    assert entries(part).tolist() == [at for at in entries(whole) if at < cut_ms]


def test_only_signals_that_the_account_may_enter_on_count():
    """A spot account that buys on the strength of its sell signals."""
    world = two_symbols()
    counts = [
        int(run(world, evidence_settings=EvidenceSettings(sides=sides)).evidence["signals"].sum())
        for sides in ("trade", "both")
    ]
    assert 0 < counts[0] < counts[1]


def test_nobody_waits_for_what_cannot_come():
    """A strategy that waits for good, and does not say so."""
    world = {"A": market(days=2)}
    nothing_due = {"hold_candles": 0, "evidence_settings": None}
    with pytest.raises(RecipeError, match="when a signal's outcome is due"):
        run(world, evidence="wait", **nothing_due)
    with pytest.raises(RecipeError, match="never known on the day"):
        run(world, evidence="wait", evidence_settings=EvidenceSettings(horizon=24))
    with pytest.raises(RecipeError, match="evidence must be"):
        run(world, evidence="maybe")
    assert run(world, **nothing_due).meter is None


def test_costs_are_those_of_the_account():
    """Evidence at 22 bps for an account that pays 40."""
    data = type("Feed", (), {"_name": "A"})()
    assert round_trip_cost_bps(SpotBroker(fee_bps=7.5, slippage_bps=2), data) == 19.0
    plain = bt.brokers.BackBroker(slip_perc=0.0005)
    plain.setcommission(commission=0.001)
    assert round_trip_cost_bps(plain, data) == pytest.approx(2 * (10 + 5))
    fixed = bt.brokers.BackBroker()
    fixed.setcommission(commission=2.0, margin=100.0)
    with pytest.raises(RecipeError, match="fixed amounts"):
        round_trip_cost_bps(fixed, data)


def test_a_broker_with_fixed_fees_still_trades(caplog):
    """A run that fails for a meter nobody asked for; or that says nothing."""
    broker = bt.brokers.BackBroker(cash=10_000)
    broker.setcommission(commission=2.0, margin=100.0)
    caplog.set_level("INFO")
    strategy = run({"A": market(days=3)}, broker=broker)
    assert strategy.meter is None
    assert "fixed amounts" in caplog.text
    assert len(strategy.evidence) == 0


def test_a_restored_meter_continues_to_the_last_bit():
    """A restart in the middle of a day, after which E is another number."""
    measures = {"A": Measure(HORIZON, HOUR_MS, COST_BPS), "B": Measure(HORIZON, HOUR_MS, COST_BPS)}
    rng = np.random.default_rng(0)
    steps = rng.integers(-1, 2, (24 * 30, 2)).tolist()
    prices = (100 * np.exp(np.cumsum(rng.normal(0, 0.01, (24 * 30, 2)), axis=0))).tolist()

    def advance(meter: EvidenceMeter, bars: range, offset: int = 0) -> None:
        for bar in bars:
            stamp = MIDNIGHT_MS + bar * HOUR_MS
            if stamp % DAY_MS == 0:
                meter.begin_day(stamp)
            for place, shadow in enumerate(meter.shadows.values()):
                price, side = prices[bar][place], steps[bar][place]
                shadow.see(bar - offset, stamp, price, side, meter.session_ms)

    whole, again = (EvidenceMeter(SETTINGS, measures) for _ in range(2))
    advance(whole, range(0, 251))
    again.restore(json.loads(json.dumps(whole.snapshot({"A": 250, "B": 250}))), {"A": 50, "B": 50})
    seen = len(whole.rows)
    advance(whole, range(251, 720))
    advance(again, range(251, 720), offset=200)
    assert whole.rows[seen:] == again.rows
    assert len(again.rows) == 19
    assert not math.isnan(again.rows[-1]["wealth"])
