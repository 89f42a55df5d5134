"""Paper trading: live candles through the same strategy, broker and networks as a backtest.

Candles come from `feeds.stream`, through `feeds.live`, into Cerebro. What is simulated: the
account, and its fills, at the next candle's open with taker fee and slippage, under the exchange's
own lot steps and minimum notional. What is not: candles, their times, statuses, trading rules. No
order ever leaves this machine.

A session is a folder (`session`). Started again, it replays its own rounds first, to the very state
it had, then backfills what closed meanwhile without trading on it, then continues.
"""

from __future__ import annotations

import gc
import logging
import platform
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType
from typing import Any

import backtrader as bt

from cppncripto_strategy.errors import CheckpointError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, SECOND_MS
from cppncripto_strategy.feeds.live.feed import LiveFeed
from cppncripto_strategy.feeds.live.notices import (
    Connected,
    ConnectionLost,
    Notice,
    RulesChanged,
    SymbolBack,
    SymbolStopped,
)
from cppncripto_strategy.feeds.live.rounds import (
    NO_SYMBOLS,
    ChainedRounds,
    RecordedRounds,
    Round,
    RoundQueue,
    RoundSource,
)
from cppncripto_strategy.feeds.live.stream import CandleStream
from cppncripto_strategy.feeds.live.stream_settings import StreamPlan
from cppncripto_strategy.feeds.replay import bar_close_ms
from cppncripto_strategy.paper.connection import Connection
from cppncripto_strategy.paper.recorder import (
    Event,
    PaperStrategy,
    Recorder,
    SessionView,
    nobody,
    rounds_of_bars,
)
from cppncripto_strategy.paper.rule_changes import (
    RuleChange,
    SessionBroker,
    latest_rules,
    session_filters,
)
from cppncripto_strategy.paper.session import SessionFolder

log = logging.getLogger(__name__)


class PaperSession:
    """A session running against an exchange; `run` returns when it is stopped.

    Parameters
    ----------
    folder : the session, new or resumed.
    strategy : options of MacroMicroStrategy (score_factory, window, ...).
    connection : the exchange and how patiently it is asked; None is Binance's public one.
    seed : local candles, so that the warm-up need not be downloaded.
    on_event : listener, see `Event`.
    before_round : called with each live round before it is shown (retraining takes over here).
    after_round : called with the strategy after each round, replayed ones included.
    until_ms : stop after the round that closes at or after this (UTC ms); None runs until stopped.

    Attributes
    ----------
    stream, queue, recorder : its parts, for screens.
    """

    def __init__(
        self,
        folder: SessionFolder,
        strategy: Mapping[str, Any],
        connection: Connection | None = None,
        *,
        seed: Mapping[str, Candles] | None = None,
        on_event: Event = nobody,
        before_round: Callable[[Round], None] = lambda _round: None,
        after_round: Callable[[PaperStrategy], None] = lambda _strategy: None,
        until_ms: int | None = None,
    ) -> None:
        connection = connection or Connection()
        self.folder, self._strategy = folder, dict(strategy)
        self._before_round, self._until_ms = before_round, until_ms
        frontier, following = folder.resume_at()
        self.queue = RoundQueue(on_open=self._opening, held=True)
        self.stream = CandleStream(
            StreamPlan(
                folder.facts.symbols,
                folder.facts.interval,
                frontier,
                following,
                seed or {},
                gaps=folder.standing_gaps(),
                rules=latest_rules(folder.facts.filters, folder.rules.changes),
            ),
            sources=connection.sources,
            settings=connection.stream,
            retry=connection.retry,
            journal=folder.journal,
            queue=self.queue,
            rng=connection.rng,
            listener=self._hear,
        )
        self.queue.judge = self.stream.allowed
        self.queue.put(folder.unopened)
        self._on_event, self._after_round = on_event, after_round
        self._build()

    @property
    def view(self) -> SessionView:
        """What a person wants to see."""
        return self.recorder.view

    def _build(self) -> None:
        """Everything that shows rounds: the past, from the checkpoint on, and then the queue."""
        folder, facts = self.folder, self.folder.facts
        resume = None if folder.checkpoint is None else folder.checkpoint.state
        self.source = ChainedRounds(recorded_rounds(folder.past, resume), self.queue)
        self.recorder = Recorder(
            folder.derived, self.source, self._tell, folder.settle, self._after_round, self._timed
        )
        self.cerebro = paper_cerebro(
            self.source,
            facts.symbols,
            facts.interval_ms,
            facts.broker,
            facts.filters,
            folder.rules.changes,
        )
        self.cerebro.addstrategy(
            PaperStrategy, recorder=self.recorder, resume=resume, keep_rows=False, **self._strategy
        )

    def _opening(self, moment: Round, allowed: frozenset[str]) -> None:
        """Before a live round is shown: what must precede it, then that it was shown, on disk.

        Networks that are active from this round on are kept before it counts as shown: a kill in
        between would else replay it without them.
        """
        if not moment.catch_up:
            changes = self.folder.rules.before_round(moment.close_ms)
            self.cerebro.broker.change_rules(changes)
        self._before_round(moment)
        self.folder.opened(moment, allowed, last=self.queue.waiting() == 0)
        if self._until_ms is not None and moment.close_ms >= self._until_ms:
            self.queue.abandon()

    def _timed(self, close_ms: int, latency_s: float) -> None:
        """A live round was decided: how long that took, and how late it is by now."""
        lag_s = (self.stream.clock.now_ms() - close_ms) / SECOND_MS
        self.folder.latency.note(close_ms, latency_s, lag_s)

    def _hear(self, notice: Notice) -> None:
        """What the exchange did besides candles; on the stream's thread."""
        record = notice.record()
        if isinstance(notice, RulesChanged):
            self.folder.rules.hear(notice.after)
        elif isinstance(notice, SymbolStopped):
            self.view.stopped[notice.symbol] = notice.reason
            seen = self.view.symbols.get(notice.symbol)
            record |= {"position": 0.0 if seen is None else seen.position}
        elif isinstance(notice, SymbolBack):
            self.view.stopped.pop(notice.symbol, None)
        # Of a connection nothing follows, and what comes through it must not wait for the disk.
        synced = not isinstance(notice, Connected | ConnectionLost)
        self.folder.event(synced=synced, **record)
        self._on_event(record)

    def _tell(self, event: dict[str, Any]) -> None:
        """Pass an event of the recorder on; after a refused order the rules are read again."""
        if event["kind"] == "fill" and event["status"] == "refused":
            self.stream.read_rules_soon()
        self._on_event(event)

    def run(self) -> PaperStrategy:
        """Trade until stopped, by `stop`, a signal, or `until_ms`.

        Raises
        ------
        CppnError
            When the stream cannot continue, or a replay differs from what was recorded.
        """
        self.folder.event("start", resumed=self.folder.resumed, rounds=self.folder.shown)
        self._on_event({"kind": "start", "resumed": self.folder.resumed})
        reason = "error"
        with _signals(self.stop, lambda: self.source.replaying), _settled_heap():
            self.stream.start()
            try:
                strategy = self._play()
                reason = "stopped"
            except KeyboardInterrupt:
                reason = "interrupted"
                raise
            finally:
                self.stream.stop()
                self.folder.event("stop", reason=reason, rounds=self.view.rounds)
                self._on_event({"kind": "stop", "reason": reason})
        return strategy

    def _play(self) -> PaperStrategy:
        """Replay, then trade; from the beginning where a checkpoint turns out not to fit."""
        self.folder.forget_past()
        try:
            return self.cerebro.run()[0]  # type: ignore[no-any-return]
        except CheckpointError as error:
            self.folder.without_checkpoint(str(error))
        self._build()
        self.folder.forget_past()
        return self.cerebro.run()[0]  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End after the present round; from any thread."""
        self.queue.abandon()


def recorded_rounds(
    past: Sequence[tuple[Round, frozenset[str]]], resume: Mapping[str, Any] | None
) -> RecordedRounds:
    """What was shown and allowed, behind the bars of a checkpoint's state where there is one."""
    before = [] if resume is None else rounds_of_bars(resume["bars"])
    return RecordedRounds([*((moment, NO_SYMBOLS) for moment in before), *past])


def paper_cerebro(
    source: RoundSource,
    symbols: Sequence[str],
    interval_ms: int,
    broker: Mapping[str, Any],
    filters: Sequence[Mapping[str, Any]],
    rule_changes: Sequence[RuleChange] = (),
) -> Any:
    """Cerebro over rounds with the session's account; the strategy is the caller's.

    A long session must not grow: exactbars=1 keeps only the bars its indicators look back on.
    """
    cerebro = bt.Cerebro(stdstats=False, exactbars=1)
    cerebro.broker = session_broker(
        broker, filters, lambda data: source.can_trade(data._name), cerebro, rule_changes
    )
    feed: Any = LiveFeed  # its params become keywords by Backtrader's metaclass
    for symbol in symbols:
        cerebro.adddata(feed(source=source, symbol=symbol, interval_ms=interval_ms))
    return cerebro


def session_broker(
    account: Mapping[str, Any],
    filters: Sequence[Mapping[str, Any]],
    gate: Callable[[Any], bool],
    cerebro: Any,
    rule_changes: Sequence[RuleChange] = (),
) -> SessionBroker:
    """The session's account: recorded filters, and a gate that says what may be traded now."""

    def bar_ms() -> int:
        return max((bar_close_ms(data) for data in cerebro.datas if len(data)), default=0)

    return SessionBroker(
        filters=session_filters(filters) or None,
        trade_gate=gate,
        rule_changes=rule_changes,
        bar_ms=bar_ms,
        **account,
    )


@contextmanager
def _signals(stop: Callable[[], None], replaying: Callable[[], bool]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the session after the present round, and the reports are written.

    While it only replays its own past nothing is waited for; that signal, and a second one, act as
    if we were not here. Outside the main thread nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        present = before[signal.Signals(number)]
        signal.signal(number, present)
        if replaying() and callable(present):
            present(number, frame)
        stop()

    for number, present in before.items():
        if present is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _settled_heap() -> Iterator[None]:
    """Take what is loaded by now out of the garbage collector's sight while a session runs.

    A full collection over torch, pandas and all else takes tens of milliseconds, at any moment:
    longer than the decision it would delay. What the session itself makes is collected as ever.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def first_candle_ms(now_ms: int, interval_ms: int, warmup: int, earlier_days: int = 0) -> int:
    """Open time from which a session must see candles so that today is scored from its midnight.

    Parameters
    ----------
    now_ms : the exchange's time. warmup : candles before the first session that can be scored.
    earlier_days : further sessions to score, so that thresholds know the recent scores.
    """
    midnight_ms = now_ms // DAY_MS * DAY_MS
    return midnight_ms - earlier_days * DAY_MS - warmup * interval_ms


def made_by() -> dict[str, Any]:
    """Versions of what makes a session."""
    names = ("cppncripto-strategy", "backtrader", "numpy", "torch", "python-binance")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
