"""The strategy that writes down everything it does, and what screens may look at meanwhile.

Left out: the journals' files (`session`), and running Cerebro (`trader`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from cppncripto_strategy.broker import SpotBroker
from cppncripto_strategy.errors import CheckpointError
from cppncripto_strategy.feeds.candles import Row
from cppncripto_strategy.feeds.clock import DAY_MS, num_to_ms
from cppncripto_strategy.feeds.live.rounds import Round, RoundSource, now_s
from cppncripto_strategy.foreign import reading
from cppncripto_strategy.ledger import Fill
from cppncripto_strategy.paper.session import Sink
from cppncripto_strategy.strategy import MacroMicroStrategy
from cppncripto_strategy.symbol_state import Decision

Event = Callable[[dict[str, Any]], None]
"""Called with one plain dictionary per event; `kind` says what it is."""


def nobody(event: dict[str, Any]) -> None:
    """An event listener that does not listen."""


@dataclass(slots=True)
class SymbolView:
    """What a person wants to see of one symbol; the last decision's numbers."""

    close: float = float("nan")
    close_time_ms: int = 0
    score: float = float("nan")
    upper: float = float("nan")
    lower: float = float("nan")
    position: float = 0.0


@dataclass(slots=True)
class SessionView:
    """What a person wants to see; written by Backtrader's thread, read by screens."""

    symbols: dict[str, SymbolView] = field(default_factory=dict)
    equity: float = float("nan")
    cash: float = float("nan")
    day_start_equity: float = float("nan")
    peak_equity: float = float("nan")
    status: str = "DELAYED"
    close_ms: int = 0
    rounds: int = 0
    orders: int = 0
    missed: int = 0
    evidence: dict[str, tuple[float, float, bool]] = field(default_factory=dict)
    """Bet ("account", or a symbol) -> its wealth, what is needed, whether there is evidence."""
    replaying: bool = False
    stopped: dict[str, str] = field(default_factory=dict)
    """Symbols that the stream does not wait for and that are not traded now, and why."""


# Of the view, what is counted or compared over rounds; the rest is of the present one.
_MONEY = ("equity", "cash", "day_start_equity", "peak_equity")
_KEPT_OF_VIEW = (*_MONEY, "close_ms", "rounds", "orders", "missed")


class PaperStrategy(MacroMicroStrategy):
    """MacroMicroStrategy that writes down everything it does, and can continue where one was.

    Params
    ------
    recorder : Recorder of the session; the rest as for MacroMicroStrategy.
    resume : a `snapshot`, or None to begin at the beginning. Its `bars` are shown first, each
        symbol's last one, and nothing is decided on them.
    """

    params = (("recorder", None), ("resume", None))

    def __init__(self) -> None:
        super().__init__()
        resume = self.p.resume
        self._again = 0 if resume is None else len(rounds_of_bars(resume["bars"]))
        self._stamps = [data.lines.datetime for data in self.datas]
        self._dlens: list[int] = []
        self._minperstatus = 0

    def _clk_update(self) -> int:
        """Backtrader's step of the strategy's clock, in fewer steps where symbols are many."""
        if self._oldsync:
            return int(super()._clk_update())
        bars = [line.lencount for line in self._stamps]
        if any(now > before for now, before in zip(bars, self._dlens, strict=True)):
            self.forward()
        begun = (line.array[line._idx] for line in self._stamps if line.lencount)
        self.lines.datetime[0] = max(begun)
        self._dlens = bars
        return len(self)

    def _getminperstatus(self) -> int:
        """Bars that the feed which waits for most still lacks; below 0, none."""
        lacking = zip(self._minperiods, self._stamps, strict=True)
        self._minperstatus = max(period - line.lencount for period, line in lacking)
        return self._minperstatus

    def decided(self, decision: Decision) -> None:
        """Record a decision before its orders."""
        self.p.recorder.decided(decision)

    def next(self) -> None:
        """Decide, then record what the round did to the account."""
        if self._again:
            self._again -= 1
            if not self._again:
                with reading(Path("checkpoint.bin"), "state of a session", CheckpointError):
                    self._restore(self.p.resume)
            return
        super().next()
        self.p.recorder.round_decided()
        self.p.recorder.round_done(self)

    def snapshot(self) -> dict[str, Any]:
        """All that later rounds depend on, between two rounds: numbers, texts, arrays, no objects.

        Left out: Backtrader's own trades and the embeddings of days gone by, which nothing reads.

        Raises
        ------
        AccountError, RecipeError
            When a part cannot hand its state over.
        """
        return {
            "bars": {data._name: _bar(data) for data in self.datas if len(data)},
            "symbols": {state.data._name: state.snapshot() for state in self.states},
            "account": self.broker.snapshot(),
            "session": [self._session_ms, self._session_equity, self._entries_blocked],
            "evidence": None if self.meter is None else self.meter.snapshot(self._bars()),
            "recorder": self.p.recorder.snapshot(),
        }

    def _restore(self, kept: dict[str, Any]) -> None:
        orders = self.broker.restore(kept["account"], self)
        for state in self.states:
            symbol = state.data._name
            state.restore(kept["symbols"][symbol], orders.get(symbol))
        self._session_ms, self._session_equity, self._entries_blocked = kept["session"]
        if self.meter is not None:
            self.meter.restore(kept["evidence"], self._bars())
        self.p.recorder.restore(kept["recorder"])

    def _bars(self) -> dict[str, int]:
        """Number of each symbol's present bar."""
        return {state.data._name: state.bars - 1 for state in self.states}


def _bar(data: Any) -> list[float]:
    """The present bar: close time (UTC ms), open, high, low, close, volume, takers' purchases."""
    names = ("open", "high", "low", "close", "volume", "taker_buy_volume")
    values = [float(getattr(data.lines, name)[0]) for name in names]
    return [num_to_ms(data.lines.datetime[0]), *values]


def rounds_of_bars(bars: Mapping[str, Sequence[float]]) -> list[Round]:
    """Each symbol's last bar (as `PaperStrategy.snapshot` gives them) as rounds, oldest first.

    The columns that no bar carries are NaN.
    """
    nan = float("nan")
    rounds: dict[int, dict[str, Row]] = {}
    for symbol, (close_ms, *prices, volume, taker) in sorted(bars.items()):
        row = (nan, *prices, volume, nan, nan, taker, nan)
        rounds.setdefault(int(close_ms), {})[symbol] = row
    return [Round(close_ms, candles) for close_ms, candles in sorted(rounds.items())]


class Recorder:
    """Writes a session's derived journals and its view; lives as long as the session runs.

    Parameters
    ----------
    derived : where records of each kind go.
    source : the rounds being shown.
    on_event : listener.
    settle : called after each round's records: puts them on disk.
    after_round : called with the strategy when a round is over and on disk.
    timed : called with (close, UTC ms; seconds from the arrival of the last candle to the last
        order) of each live round, once it is decided.

    Attributes
    ----------
    view : SessionView.
    latency_s : those seconds of the last rounds.
    """

    def __init__(
        self,
        derived: Mapping[str, Sink],
        source: RoundSource,
        on_event: Event = nobody,
        settle: Callable[[], None] = lambda: None,
        after_round: Callable[[PaperStrategy], None] = lambda _strategy: None,
        timed: Callable[[int, float], None] = lambda _close_ms, _latency_s: None,
    ) -> None:
        self._derived, self._source, self._on_event = derived, source, on_event
        self._settle, self._after_round, self._timed = settle, after_round, timed
        self._untold: list[dict[str, Any]] = []  # told once the round is on disk
        self._session_ms = -1
        self._went_live = False
        self.view = SessionView()
        self.latency_s: deque[float] = deque(maxlen=100_000)

    def snapshot(self) -> dict[str, Any]:
        """What later records and the view depend on."""
        view = {name: getattr(self.view, name) for name in _KEPT_OF_VIEW}
        symbols = {symbol: asdict(seen) for symbol, seen in self.view.symbols.items()}
        return {
            "session_ms": self._session_ms,
            "went_live": self._went_live,
            "view": view,
            "symbols": symbols,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Continue where another recorder was."""
        self._session_ms, self._went_live = kept["session_ms"], kept["went_live"]
        for name, value in kept["view"].items():
            setattr(self.view, name, value)
        self.view.symbols.update({s: SymbolView(**seen) for s, seen in kept["symbols"].items()})

    def decided(self, decision: Decision) -> None:
        """One candle of one symbol as it was judged."""
        record = _flat(decision)
        self._derived["decisions"].add(record)
        self._went_live = self._went_live or self._source.status == "LIVE"
        seen = self._seen(decision.symbol)
        seen.close, seen.close_time_ms = decision.close, decision.close_time_ms
        seen.score, seen.upper, seen.lower = decision.score, decision.upper, decision.lower
        if self._told:
            self._untold.append({"kind": "decision", **record})

    def _seen(self, symbol: str) -> SymbolView:
        """What is shown of a symbol."""
        seen = self.view.symbols.get(symbol)
        if seen is None:
            seen = self.view.symbols[symbol] = SymbolView()
        return seen

    @property
    def _live(self) -> bool:
        replaying: bool = getattr(self._source, "replaying", True)
        return not replaying

    @property
    def _told(self) -> bool:
        """Whether listeners hear of it: not of the warm-up, nor of what is only replayed."""
        return self._live and self._went_live

    def round_decided(self) -> None:
        """Every order of the round is made."""
        moment = self._source.current
        if (
            moment is not None
            and moment.received_s
            and self._live
            and self._source.status == "LIVE"
        ):
            self.latency_s.append(now_s() - moment.received_s)
            self._timed(moment.close_ms, self.latency_s[-1])

    def round_done(self, strategy: PaperStrategy) -> None:
        """The account after a round."""
        moment = self._source.current
        if moment is None:
            return
        self._note_fills(strategy.broker)
        equity, cash = float(strategy.broker.getvalue()), float(strategy.broker.getcash())
        if not moment.catch_up:
            row = {"t": moment.close_ms, "equity": equity, "cash": cash}
            self._derived["equity"].add(row)
            self._note_embeddings(strategy, moment.close_ms)
        self._note_evidence(strategy)
        self._settle()
        untold, self._untold = self._untold, []
        for event in untold:
            self._on_event(event)
        self._look(strategy, moment, equity, cash)
        _forget(strategy)
        self._after_round(strategy)

    def _note_fills(self, broker: SpotBroker) -> None:
        for fill in broker.fills:
            record = _flat(fill)
            self._derived["fills"].add(record)
            late = fill.status == "refused" and fill.reason == "can_trade"
            self.view.missed += late and self._went_live
            self.view.orders += not late and fill.reason != "evidence"
            if self._told:
                self._untold.append({"kind": "fill", **record})

    def _note_evidence(self, strategy: PaperStrategy) -> None:
        """The days that were weighed since the round before, and how every bet stands."""
        if strategy.meter is None:
            return
        rows, strategy.meter.rows = strategy.meter.rows, []
        for record in rows:
            self._derived["evidence"].add(record)
            if self._told:
                self._untold.append({"kind": "evidence", **record})
        for name, bet in strategy.meter.bets.items():
            self.view.evidence[name] = (bet.wealth, bet.needed, bet.open)

    def _note_embeddings(self, strategy: MacroMicroStrategy, close_ms: int) -> None:
        """The active embeddings, once per day and symbol."""
        session_ms = close_ms // DAY_MS * DAY_MS
        if session_ms == self._session_ms:
            return
        self._session_ms = session_ms
        for state in strategy.states:
            macro = getattr(state.score, "macro", None)
            if macro is None or macro.vector is None or not len(state.data):
                continue
            latest = macro.stream.state
            row = {
                "symbol": state.data._name,
                "session_ms": session_ms,
                "valid_from_ms": latest.session_ms,
                "model_hash": macro.timeline.bundles[latest.bundle].model_hash,
                "drift": float(latest.drift),
                "vector": np.asarray(macro.vector, dtype=np.float64),
            }
            self._derived["embeddings"].add(row)

    def _look(self, strategy: Any, moment: Round, equity: float, cash: float) -> None:
        view = self.view
        view.status, view.replaying = self._source.status, not self._live
        view.close_ms, view.rounds = moment.close_ms, view.rounds + 1
        new_day = moment.close_ms % DAY_MS == 0 or view.day_start_equity != view.day_start_equity
        view.day_start_equity = equity if new_day else view.day_start_equity
        view.equity, view.cash = equity, cash
        view.peak_equity = max(equity, view.peak_equity) if view.rounds > 1 else equity
        for state in strategy.states:
            seen = self._seen(state.data._name)
            seen.position = float(strategy.broker.getposition(state.data).size)


def _forget(strategy: Any) -> None:
    """Let go of what is over: Backtrader keeps every order and trade, about 7 kB each, forever.

    The journals have them; results are made from there.
    """
    broker = strategy.broker
    broker.fills.clear()
    broker.ledger.clear()
    broker.orders[:] = [order for order in broker.orders if order.alive()]
    strategy._orders.clear()
    over = [ref for ref, kin in broker._pchildren.items() if not any(o.alive() for o in kin)]
    for ref in over:
        del broker._pchildren[ref]
    waiting = {order.ref for order in broker.orders}
    for groups in (broker._ocos, broker._ocol):
        for ref in [ref for ref in groups if ref not in waiting]:
            del groups[ref]
    for state in strategy.states:
        forget = getattr(getattr(state.score, "macro", None), "forget", None)
        if forget is not None:
            forget()
    for trades in strategy._trades.values():
        for history in trades.values():
            del history[:-1]


def _flat(record: Decision | Fill) -> dict[str, Any]:
    """A flat dataclass as a dictionary (`dataclasses.asdict` copies deeply: ten times the cost)."""
    names = record.__slots__
    return dict(zip(names, attrgetter(*names)(record), strict=True))
