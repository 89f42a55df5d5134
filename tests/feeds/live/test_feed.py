"""The live feed inside Cerebro: in step, honest about its state, idle when there is nothing."""

from __future__ import annotations

import json
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import CandleError, SessionError
from cppncripto_strategy.feeds.candles import Candles, Row, row_problem
from cppncripto_strategy.feeds.clock import utc_to_ms
from cppncripto_strategy.feeds.live.feed import LiveFeed
from cppncripto_strategy.feeds.live.journal import (
    LineJournal,
    read_lines,
    round_from_record,
    round_record,
)
from cppncripto_strategy.feeds.live.rounds import (
    NO_SYMBOLS,
    ChainedRounds,
    RecordedRounds,
    Round,
    RoundQueue,
    candles_of,
    rows_of,
)
from cppncripto_strategy.feeds.replay import ReplayFeed, bar_close_ms

STEP_MS = 300_000
START_MS = utc_to_ms("2024-05-01")
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
EVERY = frozenset(SYMBOLS)


def row(candle: int, price: float = 100.0) -> Row:
    """A made-up candle by its number."""
    close = price + candle % 7
    return (
        START_MS + candle * STEP_MS,
        price,
        close + 1,
        price - 1,
        close,
        5.0,
        500.0,
        9.0,
        2.0,
        200.0,
    )


def rounds_of(presence: list[list[bool]]) -> list[Round]:
    """Rounds in which symbol s has candle n when presence[n][s]."""
    made = []
    for number, held in enumerate(presence):
        candles = {
            symbol: row(number, 100.0 * (place + 1))
            for place, symbol in enumerate(SYMBOLS)
            if held[place]
        }
        gaps = tuple(symbol for symbol in SYMBOLS if symbol not in candles)
        made.append(Round(START_MS + (number + 1) * STEP_MS, candles, gaps))
    return made


class Recorder(bt.Strategy):  # type: ignore[misc]
    """Writes down every bar and every notification it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[dict[str, tuple[int, float]]] = []
        self.lengths = dict.fromkeys(SYMBOLS, 0)
        self.told: list[tuple[str, str, int]] = []

    def notify_data(self, data: Any, status: int, *arguments: Any, **named: Any) -> None:
        self.told.append((data._name, data._getstatusname(status), len(self.passes)))

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        fresh = {}
        for data in self.datas:
            if len(data) > self.lengths[data._name]:
                self.lengths[data._name] = len(data)
                fresh[data._name] = (bar_close_ms(data), data.close[0])
        self.passes.append(fresh)


def run(source: Any, symbols: tuple[str, ...] = SYMBOLS, **options: Any) -> Recorder:
    """Cerebro over a round source."""
    cerebro = bt.Cerebro(stdstats=False, **options)
    for symbol in symbols:
        cerebro.adddata(LiveFeed(source=source, symbol=symbol, interval_ms=STEP_MS, qcheck=0.05))
    cerebro.addstrategy(Recorder)
    recorder: Recorder = cerebro.run()[0]
    return recorder


def expected_passes(rounds: list[Round]) -> list[dict[str, tuple[int, float]]]:
    """What a strategy must see, by the definition of a round."""
    return [
        {symbol: (one.close_ms, held[4]) for symbol, held in one.candles.items()}
        for one in rounds
        if one.candles
    ]


presences = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(presence=presences, exactbars=st.sampled_from([False, 1, -1]))
def test_next_runs_once_per_closing_time_with_every_symbol_that_has_a_candle(
    presence: list[list[bool]], exactbars: bool | int
) -> None:
    """Out of step feeds make `next` fire twice for one stamp, and orders fill in the past."""
    rounds = rounds_of(presence)
    if not any(one.candles for one in rounds):
        return
    recorder = run(RecordedRounds([(one, EVERY) for one in rounds]), exactbars=exactbars)
    assert recorder.passes == expected_passes(rounds)


def test_last_bar_survives_idling_under_exactbars() -> None:
    """Backtrader loses the last bar of a feed that is asked and has nothing, when bars are few."""
    rounds = rounds_of([[True, True, True], [False, True, False], [False, False, True]])
    seen = []

    class Reader(Recorder):
        def next(self) -> None:
            seen.append([data.close[0] for data in self.datas])

    cerebro = bt.Cerebro(stdstats=False, exactbars=1)
    source = RecordedRounds([(one, EVERY) for one in rounds])
    for symbol in SYMBOLS:
        cerebro.adddata(LiveFeed(source=source, symbol=symbol, interval_ms=STEP_MS))
    cerebro.addstrategy(Reader)
    cerebro.run()
    first, second, third = (
        [row(number, 100.0 * (place + 1))[4] for place in range(3)] for number in range(3)
    )
    assert seen == [first, [first[0], second[1], first[2]], [first[0], second[1], third[2]]]


def test_rounds_published_while_cerebro_runs_stay_in_step() -> None:
    """A round that arrives between two feeds of one pass must not split it."""
    rounds = rounds_of([[True, number % 5 != 0, number % 3 != 0] for number in range(300)])
    queue = RoundQueue()

    def publish() -> None:
        for one in rounds:
            queue.put([one])
        queue.close()

    writer = threading.Thread(target=publish)
    writer.start()
    recorder = run(queue)
    writer.join()
    assert recorder.passes == expected_passes(rounds)


def test_bars_equal_those_of_the_replay_feed() -> None:
    """Live and replay must show the same lines, or a strategy means something else live."""
    rounds = rounds_of([[True, True, True]] * 30)

    class Lines(bt.Strategy):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[list[float]] = []

        def next(self) -> None:
            names = self.data.getlinealiases()
            self.seen.append([getattr(self.data.lines, name)[0] for name in names])

    def lines(feed: Any) -> tuple[tuple[str, ...], list[list[float]], int, int]:
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.adddata(feed)
        cerebro.addstrategy(Lines)
        found = cerebro.run()[0]
        return feed.getlinealiases(), found.seen, feed.p.timeframe, feed.p.compression

    candles = candles_of(one.candles["BTCUSDT"] for one in rounds)
    live = LiveFeed(
        source=RecordedRounds([(one, EVERY) for one in rounds]),
        symbol="BTCUSDT",
        interval_ms=STEP_MS,
    )
    assert lines(live) == lines(ReplayFeed(candles=candles, interval_ms=STEP_MS, name="BTCUSDT"))


class ByLoad(LiveFeed):  # type: ignore[misc]
    """A feed with a `_load` of its own, which Backtrader therefore asks as it always does."""

    lines = ("spread",)

    def _load(self) -> bool | None:
        loaded: bool | None = super()._load()
        return loaded


class Short(LiveFeed):  # type: ignore[misc]
    """The same lines, delivered in fewer steps."""

    lines = ("spread",)


@settings(max_examples=30, deadline=None)
@given(presence=presences, exactbars=st.sampled_from([False, 1, -1]), dated=st.booleans())
def test_bars_in_fewer_steps_leave_every_buffer_as_backtrader_does(
    presence: list[list[bool]], exactbars: bool | int, dated: bool
) -> None:
    """A line that lags by a bar, or a bar outside the dates that a user asked for."""
    rounds = rounds_of(presence)
    if not any(one.candles for one in rounds):
        return
    bounds = {"fromdate": datetime(2024, 5, 1, 0, 12)} if dated else {}

    def buffers(kind: type[LiveFeed]) -> list[tuple[int, int, str]]:
        cerebro = bt.Cerebro(stdstats=False, exactbars=exactbars)
        source = RecordedRounds([(one, EVERY) for one in rounds])
        for symbol in SYMBOLS:
            feed = kind(source=source, symbol=symbol, interval_ms=STEP_MS, **bounds)
            cerebro.adddata(feed)
        cerebro.addstrategy(Recorder)
        cerebro.run()
        lines = [line for feed in cerebro.datas for line in feed.lines.lines]
        return [(line.idx, len(line), repr(list(line.array))) for line in lines]

    assert buffers(ByLoad) == buffers(Short)


def test_catch_up_round_gives_its_symbol_alone_an_older_bar() -> None:
    """A symbol that was stale must get its candles in order, without moving the others."""
    late = row(1, 200.0)
    rounds = [
        *rounds_of([[True, True, True]]),
        Round(START_MS + 2 * STEP_MS, {"BTCUSDT": row(1)}, (), ("ETHUSDT", "BNBUSDT")),
        Round(START_MS + 2 * STEP_MS, {"ETHUSDT": late}, catch_up=True),
    ]
    recorder = run(RecordedRounds([(one, NO_SYMBOLS) for one in rounds]))
    assert recorder.passes == expected_passes(rounds)


def test_statuses_reach_the_strategy_before_the_bar_they_are_about() -> None:
    """A strategy that hears LIVE one bar late trades one bar late, or on history."""
    rounds = rounds_of([[True, True, True]] * 4)
    source = RecordedRounds(
        list(zip(rounds, (NO_SYMBOLS, NO_SYMBOLS, EVERY, NO_SYMBOLS), strict=True))
    )
    told = [entry for entry in run(source).told if entry[0] == "ETHUSDT"]
    assert [(name, bars) for _, name, bars in told] == [
        ("DELAYED", 0),
        ("LIVE", 2),
        ("DELAYED", 3),
        ("DISCONNECTED", 4),
    ]


def test_lost_connection_is_told_only_when_nothing_waits() -> None:
    """CONNBROKEN in the middle of published rounds would stop trading on good candles."""
    queue = RoundQueue()
    queue.put(rounds_of([[True, True, True]]))
    queue.connection("CONNBROKEN")
    assert queue.open_next(0) is not None
    assert queue.status == "LIVE"
    assert queue.open_next(0) is None
    assert queue.status == "CONNBROKEN"


def test_idle_feed_waits_instead_of_spinning() -> None:
    """A `_load` that never blocks takes a whole core: count how often the source is asked."""
    asked = []

    class Counting(RoundQueue):
        def open_next(self, wait_s: float) -> Round | None:
            asked.append(wait_s)
            return super().open_next(wait_s)

    queue = Counting()
    queue.put(rounds_of([[True, True, True]]))
    timer = threading.Timer(0.5, queue.close)
    timer.start()
    run(queue)
    # 0.5 s of idling in waits of 0.05 s is ten; a spin would be tens of thousands.
    assert 3 <= len(asked) <= 60


def test_failure_of_the_stream_stops_cerebro() -> None:
    """A dead stream thread must not leave a session that waits for ever."""
    queue = RoundQueue()
    queue.close(OSError("no space"))
    with pytest.raises(OSError, match="no space"):
        run(queue)


def test_feed_without_a_source_is_refused() -> None:
    """Backtrader would otherwise fail much later, inside its loop."""
    with pytest.raises(CandleError, match="source"):
        LiveFeed(symbol="BTCUSDT")


def test_trading_is_allowed_only_on_a_fresh_round_with_the_symbols_own_candle() -> None:
    """An order on a symbol without a new bar would fill at a price that is already known."""
    rounds = rounds_of([[True, False, True], [True, True, True]])
    shown = []
    queue = RoundQueue(
        lambda one: frozenset(one.candles) if one is rounds[0] else NO_SYMBOLS,
        lambda one, allowed: shown.append((one, allowed)),
    )
    queue.put(rounds)
    queue.open_next(0)
    assert [queue.can_trade(symbol) for symbol in SYMBOLS] == [True, False, True]
    queue.open_next(0)
    assert not any(queue.can_trade(symbol) for symbol in SYMBOLS)
    assert shown == [(rounds[0], {"BTCUSDT", "BNBUSDT"}), (rounds[1], NO_SYMBOLS)]


def test_catch_up_round_is_never_tradable() -> None:
    """Its candle is older than what others have already seen."""
    queue = RoundQueue(lambda one: EVERY)
    queue.put([Round(START_MS + STEP_MS, {"BTCUSDT": row(0)}, catch_up=True)])
    queue.open_next(0)
    assert not queue.can_trade("BTCUSDT")


def test_round_that_comes_after_the_stop_is_not_shown() -> None:
    """The stream publishes from its own thread: what it adds after a stop belongs to the next."""
    rounds = rounds_of([[True, True, True]] * 3)
    queue = RoundQueue()
    queue.put(rounds[:2])
    queue.open_next(0)
    queue.abandon()
    queue.put(rounds[2:])
    assert queue.finished
    assert queue.open_next(0) is None


def test_held_queue_shows_nothing_before_its_release() -> None:
    """A restarted session must not judge freshness before it knows what happened meanwhile."""
    queue = RoundQueue(held=True)
    queue.put(rounds_of([[True, True, True]]))
    assert (queue.waiting(), queue.open_next(0)) == (0, None)
    queue.release()
    assert queue.open_next(0) is not None


def test_past_is_shown_before_the_present() -> None:
    """After a restart the session must see its own candles first, then the live ones."""
    rounds = rounds_of([[True, True, True]] * 3)
    present = RoundQueue()
    present.put(rounds[2:])
    present.close()
    source = ChainedRounds(RecordedRounds([(one, NO_SYMBOLS) for one in rounds[:2]]), present)
    opened = []
    while (one := source.open_next(0)) is not None:
        opened.append((one, source.replaying))
    assert opened == [(rounds[0], True), (rounds[1], True), (rounds[2], False)]
    assert source.finished


finite = st.floats(min_value=1e-8, max_value=1e12, allow_nan=False)


@given(st.lists(finite, min_size=9, max_size=9), st.integers(0, 10**6), st.booleans())
def test_round_survives_the_journal_bit_for_bit(
    values: list[float], candle: int, catch_up: bool
) -> None:
    """A replay from the journal must see the very floats the session saw."""
    held = (START_MS + candle * STEP_MS, *values)
    late = {"SOLUSDT": held} if catch_up else {}
    one = Round(held[0] + STEP_MS, {"BTCUSDT": held}, ("ETHUSDT",), ("BNBUSDT",), catch_up, late)
    assert round_from_record(json.loads(json.dumps(round_record(one)))) == one


@given(cut=st.integers(min_value=0, max_value=400))
@settings(max_examples=60, deadline=None)
def test_journal_cut_anywhere_keeps_every_whole_record(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A kill tears the last line at any byte; what was whole must stay and can be added to."""
    path = tmp_path_factory.mktemp("journal") / "rounds.jsonl"
    records = [{"t": number, "text": "x" * number} for number in range(9)]
    journal = LineJournal(path)
    journal.append(records)
    journal.close()
    content = path.read_bytes()
    path.write_bytes(content[: min(cut, len(content))])
    whole = content[:cut].count(b"\n")
    again = LineJournal(path)
    assert again.records == records[:whole]
    again.append([{"t": "new"}])
    again.close()
    assert read_lines(path) == [*records[:whole], {"t": "new"}]


def test_journal_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    """Damage before the last line is no crash; guessing on would invent a session."""
    path = tmp_path / "rounds.jsonl"
    journal = LineJournal(path)
    journal.append([{"t": 1}, {"t": 2}, {"t": 3}])
    journal.close()
    path.write_bytes(path.read_bytes().replace(b'{"t":2}', b'{"t":7}'))
    with pytest.raises(SessionError, match="line 2"):
        read_lines(path)


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (0, START_MS + 1, "multiple"),
        (1, float("nan"), "NaN"),
        (2, 1.0, "high is below"),
        (3, 1e9, "high is below low"),
        (4, -1.0, "zero or negative"),
        (5, -0.1, "volume"),
        (6, float("inf"), "quote_volume is infinite"),
        (7, 2.5, "whole number"),
        (8, float("inf"), "taker_buy_volume is infinite"),
        (8, 6.0, "above volume"),
        (9, 501.0, "above quote_volume"),
    ],
)
def test_broken_row_is_named(place: int, value: float, word: str) -> None:
    """A candle that breaks a rule must never reach the strategy."""
    good = list(row(3))
    assert row_problem(good, STEP_MS) is None
    good[place] = value
    assert word in str(row_problem(good, STEP_MS))


def test_candles_and_rows_are_inverse() -> None:
    """A column in the wrong place would trade volume as price."""
    candles = Candles.from_columns(
        **{
            name: np.arange(3, dtype=float) + 10 * place
            for place, name in enumerate(
                ("open_time", "open", "high", "low", "close", "volume", "quote_volume",
                 "trades", "taker_buy_volume", "taker_buy_quote_volume")
            )
        }
    )  # fmt: skip
    assert candles_of(rows_of(candles)).equals(candles)
    assert len(candles_of([])) == 0
