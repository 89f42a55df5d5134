"""Three clocks of one exchange: each of them wrong in turn, and all of them right but late."""

from __future__ import annotations

import random

import pytest

from cppncripto_strategy.feeds.live.clock_watch import CLOSES, ClockWatch
from cppncripto_strategy.feeds.live.exchange_clock import CANDLES, FRAMES, REST, ExchangeClock
from cppncripto_strategy.feeds.live.notices import ClockAgrees, ClockDisagrees

STEP_MS = 300_000
BOUND_MS = 2_000
MINUTE_MS = 60_000
HOLD_S, CALM_S = 3.0, 30.0
START_MS = 1_000 * STEP_MS


class World:
    """An exchange's true time, and a clock that hears of it with what is wrong with each source."""

    def __init__(self, rest_ms: int = 0, frames_ms: int = 0, candles_ms: int = 0) -> None:
        self.wall_s = 500.0
        self.off = {REST: rest_ms, FRAMES: frames_ms, CANDLES: candles_ms}
        self.clock = ExchangeClock(1.0, STEP_MS, BOUND_MS, lambda: self.wall_s)
        self.heard: list = []
        self.watch = ClockWatch(self.clock, HOLD_S, CALM_S, self.heard.append, lambda: self.wall_s)
        self.frozen_ms: int | None = None

    @property
    def now_ms(self) -> int:
        return START_MS + round((self.wall_s - 500.0) * 1000)

    def run(self, seconds: float, frames: bool = True, rest: bool = True) -> None:
        """Frames every second, REST's time every twenty, a look every half second."""
        for tick in range(round(2 * seconds)):
            self.wall_s += 0.5
            if rest and tick % 40 == 0:
                self.clock.hear_rest(self.now_ms + self.off[REST])
            if frames and tick % 2 == 0:
                sent_ms = self.frozen_ms or self.now_ms + self.off[FRAMES]
                self.clock.hear_frame(sent_ms)
                open_ms = (self.now_ms + self.off[CANDLES]) // STEP_MS * STEP_MS
                self.clock.hear_candle(open_ms)
            self.watch.look()
            # Whatever else: what is relied on, less its margin, has truly come.
            assert self.clock.closed_ms() - BOUND_MS <= self.now_ms

    @property
    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.heard]


def test_clocks_that_agree_are_followed_and_nothing_is_said():
    """Noise of the network reported as a disagreement."""
    world = World()
    world.run(900)
    assert (world.clock.trusted, world.clock.agree, world.kinds) == (REST, True, [])
    assert abs(world.clock.now_ms() - world.now_ms) <= 1000


@pytest.mark.parametrize("minutes", [10, -10, 60 * 24 * 365, -60 * 24 * 365])
def test_a_wrong_rest_clock_is_outvoted_and_named_once(minutes):
    """Ten minutes ahead: unclosed candles taken and gaps made of what has not happened yet."""
    world = World(rest_ms=minutes * MINUTE_MS)
    world.run(900)
    assert world.clock.trusted == FRAMES
    assert abs(world.clock.now_ms() - world.now_ms) <= 1000
    (told,) = world.heard
    assert (told.bound_ms, told.trusted) == (BOUND_MS, FRAMES)
    assert minutes * MINUTE_MS == round(told.readings_ms[REST] - told.readings_ms[FRAMES], -4)
    assert not world.watch.blind


@pytest.mark.parametrize("minutes", [10, -10, 60 * 24 * 365, -60 * 24 * 365])
def test_wrong_event_times_are_outvoted_and_named_once(minutes):
    """The stream's machine with a clock of its own."""
    world = World(frames_ms=minutes * MINUTE_MS)
    world.run(900)
    assert world.clock.trusted == REST
    assert abs(world.clock.now_ms() - world.now_ms) <= 1000
    assert world.kinds == ["clock_disagrees"]


def test_frozen_event_times_are_noticed():
    """A stream that repeats one time for good, and the session believes that none passes."""
    world = World()
    world.run(600)
    world.frozen_ms = world.now_ms
    world.run(600)
    assert world.clock.trusted == REST
    assert world.kinds == ["clock_disagrees"]
    assert abs(world.clock.now_ms() - world.now_ms) <= 1000


def test_a_clock_that_jumps_back_and_forth_is_named_once():
    """A notice per reading: a disk full of them."""
    world = World()
    for minutes in (0, 10, 0, 10, -10, 0, 10) * 3:
        world.off[REST] = minutes * MINUTE_MS
        world.run(20)
    assert world.kinds == ["clock_disagrees"]


def test_a_stall_of_our_own_is_no_disagreement():
    """Frames that waited while we were busy look late: a notice whenever the machine is slow."""
    world = World()
    world.run(60)
    for _ in range(5):
        world.wall_s += 2 * HOLD_S
        world.clock.hear_rest(world.now_ms)
        for late_ms in range(20_000, 3_000, -1_000):  # what has queued, oldest first
            world.clock.hear_frame(world.now_ms - late_ms)
        world.watch.look()
    assert world.kinds == []


def test_agreement_is_reported_when_it_has_lasted():
    """A disagreement that is never declared over."""
    world = World(rest_ms=10 * MINUTE_MS)
    world.run(100)
    world.off[REST] = 0
    world.run(100)
    first, second = world.heard
    assert isinstance(first, ClockDisagrees)
    assert isinstance(second, ClockAgrees)
    assert not world.watch.disagrees


def test_nothing_is_trusted_while_no_two_agree():
    """Three clocks, three times: trading on any of them."""
    world = World(rest_ms=60 * MINUTE_MS, frames_ms=-60 * MINUTE_MS)
    world.run(60)
    assert world.clock.trusted is None
    assert world.watch.blind


def test_both_possible_within_a_candle_is_not_decided_by_guess():
    """A clock that is three minutes ahead is possible for two of every five minutes."""
    world = World(rest_ms=3 * MINUTE_MS)
    world.run(60)
    assert world.watch.blind
    world.run(180)  # beyond the end of the candle by REST's clock, and it still forms
    assert world.clock.trusted == FRAMES
    world.run(180)  # the next candle: possible again, and known not to be so
    assert (world.clock.trusted, world.watch.blind) == (FRAMES, False)


def test_one_frame_from_the_future_moves_nothing():
    """A single wrong time or candle, and everything until then is waited for."""
    world = World()
    world.run(60)
    world.clock.hear_frame(world.now_ms + 60 * MINUTE_MS)
    assert not world.clock.hear_candle(START_MS + 100 * STEP_MS)
    assert abs(world.clock.now_ms() - world.now_ms) <= 1000
    world.run(60)
    assert world.clock.agree


def test_a_trusted_clock_that_jumps_is_judged_at_once():
    """Frames trusted from an earlier disagreement, a day ahead with the next of them."""
    world = World(rest_ms=10 * MINUTE_MS)
    world.run(60)
    assert world.clock.trusted == FRAMES
    world.clock.hear_rest(world.now_ms + 5_000)
    world.clock.trusted = FRAMES  # as judged, before REST was right again
    world.clock.hear_frame(world.now_ms + 24 * 60 * MINUTE_MS)
    assert world.clock.now_ms() <= world.now_ms + 5_000


def test_rest_alone_closes_only_what_a_newer_candle_follows():
    """Started without a stream, REST ahead by minutes: nothing confirms its time."""
    world = World(rest_ms=4 * MINUTE_MS)
    world.wall_s += 120.0
    world.clock.hear_rest(world.now_ms + world.off[REST])
    assert world.clock.closed_ms() == 0
    world.clock.hear_candle(START_MS)
    assert world.clock.closed_ms() == START_MS


def test_a_slow_answer_does_not_set_a_clock_that_is_young():
    """A time that arrives half a minute after it was stated."""
    world = World()
    world.run(60)
    before_ms = world.clock.readings()[REST]
    world.clock.hear_rest(world.now_ms - 30_000, took_s=30.0, stale_s=40.0)
    assert before_ms == world.clock.readings()[REST]
    world.wall_s += 41.0
    world.clock.hear_rest(world.now_ms - 30_000, took_s=30.0, stale_s=40.0)
    assert world.now_ms - 30_000 == world.clock.readings()[REST]


def test_a_sleep_of_our_own_machine_is_recovered_from():
    """Steady clocks stand still while a laptop sleeps: hours behind, and the frames seem ahead."""
    world = World()
    world.run(60)
    asleep_ms = 3 * 60 * MINUTE_MS
    world.off = dict.fromkeys(world.off, asleep_ms)
    for _ in range(60):
        world.wall_s += 1.0
        world.clock.hear_frame(world.now_ms + asleep_ms)
        world.clock.hear_candle((world.now_ms + asleep_ms) // STEP_MS * STEP_MS)
    world.clock.hear_rest(world.now_ms + asleep_ms)
    world.watch.look()
    assert (world.clock.trusted, world.clock.agree) == (REST, True)
    assert abs(world.clock.now_ms() - world.now_ms - asleep_ms) <= 1000


def test_close_times_off_their_candles_are_a_disagreement():
    """A close time that is believed although it is no candle's, or ignored without a word."""
    world = World()
    world.run(60)
    for _ in range(10):
        world.watch.misdated(MINUTE_MS)
        world.run(1)
    (told,) = world.heard
    assert round(told.readings_ms[CLOSES] - told.readings_ms[REST], -4) == MINUTE_MS


@pytest.mark.parametrize("seed", range(20))
def test_whatever_one_clock_says_what_has_closed_has_closed(seed):
    """One clock, any clock, saying anything at any time: `World.run` looks after each step."""
    dice = random.Random(seed)
    world = World()
    world.run(30)
    wrong = dice.choice([REST, FRAMES])
    for _ in range(40):
        world.off[wrong] = dice.choice([0, 1, -1]) * dice.randrange(100_000_000)
        world.run(dice.choice([1, 5, 25, 60]), frames=dice.random() < 0.8)
    assert world.clock.now_ms() - BOUND_MS <= world.now_ms
