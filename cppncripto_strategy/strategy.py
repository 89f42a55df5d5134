"""MacroMicroStrategy: scores in, spot orders out, with everything it decided on record.

At every closed candle of a symbol it compares the symbol's score with its thresholds: at or above
`upper` it buys, at or below `lower` it sells (out of the position; short only where the account
allows it). Holding limits, a cooldown, a stop and a maximum daily loss are optional. One account
trades several symbols, each with its own networks. The same code runs in a backtest and live.

What it assumes: decisions are made on a closed candle and orders fill at the next open; the stop is
a market order sent after a close beyond the stop price, so it fills at the open after that, maybe
far beyond the stop. Left out: pyramiding, limit orders, rebalancing of an open position.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import backtrader as bt
import pandas as pd

from cppncripto_strategy import tables
from cppncripto_strategy.broker import Entry
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.evidence_meter import meter_of
from cppncripto_strategy.fast_loop import FastLoop, fast_loop
from cppncripto_strategy.feeds.clock import DAY_MS, num_to_ms
from cppncripto_strategy.indicators.bulk import forward_in_bulk
from cppncripto_strategy.indicators.threshold import AdaptiveThreshold
from cppncripto_strategy.lines import named_line, score_line
from cppncripto_strategy.memory import return_pages
from cppncripto_strategy.models.scoring.threshold import signal_of
from cppncripto_strategy.runonce import (
    QuickStep,
    give_up_lines,
    hears_only_orders,
    quick_step,
)
from cppncripto_strategy.sizing import make_sizing
from cppncripto_strategy.symbol_state import Decision, SymbolState

log = logging.getLogger(__name__)


class MacroMicroStrategy(bt.Strategy):
    """Trade scores against their thresholds, one account over all of Cerebro's feeds.

    Params
    ------
    bundles : path or timeline handed to `indicators.micro.MicroScore` when no score_factory.
    score_factory : callable(data) -> indicator whose lines include score (else its first line is
        taken), and optionally p_buy, p_sell, score_zero, and an attribute `macro` (an indicator
        with lines drift and age, ms).
    traded_line : "score", or "score_zero" to trade the score under a zero embedding.
    fraction : share of equity per symbol, in (0, 1]; None divides equally among the feeds.
    sizing : "fraction", or "volatility": as much as keeps the account at target_volatility, its
        parts being `fraction`; see `sizing.VolatilityTarget`.
    target_volatility : of the account, annual, as a fraction of its equity.
    hold_candles : candles after which a position is closed; 0 is no limit.
    renew_hold : a fresh signal in the position's direction restarts hold_candles.
    min_hold : candles before an opposite signal may close a position (stops always may).
    cooldown_candles : candles after an exit without a new entry.
    stop_pct : percent from the entry price at which a close triggers a protective exit; 0 is none.
    max_daily_loss_pct : percent of the session's starting equity; once lost, no entries until the
        next UTC day. 0 is none.
    allow_short : sell short on a sell signal while flat; the broker must allow it too.
    evidence : "wait" sends no entry until there is evidence that signals earn more than their
        costs, and none once it is gone; "trade" only keeps count of it.
    evidence_settings : EvidenceSettings; None is its defaults. Without its horizon and without
        hold_candles nothing says when a signal's outcome is due, and no evidence is counted.
    window, quantile, threshold_mode, band, min_scores, seeds : see `AdaptiveThreshold`; seeds is a
        list for all symbols or {symbol: list}; None asks the score indicator's `bundle_seeds`.
    threshold_factory : callable(score_line, data, score) -> indicator with lines upper and lower,
        instead of `AdaptiveThreshold`.
    untraded : names of feeds that are not traded, such as a market symbol that networks only read.
    keep_rows : under exactbars=1, copy each bar's lines for the tables; False keeps memory flat in
        a long live session, which then has `decided` but no signals and equity tables.
    keep_lines : False gives the lines of indicators and feeds up while the tables are built at the
        end of a backtest: for who wants the tables alone, and their memory.
    plain_loop : in a backtest take every bar, instead of passing over those at which nothing can
        happen (`fast_loop`); the results are the same.

    Attributes (after the run, or at any time after `refresh_tables()`)
    ----------
    signals, fills, trades, equity, evidence : pandas DataFrames; see `tables`.
    meter : EvidenceMeter, or None where no evidence is counted.

    Raises
    ------
    RecipeError
        When a param is out of range, or neither bundles nor score_factory is given.

    Examples
    --------
    Any indicator can be the score; with `bundles=` instead of `score_factory` the networks are:

    >>> import backtrader as bt
    >>> from cppncripto_strategy import MacroMicroStrategy, ReplayFeed, SpotBroker
    >>> from cppncripto_strategy.feeds.planted import PlantedSettings, generate
    >>> market = generate(PlantedSettings(days=10, interval="5m"))
    >>> cerebro = bt.Cerebro(stdstats=False)
    >>> cerebro.broker = SpotBroker(cash=10_000, fee_bps=10, slippage_bps=1)
    >>> feed = ReplayFeed(candles=market.candles, interval_ms=300_000, name="PLANTED")
    >>> _ = cerebro.adddata(feed)
    >>> _ = cerebro.addstrategy(
    ...     MacroMicroStrategy,
    ...     score_factory=lambda data: bt.indicators.RateOfChange(data.close, period=12),
    ...     window=288,
    ...     hold_candles=12,
    ... )
    >>> [strategy] = cerebro.run()
    >>> len(strategy.signals), len(strategy.trades) > 0
    (2880, True)
    """

    params: Any = (
        ("bundles", None),
        ("score_factory", None),
        ("traded_line", "score"),
        ("fraction", None),
        ("sizing", "fraction"),
        ("target_volatility", 0.4),
        ("hold_candles", 0),
        ("renew_hold", False),
        ("min_hold", 0),
        ("cooldown_candles", 0),
        ("stop_pct", 0.0),
        ("max_daily_loss_pct", 0.0),
        ("allow_short", False),
        ("evidence", "trade"),
        ("evidence_settings", None),
        ("window", 2016),
        ("quantile", 0.15),
        ("threshold_mode", "adaptive"),
        ("band", None),
        ("min_scores", None),
        ("seeds", None),
        ("threshold_factory", None),
        ("untraded", ()),
        ("keep_rows", True),
        ("keep_lines", True),
        ("plain_loop", False),
    )

    if not TYPE_CHECKING:  # Backtrader's metaclass takes the params: mypy sees the base class's

        def __init__(self):
            super().__init__()
            self._build()

    forward = forward_in_bulk
    # Of orders, only what became of them: nobody else listens. For the broker and `runonce`.
    hears_only_ends = False

    def _build(self) -> None:
        self._check_params()
        make_score = self.p.score_factory or self._default_score
        make_threshold = self.p.threshold_factory or self._default_threshold
        self.states: list[SymbolState] = []
        for data in self._traded():
            score = make_score(data)
            by_score = self.p.traded_line == "score"
            traded = score_line(score) if by_score else named_line(score, self.p.traded_line)
            if traded is None:
                raise RecipeError(
                    f"traded_line={self.p.traded_line!r} is not a line of"
                    f" {type(score).__name__}: expected score or score_zero"
                )
            threshold = make_threshold(traded, data, score)
            self.states.append(SymbolState(data, score, threshold, self.p.traded_line))
        self._state_of = {id(state.data): state for state in self.states}
        self.meter = meter_of(self, [(state.data, state.interval_ms) for state in self.states])
        for state in self.states:
            state.shadow = self.meter.shadows[state.data._name] if self.meter is not None else None
        fraction = self.p.fraction or 1.0 / len(self.states)
        self._sizing = make_sizing(self.p.sizing, self.p.target_volatility, fraction, self.states)
        self._session_ms = -1
        self._session_equity = math.nan
        self._entries_blocked = False
        self._opened = self._gives_up = False
        self._quick_step: QuickStep | None = None
        self._fast_loop: FastLoop | None = None
        self._marks: list[tuple[int, float, float]] = []  # for brokers without a ledger
        self.signals = self.fills = self.trades = self.equity = self.evidence = pd.DataFrame()

    def _traded(self) -> list[Any]:
        """The feeds to trade. Raises RecipeError when `untraded` names none of them, or all."""
        named = {data._name for data in self.datas}
        strangers = sorted(set(self.p.untraded) - named)
        traded = [data for data in self.datas if data._name not in self.p.untraded]
        if strangers or not traded:
            what = f"names {', '.join(strangers)}, and" if strangers else "leaves nothing to trade:"
            raise RecipeError(f"untraded {what} Cerebro's feeds are {', '.join(sorted(named))}")
        return traded

    def _check_params(self) -> None:
        p = self.p
        if p.score_factory is None and p.bundles is None:
            raise RecipeError(
                "MacroMicroStrategy needs bundles=... (trained networks) or score_factory=..."
            )
        if p.fraction is not None and not 0 < p.fraction <= 1:
            raise RecipeError(f"fraction must lie in (0, 1], got {p.fraction}")
        for name in ("hold_candles", "min_hold", "cooldown_candles"):
            if not (isinstance(getattr(p, name), int) and getattr(p, name) >= 0):
                raise RecipeError(f"{name} must be a whole number >= 0, got {getattr(p, name)!r}")
        for name in ("stop_pct", "max_daily_loss_pct"):
            if not 0 <= getattr(p, name) < 100:
                raise RecipeError(f"{name} must lie in [0, 100), got {getattr(p, name)!r}")
        if p.hold_candles and p.min_hold > p.hold_candles:
            raise RecipeError(f"min_hold {p.min_hold} exceeds hold_candles {p.hold_candles}")

    def _default_score(self, data: Any) -> Any:
        from cppncripto_strategy.indicators import micro

        make: Any = micro.MicroScore
        return make(data, bundles=self.p.bundles)

    def _default_threshold(self, traded: Any, data: Any, score: Any) -> Any:
        seeds = self.p.seeds
        if seeds is None:  # a bundle's seeds are scores under its embedding, never under zero
            by_score = self.p.traded_line == "score"
            seeds = getattr(score, "bundle_seeds", ()) if by_score else ()
        if isinstance(seeds, dict):
            seeds = seeds.get(data._name, ())
        if self.p.threshold_mode == "static" and not len(seeds):
            raise RecipeError(
                f"static thresholds of {data._name!r} have no seeds to be made of: pass"
                " seeds=[(valid_from_ms, scores)], bundles that carry them, or adaptive thresholds"
            )
        return AdaptiveThreshold(
            traded,
            window=self.p.window,
            quantile=self.p.quantile,
            mode=self.p.threshold_mode,
            band=self.p.band,
            min_scores=self.p.min_scores,
            seeds=tuple(seeds),
        )

    # Hooks --------------------------------------------------------------------------------------

    def rollover(self, session_start_ms: int) -> None:
        """Called once per UTC day, before the day's first decision; override at will.

        Parameters
        ----------
        session_start_ms : UTC ms of the day's 00:00, also when the 00:00 candle is missing.
        """

    def decided(self, decision: Decision) -> None:
        """Called at every new candle of every symbol, before its orders; override at will.

        For live screens and decision logs. Costs nothing while it is not overridden.
        """

    # The candle ---------------------------------------------------------------------------------

    def prenext(self) -> None:
        """Trade the symbols that have bars while a late one has none yet."""
        self.next()

    def next(self) -> None:
        """Decide on every symbol whose bar is new."""
        if not self._opened:
            self._open_lines()
        new = [state for state in self.states if state.clock.lencount > state.bars]
        for state in new:  # all of them first: a size looks at what the other symbols are now
            state.bars = state.clock.lencount
        for state in new:
            if state.decides:
                self._on_candle(state, state.bars - 1)
        if not self._has_ledger:
            self._marks.append(self._mark())

    def _open_lines(self) -> None:
        self._opened = True
        self._has_ledger = hasattr(self.broker, "ledger")
        self._reports = type(self).decided is not MacroMicroStrategy.decided
        for state in self.states:
            state.readers = state.lines.open()

    def _on_candle(self, state: SymbolState, bar: int) -> None:
        readers = state.readers
        if not state.lines.keeps_past and self.p.keep_rows:
            state.lines.remember(bar)
        stamp_ms = num_to_ms(readers["stamp"](bar))
        if stamp_ms // DAY_MS * DAY_MS != self._session_ms:
            self._begin_session(stamp_ms)
        signal = signal_of(readers["traded"](bar), readers["upper"](bar), readers["lower"](bar))
        shadow = state.shadow
        if shadow is not None and (signal or stamp_ms >= shadow.due_ms):
            shadow.see(bar, stamp_ms, readers["close"](bar), signal, self._session_ms)
        if self._reports:
            self.decided(self._decision(state, bar, stamp_ms, signal))
        if state.order is not None and state.order.alive():
            return
        size = self.broker.getposition(state.data).size
        if size and not self._is_dust(state):
            self._manage(state, bar, stamp_ms, size, signal)
        elif not (signal > 0 or (signal and self.p.allow_short)):
            return
        elif stamp_ms >= state.no_entry_before_ms:
            self._enter(state, signal)

    def _decision(self, state: SymbolState, bar: int, stamp_ms: int, signal: int) -> Decision:
        judged = state.lines.judged(bar)
        close, score, p_buy, p_sell, score_zero, upper, lower, drift, age_ms = judged
        return Decision(
            symbol=state.data._name,
            close_time_ms=stamp_ms,
            close=close,
            score=score,
            p_buy=p_buy,
            p_sell=p_sell,
            score_zero=score_zero,
            upper=upper,
            lower=lower,
            signal=signal,
            drift=drift,
            age_ms=age_ms,
        )

    def _begin_session(self, stamp_ms: int) -> None:
        session_ms = stamp_ms // DAY_MS * DAY_MS
        if session_ms < self._session_ms:
            return  # a symbol that lags behind the others does not reopen yesterday
        self._session_ms = session_ms
        self._session_equity = self.broker.getvalue()
        self._entries_blocked = False
        if self.meter is not None:
            self.meter.begin_day(session_ms)
        self.rollover(session_ms)

    def _day_is_lost(self) -> bool:
        if self.p.max_daily_loss_pct and not self._entries_blocked:
            floor = self._session_equity * (1.0 - self.p.max_daily_loss_pct / 100.0)
            self._entries_blocked = self.broker.getvalue() <= floor
        return self._entries_blocked

    def _enter(self, state: SymbolState, signal: int) -> None:
        """Send an entry, or leave a row that says why there is none."""
        waiting = self.meter.why_waiting(state.data._name) if self.meter is not None else ""
        if waiting:
            self._note_unsent(state, signal, 0.0, "evidence", waiting)
            return
        if self._day_is_lost():
            lost = f"{self.p.max_daily_loss_pct:g} % of the day's starting equity was lost"
            self._note_unsent(state, signal, 0.0, "daily_loss", f"{lost}: no entries until 00:00")
            return
        state.exit_reason = ""  # of an earlier exit that left only dust
        share = self._sizing.share(state, self.broker)
        if share.reason:
            self._note_unsent(state, signal, 0.0, share.reason, share.detail)
            return
        entry = self._entry(state, share.value * self.broker.getvalue())
        if entry.quantity <= 0:
            self._note_unsent(state, signal, entry.wanted, entry.reason, entry.detail)
            return
        send = self.buy if signal > 0 else self.sell
        note = {"note": entry.detail} if entry.detail else {}
        state.order = send(data=state.data, size=entry.quantity, purpose="signal", **note)

    def _note_unsent(
        self, state: SymbolState, signal: int, quantity: float, reason: str, detail: str
    ) -> None:
        note = getattr(self.broker, "note_unsent", None)
        if note is not None:
            note(state.data, "buy" if signal > 0 else "sell", quantity, reason, detail)

    def _manage(
        self, state: SymbolState, bar: int, stamp_ms: int, size: float, signal: int
    ) -> None:
        """Leave a position when a rule says so; an exit that did not fill is sent again."""
        direction = 1 if size > 0 else -1
        candles_held = (stamp_ms - state.entry_open_ms) // state.interval_ms
        if signal == direction and self.p.renew_hold:
            state.entry_open_ms, candles_held = stamp_ms, 0
        reason = state.exit_reason or self._exit_reason(state, bar, direction, candles_held, signal)
        if reason:
            state.exit_reason = reason
            send = self.sell if direction > 0 else self.buy
            state.order = send(data=state.data, size=abs(size), purpose=reason)

    def _exit_reason(
        self, state: SymbolState, bar: int, direction: int, candles_held: int, signal: int
    ) -> str:
        if self.p.stop_pct:
            # Judged on the close: the exit fills at the next open, never at the stop price.
            moved = direction * (state.readers["close"](bar) / state.entry_price - 1.0)
            if moved <= -self.p.stop_pct / 100.0:
                return "stop"
        if self.p.hold_candles and candles_held >= self.p.hold_candles:
            return "hold_limit"
        return "signal" if signal == -direction and candles_held >= self.p.min_hold else ""

    def _entry(self, state: SymbolState, notional: float) -> Entry:
        ask = getattr(self.broker, "entry", None)
        if ask is not None:
            return ask(state.data, notional)  # type: ignore[no-any-return]
        # Other brokers: leave 50 bps of cash for the fee and the move to the next open.
        quantity = min(notional, self.broker.getcash() / 1.005) / state.data.close[0]
        return Entry(float(quantity), float(quantity), "", "")

    def _is_dust(self, state: SymbolState) -> bool:
        ask = getattr(self.broker, "is_dust", None)
        return bool(ask(state.data)) if ask is not None else False

    def notify_order(self, order: Any) -> None:
        """Follow an order to its end: entry price and time, cooldown, exits to send again."""
        state = self._state_of.get(id(order.data))
        if state is None or order.status != order.Completed:
            return
        opened_ms = num_to_ms(order.executed.dt) - state.interval_ms
        if self.broker.getposition(order.data).size:
            state.entry_price, state.entry_open_ms = order.executed.price, opened_ms
            return
        state.exit_reason = ""
        state.no_entry_before_ms = opened_ms + self.p.cooldown_candles * state.interval_ms

    def _oncepost(self, dt: float) -> None:
        """Backtrader's step after a bar under runonce, less what nobody listens to."""
        first = not self._opened
        if first:
            scores = [state.score for state in self.states]
            self._quick_step = quick_step(self, MacroMicroStrategy, scores)
        if self._quick_step is None:
            super()._oncepost(dt)
        else:
            self._quick_step(dt)
        if first:
            self._fast_loop = fast_loop(self, MacroMicroStrategy)
            self.hears_only_ends = self._fast_loop is not None and hears_only_orders(self)
        if self._fast_loop is not None:
            self._fast_loop.jump()

    # Tables -------------------------------------------------------------------------------------

    def _mark(self) -> tuple[int, float, float]:
        stamp_ms = num_to_ms(self.lines.datetime[0])
        return stamp_ms, float(self.broker.getvalue()), float(self.broker.getcash())

    def stop(self) -> None:
        """Cancel the orders that still wait and build the tables."""
        if self._fast_loop is not None:
            self._fast_loop.report()
        cancel_pending = getattr(self.broker, "cancel_pending", None)
        if cancel_pending is not None:
            cancel_pending("end", "the run ended before the next bar")
        self._gives_up = not self.p.keep_lines
        if self._gives_up:
            self._fast_loop = None  # it knows every line, too
            for state in self.states:
                state.readers.clear()  # as do these
        self.refresh_tables()
        if self._gives_up:
            give_up_lines(self, [])

    def refresh_tables(self) -> None:
        """Build signals, fills, trades and equity as they stand now."""
        named = {state.data._name: state for state in self.states}
        intervals = {name: state.interval_ms for name, state in named.items()}
        rows = sum(state.lines.rows(state.bars) for state in named.values())
        self.signals = tables.signals_table(self._columns(named), rows)
        self.fills = tables.fills_table(getattr(self.broker, "fills", []))
        self.trades = tables.trades_table(self.fills, self.signals, intervals)
        self.evidence = tables.evidence_table(self.meter.rows if self.meter is not None else [])
        closes = {name: state.lines.closes(state.bars) for name, state in named.items()}
        if getattr(self, "_has_ledger", False):
            self.equity = tables.equity_table(
                closes, self.broker.ledger, float(self.broker.startingcash)
            )
        else:
            self.equity = tables.equity_from_marks(self._marks)

    def _columns(self, states: dict[str, SymbolState]) -> Iterator[tuple[str, Any]]:
        """Each symbol's lines; at the end, without `keep_lines`, given up once they were read."""
        unread = list(states.values())
        for name, state in states.items():
            self._give_up_but(unread)
            unread.remove(state)
            yield name, state.lines.columns(state.bars)
        self._give_up_but(unread)

    def _give_up_but(self, unread: list[SymbolState]) -> None:
        """At the end, without `keep_lines`: leave what is to be read of symbols, and all closes."""
        if self._gives_up:
            lines = [line for state in unread for line in state.lines.present()]
            closes = [line for s in self.states for line in (s.clock, s.data.lines.close)]
            give_up_lines(self, lines + closes)
            return_pages()  # or the table would grow on top of lines that are gone
