"""ReplayFeed delivers every candle once, in step with the other symbols, in every Cerebro mode."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from typing import Any

import backtrader as bt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, ms_to_num, num_to_ms
from cppncripto_strategy.feeds.replay import ReplayFeed, bar_close_ms, bar_interval_ms

STEP_MS = 300_000
START_MS = 1_704_067_200_000  # 2024-01-01 00:00
MODES = [
    {"preload": preload, "runonce": runonce, "exactbars": exactbars}
    for preload, runonce, exactbars in itertools.product(
        (True, False), (True, False), (False, 1, -1, -2)
    )
]


def candles_at(slots: list[int], seed: int = 0) -> Candles:
    rng = np.random.default_rng(seed)
    opens = 100.0 + rng.normal(0, 1, len(slots))
    closes = opens + rng.normal(0, 1, len(slots))
    return Candles.from_columns(
        open_time=START_MS + STEP_MS * np.array(slots, dtype=np.int64),
        open=opens,
        high=np.maximum(opens, closes) + 0.5,
        low=np.minimum(opens, closes) - 0.5,
        close=closes,
        volume=rng.uniform(1, 2, len(slots)),
        taker_buy_volume=rng.uniform(0, 1, len(slots)),
    )


class Witness(bt.Strategy):
    """Writes down what a strategy can see at each call."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        self.seen.append(
            tuple(
                (bar_close_ms(d), len(d), d.open[0], d.close[0], d.taker_buy_volume[0])
                if len(d)
                else None
                for d in self.datas
            )
        )


def watch(feeds: list[ReplayFeed], **mode: Any) -> list[Any]:
    cerebro = bt.Cerebro(stdstats=False, **mode)
    for feed in feeds:
        cerebro.adddata(feed)
    cerebro.addstrategy(Witness)
    return list(cerebro.run()[0].seen)


def expected_view(parts: list[Candles]) -> list[Any]:
    """At each stamp of any symbol, the last candle of every symbol that has closed by then."""
    stamps = sorted({int(t) + STEP_MS for part in parts for t in part.open_time})
    view = []
    for stamp in stamps:
        row = []
        for part in parts:
            closed = [i for i, t in enumerate(part.open_time) if t + STEP_MS <= stamp]
            i = closed[-1] if closed else -1
            row.append(
                None
                if i < 0
                else (
                    int(part.open_time[i]) + STEP_MS,
                    i + 1,
                    part.open[i],
                    part.close[i],
                    part.taker_buy_volume[i],
                )
            )
        view.append(tuple(row))
    return view


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_three_symbols_with_different_gaps_stay_in_step(mode: dict[str, Any]) -> None:
    """A bar lost, repeated or shown early when symbols miss different candles dies here."""
    slots = [
        [0, 1, 2, 3, 5, 6, 7, 8, 9, 14, 15],
        [2, 3, 4, 5, 9, 10, 11, 15],
        [0, 1, 7, 8, 12, 13, 14],
    ]
    parts = [candles_at(s, seed) for seed, s in enumerate(slots)]
    feeds = [ReplayFeed(candles=p, interval_ms=STEP_MS, name=f"S{i}") for i, p in enumerate(parts)]
    assert expected_view(parts) == watch(feeds, **mode)


@given(
    slots=st.lists(
        st.lists(st.integers(0, 25), min_size=1, max_size=20, unique=True).map(sorted),
        min_size=1,
        max_size=3,
    ),
    mode=st.sampled_from(MODES),
)
@settings(max_examples=60, deadline=None)
def test_any_pattern_of_gaps_in_any_mode(slots: list[list[int]], mode: dict[str, Any]) -> None:
    """A pattern of late starts, holes and early ends that breaks the lockstep dies here."""
    parts = [candles_at(s, seed) for seed, s in enumerate(slots)]
    feeds = [ReplayFeed(candles=p, interval_ms=STEP_MS, name=f"S{i}") for i, p in enumerate(parts)]
    assert expected_view(parts) == watch(feeds, **mode)


def test_stamps_are_bit_identical_to_backtrader_dates() -> None:
    """A stamp off by one ulp, which breaks equality with resampled feeds, dies here."""
    stamps = START_MS + STEP_MS * np.arange(0, 300_000, 997)
    numbers = ms_to_num(stamps)
    for ms, number in zip(stamps.tolist(), numbers.tolist(), strict=True):
        moment = dt.datetime(1970, 1, 1) + dt.timedelta(milliseconds=ms)
        assert bt.date2num(moment) == number


@given(st.integers(1_483_228_800_000, 1_893_456_000_000))
def test_any_millisecond_survives_the_day_number(ms: int) -> None:
    """A truncation instead of rounding, one millisecond early, dies here."""
    assert ms == num_to_ms(float(ms_to_num(np.array([ms]))[0]))


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_fromdate_and_todate_cut_the_same_bars_in_every_mode(mode: dict[str, Any]) -> None:
    """A bulk preload that ignores fromdate, or is off by one at todate, dies here."""
    part = candles_at(list(range(40)))
    start = dt.datetime(2024, 1, 1, 0, 50)
    end = dt.datetime(2024, 1, 1, 2, 0)
    feed = ReplayFeed(candles=part, interval_ms=STEP_MS, name="S", fromdate=start, todate=end)
    stamps = [row[0][0] for row in watch([feed], **mode)]
    first, last = START_MS + 50 * 60_000, START_MS + 120 * 60_000
    assert list(range(first, last + 1, STEP_MS)) == stamps


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_todate_of_one_symbol_leaves_its_last_bar_visible(mode: dict[str, Any]) -> None:
    """A symbol whose span ends early and whose last close is then lost or replaced dies here."""
    parts = [candles_at(list(range(6)), 0), candles_at(list(range(9)), 1)]
    end = dt.datetime(2024, 1, 1, 0, 20)
    feeds = [
        ReplayFeed(candles=parts[0], interval_ms=STEP_MS, name="S0", todate=end),
        ReplayFeed(candles=parts[1], interval_ms=STEP_MS, name="S1"),
    ]
    assert expected_view([parts[0][:4], parts[1]]) == watch(feeds, **mode)


@pytest.mark.parametrize("preload", [True, False])
def test_a_filter_sees_every_bar(preload: bool) -> None:
    """A bulk preload that skips the user's filters dies here."""
    part = candles_at(list(range(20)))
    feed = ReplayFeed(candles=part, interval_ms=STEP_MS, name="S")
    seen: list[int] = []

    def drop_odd(data: Any) -> bool:
        slot = (bar_close_ms(data) - STEP_MS - START_MS) // STEP_MS
        seen.append(slot)
        if slot % 2:
            data.backwards()
            return True
        return False

    feed.addfilter(drop_odd)
    rows = watch([feed], preload=preload)
    assert list(range(20)) == seen
    assert part.close[::2].tolist() == [row[0][3] for row in rows]


def test_tzinput_shifts_the_stamps() -> None:
    """A bulk preload that forgets the time zone of the input dies here."""
    zone = dt.timezone(dt.timedelta(hours=2))

    class Zone:
        def localize(self, moment: dt.datetime) -> dt.datetime:
            return moment.replace(tzinfo=zone)

        def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
            return zone.utcoffset(moment)

        def dst(self, moment: dt.datetime | None) -> None:
            return zone.dst(moment)

    feed = ReplayFeed(candles=candles_at([24, 25]), interval_ms=STEP_MS, name="S", tzinput=Zone())
    stamps = [row[0][0] for row in watch([feed])]
    wall = [START_MS + STEP_MS * slot for slot in (25, 26)]
    assert [ms - 2 * 3_600_000 for ms in wall] == stamps


def test_the_same_feed_runs_twice() -> None:
    """A cursor left at the end of the first run, which makes the second one empty, dies here."""
    for mode in ({"preload": True}, {"preload": False}):
        feed = ReplayFeed(candles=candles_at(list(range(9))), interval_ms=STEP_MS, name="S")
        cerebro = bt.Cerebro(stdstats=False, **mode)
        cerebro.adddata(feed)
        cerebro.addstrategy(Witness)
        assert cerebro.run()[0].seen == cerebro.run()[0].seen != []


def test_resampling_to_a_quarter_hour_closes_on_the_quarter() -> None:
    """Bars stamped with their open, which shift every resampled bar by one, die here."""
    part = candles_at(list(range(12)))
    feed = ReplayFeed(candles=part, interval_ms=STEP_MS, name="S")
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.resampledata(feed, timeframe=bt.TimeFrame.Minutes, compression=15, name="S15")

    class Collect(bt.Strategy):
        def __init__(self) -> None:
            self.bars: list[tuple[int, float, float, float]] = []

        def next(self) -> None:
            d = self.data
            self.bars.append((bar_close_ms(d), d.open[0], d.high[0], d.close[0]))

    cerebro.addstrategy(Collect)
    quarters = [
        (
            START_MS + (i + 3) * STEP_MS,
            part.open[i],
            part.high[i : i + 3].max(),
            part.close[i + 2],
        )
        for i in range(0, 12, 3)
    ]
    assert quarters == cerebro.run()[0].bars


def test_backtraders_own_broker_fills_at_the_next_open() -> None:
    """Leaving out the tick bookkeeping must not change where other brokers fill."""
    part = candles_at(list(range(5)))

    class BuyOnce(bt.Strategy):
        def __init__(self) -> None:
            self.prices: list[float] = []

        def next(self) -> None:
            if len(self) == 2:
                self.buy(size=1)

        def notify_order(self, order: Any) -> None:
            if order.status == order.Completed:
                self.prices.append(order.executed.price)

    for mode in MODES:
        cerebro = bt.Cerebro(stdstats=False, **mode)
        cerebro.adddata(ReplayFeed(candles=part, interval_ms=STEP_MS, name="S"))
        cerebro.addstrategy(BuyOnce)
        assert [part.open[2]] == cerebro.run()[0].prices, mode


def test_lookahead_room_is_kept() -> None:
    """A bulk preload that drops the room Cerebro's lookahead asked for dies here."""
    part = candles_at(list(range(6)))
    feed = ReplayFeed(candles=part, interval_ms=STEP_MS, name="S")
    rows = watch([feed], lookahead=2)
    assert len(part) == len(rows)
    assert all(math.isnan(value) for value in feed.close.array[-2:])


@pytest.mark.parametrize(
    ("interval_ms", "frame", "compression"),
    [
        (60_000, bt.TimeFrame.Minutes, 1),
        (900_000, bt.TimeFrame.Minutes, 15),
        (DAY_MS, bt.TimeFrame.Days, 1),
        (1_000, bt.TimeFrame.Seconds, 1),
    ],
)
def test_timeframe_follows_from_the_interval(
    interval_ms: int, frame: int, compression: int
) -> None:
    """A feed left at Backtrader's default timeframe of days dies here."""
    part = Candles.from_columns(
        open_time=START_MS + interval_ms * np.arange(3),
        **{name: np.ones(3) for name in ("open", "high", "low", "close", "volume")},
    )
    feed = ReplayFeed(candles=part, interval_ms=interval_ms, name="S")
    assert (frame, compression) == (feed._timeframe, feed._compression)
    assert interval_ms == bar_interval_ms(feed)


def test_no_candles_is_an_empty_run() -> None:
    """An index error on an empty span dies here."""
    for mode in MODES:
        assert watch([ReplayFeed(candles=Candles.empty(), name="S")], **mode) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"candles": None}, "needs candles"),
        ({"interval_ms": 0}, "positive"),
        ({"candles": "reversed"}, "not ordered"),
    ],
)
def test_bad_parameters_are_named(changes: dict[str, Any], words: str) -> None:
    """A feed that starts on nonsense and fails far away dies here."""
    good: dict[str, Any] = {"candles": candles_at([0, 1]), "interval_ms": STEP_MS, "name": "S"}
    if changes.get("candles") == "reversed":
        changes = {"candles": candles_at([1, 0])}
    with pytest.raises(CandleError, match=words):
        ReplayFeed(**{**good, **changes})


def test_a_calendar_month_has_no_length() -> None:
    """A gap rule that guesses the length of a month dies here."""
    feed = bt.feed.DataBase(timeframe=bt.TimeFrame.Months, name="S")
    with pytest.raises(CandleError, match="no fixed length"):
        bar_interval_ms(feed)
