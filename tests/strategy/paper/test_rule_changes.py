"""The exchange's rules change while a session runs: from which bar on, and again after a kill."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import backtrader as bt
import pytest

from cppncripto_strategy.errors import SessionError
from cppncripto_strategy.feeds.binance.filters import symbol_info
from cppncripto_strategy.feeds.clock import HOUR_MS
from cppncripto_strategy.feeds.filters import PLANTED_FILTERS
from cppncripto_strategy.feeds.live.notices import RulesChanged, SymbolBack, SymbolStopped
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.feeds.replay import ReplayFeed
from cppncripto_strategy.paper.exchange_events import exchange_rows, in_words
from cppncripto_strategy.paper.networks import SessionTimeline
from cppncripto_strategy.paper.parity import compare
from cppncripto_strategy.paper.recorder import SymbolView
from cppncripto_strategy.paper.recording import Recording
from cppncripto_strategy.paper.rule_changes import (
    RuleChange,
    RuleJournal,
    latest_rules,
    read_rule_changes,
    session_filters,
)
from cppncripto_strategy.paper.screen import symbols_table
from cppncripto_strategy.paper.session import SessionFolder
from cppncripto_strategy.paper.trader import PaperSession, session_broker

ACCOUNT = {"cash": 10_000.0, "fee_bps": 10.0, "slippage_bps": 1.0}


def entry(step: str, symbol: str = "X") -> dict[str, Any]:
    """An entry of exchangeInfo with this quantity step."""
    rules = dataclasses.replace(
        PLANTED_FILTERS.filters, lot_step=Decimal(step), min_qty=Decimal(step)
    )
    return symbol_info(symbol, rules)


class InAndOut(bt.Strategy):
    """Buys and sells in turns, one order per bar."""

    def next(self) -> None:
        if self.position:
            self.close()
        else:
            self.buy(size=10.123456)


@pytest.mark.parametrize(
    "mode",
    [{}, {"runonce": False}, {"preload": False, "runonce": False}, {"exactbars": 1}],
    ids=str,
)
def test_account_obeys_from_the_bar_of_the_change_on(mode: dict[str, Any]) -> None:
    """A rule that comes a bar early in one mode of Cerebro: live and replay differ by an order."""
    candles = generate(PlantedSettings(days=1, interval="1h")).candles
    closes = candles.open_time + HOUR_MS
    changes = [
        RuleChange(int(closes[7]), entry("1")),
        RuleChange(int(closes[15]) - 1, entry("0.5")),  # between two bars: the later one
    ]
    cerebro = bt.Cerebro(stdstats=False, **mode)
    gate = lambda _data: True  # noqa: E731
    cerebro.broker = session_broker(ACCOUNT, [entry("0.00001")], gate, cerebro, changes)
    cerebro.adddata(ReplayFeed(candles=candles, interval_ms=HOUR_MS, name="X"))
    cerebro.addstrategy(InAndOut)
    cerebro.run()
    bought = {
        int(fill.executed_ms): fill.quantity
        for fill in cerebro.broker.fills
        if fill.status == "filled" and fill.side == "buy"
    }
    assert len(bought) >= 8
    for executed_ms, quantity in bought.items():
        step = 10.12345 if executed_ms < closes[7] else 10.0
        assert quantity == step, executed_ms
    assert session_filters([entry("0.5")])["X"].lot_step == Decimal("0.5")


class BuysThenSells(bt.Strategy):
    """One purchase under the first rule, one sale under the next."""

    def next(self) -> None:
        if len(self) == 5:
            self.buy(size=10.123456)
        if len(self) == 12:
            self.close()


@pytest.mark.parametrize(("step", "sold"), [("0.01", 10.12), ("0.5", 10.0), ("1", 10.0)])
def test_step_that_grows_while_a_position_is_held_moves_no_coin(step: str, sold: float) -> None:
    """The rest of a sale put on the new step: coins from nowhere, a refused account."""
    candles = generate(PlantedSettings(days=1, interval="1h")).candles
    changes = [RuleChange(int(candles.open_time[8]) + HOUR_MS, entry(step))]
    cerebro = bt.Cerebro(stdstats=False)
    gate = lambda _data: True  # noqa: E731
    cerebro.broker = session_broker(ACCOUNT, [entry("0.00001")], gate, cerebro, changes)
    cerebro.adddata(ReplayFeed(candles=candles, interval_ms=HOUR_MS, name="X"))
    cerebro.addstrategy(BuysThenSells)
    [strategy] = cerebro.run()
    [bought, sale] = [fill for fill in cerebro.broker.fills if fill.status == "filled"]
    assert (bought.quantity, sale.quantity) == (10.12345, sold)
    assert strategy.position.size == pytest.approx(10.12345 - sold, rel=1e-9)
    assert cerebro.broker.is_dust(strategy.data)


def change_at(close_ms: int, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the exchange state other rules just before a round is shown."""
    before_round = RuleJournal.before_round

    def heard(journal: RuleJournal, moment_ms: int) -> list[RuleChange]:
        if moment_ms == close_ms:
            journal.hear(change)
        return before_round(journal, moment_ms)

    monkeypatch.setattr(RuleJournal, "before_round", heard)


def test_change_is_replayed_after_a_stop_and_by_parity(
    papers: Any, toy_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart under the first day's steps: the account is rebuilt with orders it never sent."""
    path, candles, _, start_ms = toy_session
    change_ms = start_ms // HOUR_MS * HOUR_MS + 12 * HOUR_MS
    with monkeypatch.context() as patch:
        change_at(change_ms, entry("1"), patch)
        papers.trade(path, candles, start_ms, change_ms + 30 * HOUR_MS)
    papers.trade(path, candles, change_ms + 31 * HOUR_MS, change_ms + 75 * HOUR_MS)
    first, second = read_rule_changes(path)
    assert first == RuleChange(change_ms, entry("1"))
    # The exchange itself never stated that: the restart finds other rules than were recorded.
    assert second.close_ms == change_ms + 31 * HOUR_MS
    recording = Recording.read(path)
    bought = [
        (fill["executed_ms"], fill["quantity"])
        for fill in recording.derived["fills"]
        if fill["status"] == "filled" and fill["side"] == "buy"
    ]
    between = [quantity for ms, quantity in bought if change_ms <= ms < second.close_ms]
    outside = [quantity for ms, quantity in bought if not change_ms <= ms < second.close_ms]
    assert between
    assert all(quantity == round(quantity) for quantity in between)
    assert any(quantity != round(quantity) for quantity in outside), bought
    report = compare(path, papers.options(SessionTimeline.of_session(path)))
    assert report.differences == []
    assert report.compared["backtest: fills"] > 0
    # Without the journal both replays must notice, else they compare nothing.
    (path / "rules.jsonl").unlink()
    assert compare(path, papers.options(SessionTimeline.of_session(path))).differences


def test_notices_reach_journal_events_view_and_words(toy_session: Any) -> None:
    """A symbol that stopped, and a screen that shows its old price as if nothing were."""
    path, *_ = toy_session
    told: list[dict[str, Any]] = []
    with SessionFolder(path) as folder:
        session = PaperSession(folder, {}, on_event=told.append)
        session.view.symbols["X"] = SymbolView(position=0.5)
        hear = session._hear
        hear(RulesChanged("X", entry("0.1"), entry("1"), ("LOT_SIZE",), 7))
        hear(SymbolStopped("X", "the exchange does not list it", 30.0, 2))
        assert "X (stopped)" in str(symbols_table(session.view, {}, 0).columns[0]._cells[0])
        assert session.view.stopped == {"X": "the exchange does not list it"}
        hear(SymbolBack("X"))
        assert session.view.stopped == {}
        assert folder.rules.before_round(HOUR_MS) == [RuleChange(HOUR_MS, entry("1"))]
        assert folder.rules.before_round(2 * HOUR_MS) == []
    assert [event["kind"] for event in told] == ["rules_changed", "symbol_stopped", "symbol_back"]
    events = [e for e in Recording.read(path).events if in_words(e)]
    words = [row["what"] for row in exchange_rows(events)]
    assert "X: the exchange changed LOT_SIZE; orders follow it" in words[0]
    assert "its position of 0.5 is kept, not traded, and marked at its last price" in words[1]
    assert "X is back" in words[2]
    json.dumps(told, allow_nan=False)


def test_latest_rules_are_the_last_stated() -> None:
    """A restart that takes the first day's rules for the present ones, and hears a change anew."""
    changes = [RuleChange(1, entry("1")), RuleChange(2, entry("2"))]
    other = entry("0.1", "Y")
    assert latest_rules([entry("0.1"), other], changes) == {"X": entry("2"), "Y": other}


def test_damaged_journal_of_rules_is_refused(tmp_path: Path) -> None:
    """Rules that are passed over, and an account that differs by an order."""
    journal = RuleJournal(tmp_path)
    for close_ms in (1, 2):
        journal.hear(entry("1"))
        journal.before_round(close_ms)
    journal.close()
    path = tmp_path / "rules.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"t":1', b'"t":9'))
    with pytest.raises(SessionError, match=r"rules\.jsonl, line 1 of 2 is damaged"):
        read_rule_changes(tmp_path)
