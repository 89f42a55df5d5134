"""The networks as indicators: one result in every mode of Cerebro, and in the batch functions."""

import dataclasses
import itertools

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.errors import BundleError, RecipeError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.replay import ReplayFeed, bar_close_ms
from cppncripto_strategy.indicators import AdaptiveThreshold, MacroEmbedding, MicroScore
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS
from cppncripto_strategy.models.inputs.features.table import MARKET_COLUMNS
from cppncripto_strategy.models.scoring.batch import score_span

HOUR_MS = 3_600_000
SCORES = ("score", "p_buy", "p_sell", "score_zero")
LINES = (*SCORES, "drift", "age_ms", "upper", "lower")
MODES = [
    {"preload": preload, "runonce": runonce, "exactbars": exactbars}
    for preload, runonce, exactbars in itertools.product((True, False), (True, False), (1, 0, -2))
]
# Two symbols with different gaps: a midnight, and some hours of a day.
MISSING = {"A": [20 * 24 - 1, 20 * 24, 530], "B": [*range(470, 484), 531, 532]}


class Recorder(bt.Strategy):
    """Reads every line at every bar of every symbol, the way a user's strategy would."""

    params = (("timeline", None), ("share", False))

    def __init__(self):
        self.rows = {data._name: {} for data in self.datas}
        self.vectors = {data._name: {} for data in self.datas}
        self.scores = {}
        self.thresholds = {}
        for data in self.datas:
            macro = MacroEmbedding(data, bundles=self.p.timeline) if self.p.share else None
            given = {"macro": macro} if macro is not None else {"bundles": self.p.timeline}
            score = MicroScore(data, **given)
            seeds = score.bundle_seeds
            self.scores[data._name] = score
            self.thresholds[data._name] = AdaptiveThreshold(
                score, window=48, min_scores=10, seeds=seeds
            )

    def next(self):
        for data in self.datas:
            if len(data) == 0:
                continue
            name, close_ms = data._name, bar_close_ms(data)
            if close_ms in self.rows[name]:
                continue
            score, threshold = self.scores[name], self.thresholds[name]
            values = [getattr(score.lines, line)[0] for line in SCORES]
            values += [score.macro.drift[0], score.macro.age[0]]
            values += [threshold.upper[0], threshold.lower[0]]
            self.rows[name][close_ms] = values
            if close_ms % DAY_MS == 0 or close_ms % DAY_MS == 7 * HOUR_MS:
                self.vectors[name][close_ms] = score.macro.vector


def run(candles, timeline, share=False, **mode):
    cerebro = bt.Cerebro(stdstats=False, **mode)
    for name, columns in candles.items():
        cerebro.adddata(ReplayFeed(candles=columns, interval_ms=HOUR_MS, name=name))
    cerebro.addstrategy(Recorder, timeline=timeline, share=share)
    return cerebro.run()[0]


@pytest.fixture(scope="module")
def market(toy):
    """Candles of two symbols with different gaps, and a timeline of two bundles."""
    candles = {
        name: toy.candles(seed=place, missing=missing)
        for place, (name, missing) in enumerate(MISSING.items())
    }
    timeline = toy.timeline(toy.grid(candles["A"]), toy.settings, sessions=(4, 7))
    return candles, timeline


@pytest.fixture(scope="module")
def reference(market):
    """What a run with preload and runonce reads."""
    return run(*market, preload=True, runonce=True)


def test_bars_read_what_the_batch_functions_give(toy, market, reference):
    """Lines shifted by a bar, or one symbol's scores under the other's name."""
    candles, timeline = market
    for name, columns in candles.items():
        grid = toy.grid(columns)
        span = score_span(name, grid, timeline)
        rows = reference.rows[name]
        assert list(rows) == grid.close_time[grid.present].tolist()
        for place, line in enumerate((*SCORES, "drift", "age_ms")):
            expected = getattr(span, line)[grid.present]
            found = [values[place] for values in rows.values()]
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=f"{name} {line}")
        assert np.isfinite([values[0] for values in rows.values()]).sum() > 100
        assert np.isfinite([values[4] for values in rows.values()]).sum() > 100


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
@pytest.mark.parametrize("share", [False, True], ids=["own macro", "given macro"])
def test_every_mode_of_cerebro_reads_the_same(market, reference, mode, share):
    """`next` and `once` drifting apart; a nested indicator left behind; bars of another symbol."""
    other = run(*market, share=share, **mode)
    for name, rows in reference.rows.items():
        assert list(other.rows[name]) == list(rows)
        expected, found = np.array(list(rows.values())), np.array(list(other.rows[name].values()))
        for place, line in enumerate(LINES):
            np.testing.assert_allclose(
                found[:, place], expected[:, place], atol=1e-5, err_msg=f"{name} {line}"
            )
        for close_ms, vector in reference.vectors[name].items():
            seen = other.vectors[name][close_ms]
            assert (vector is None) == (seen is None)
            if vector is not None:
                np.testing.assert_allclose(seen, vector, atol=1e-5)


class WithLine(MicroScore):
    """A user's own score, with a line more."""

    lines = ("mine",)


class Bound(bt.Indicator):
    """A user's indicator whose line is bound to a score's."""

    lines = ("copy",)
    params = (("timeline", None),)

    def __init__(self):
        self.score = MicroScore(self.data, bundles=self.p.timeline)
        self.score.lines.score.addbinding(self.lines.copy)


class UserOf(bt.Strategy):
    """Reads what users make of a score."""

    params = (("timeline", None),)

    def __init__(self):
        self.plain = MicroScore(self.data, bundles=self.p.timeline)
        self.more = WithLine(self.data, bundles=self.p.timeline)
        self.bound = Bound(self.data, timeline=self.p.timeline)
        self.rows = []

    def next(self):
        self.rows.append((self.plain.score[0], self.more.score[0], self.bound.copy[0]))
        assert len(self.more.mine) == len(self.plain.score) == len(self.data)


@pytest.mark.parametrize("exactbars", [False, 1])
def test_lines_of_users_follow_a_score_bar_by_bar(market, exactbars):
    """Bars taken in fewer steps that leave a subclass's line, or a bound one, behind."""
    candles, timeline = market
    cerebro = bt.Cerebro(stdstats=False, runonce=False, preload=False, exactbars=exactbars)
    cerebro.adddata(ReplayFeed(candles=candles["A"], interval_ms=HOUR_MS, name="A"))
    cerebro.addstrategy(UserOf, timeline=timeline)
    plain, more, bound = np.array(cerebro.run()[0].rows).T
    assert np.isfinite(plain).sum() > 100
    np.testing.assert_array_equal(more, plain)
    np.testing.assert_array_equal(bound, plain)


@pytest.mark.parametrize("mode", [MODES[0], MODES[-1], MODES[5]], ids=str)
def test_embeddings_tell_what_was_in_force_in_every_session(toy, market, reference, mode):
    """The table of embeddings missing a day, or naming the wrong bundle or data end."""
    candles, timeline = market
    other = run(*market, **mode)
    for name in candles:
        expected = reference.scores[name].macro.embeddings()
        found = other.scores[name].macro.embeddings()
        first = timeline.first_session_ms
        last = int(candles[name].open_time[-1]) + HOUR_MS
        sessions = list(range(first, last + 1, DAY_MS))
        assert [row[0] for row in expected] == [row[0] for row in found] == sessions
        change = timeline.bundles[1].info.trained_until_ms
        for mine, theirs in zip(expected, found, strict=True):
            assert mine[1] == theirs[1]  # B's long gap makes one rollover fail
            assert mine[1] == mine[0] or name == "B"
            bundle = timeline.bundles[int(mine[1] >= change)]
            assert mine[2] == theirs[2] == bundle.model_hash
            np.testing.assert_allclose(mine[3], theirs[3], atol=1e-5)
            np.testing.assert_allclose(mine[4], theirs[4], atol=1e-5)


class BesideMarket(bt.Strategy):
    """Scores the first feed with networks that read the feed M; remembers them by close."""

    params = (("timeline", None), ("given", False))

    def __init__(self):
        market = {"market": self.dnames.M} if self.p.given else {}
        self.score = MicroScore(self.data, bundles=self.p.timeline, **market)
        self.rows = {}

    def prenext(self):
        self.next()

    def next(self):
        if len(self.data) and bar_close_ms(self.data) not in self.rows:
            close_ms = bar_close_ms(self.data)
            self.rows[close_ms] = [getattr(self.score.lines, line)[0] for line in SCORES]


@pytest.mark.parametrize("mode", [MODES[0], MODES[2], MODES[5], MODES[8], MODES[9]], ids=str)
@pytest.mark.parametrize("first", ["X", "M"], ids=["symbol first", "market first"])
def test_a_market_feed_is_read_in_every_mode(toy, mode, first):
    """A market's candle of the bar before, of the bar after, or lost where the symbol has a gap."""
    settings = dataclasses.replace(
        toy.settings, names=(*DEFAULT_COLUMNS, *MARKET_COLUMNS), market="M"
    )
    candles = {
        "X": toy.candles(missing=[500, 501, 21 * 24 - 1]),
        "M": toy.candles(seed=3, missing=[*range(9), 470, 501, 502, 20 * 24 - 1]),
    }
    grid = toy.grid(candles["X"]).with_market(candles["M"])
    timeline = toy.timeline(grid, settings, sessions=(4, 7))
    cerebro = bt.Cerebro(stdstats=False, **mode)
    for name in sorted(candles, key=lambda name: name != first):
        cerebro.adddata(ReplayFeed(candles=candles[name], interval_ms=HOUR_MS, name=name))
    if first == "X":
        cerebro.addstrategy(BesideMarket, timeline=timeline, given=mode["preload"])
    else:
        cerebro.addstrategy(SecondIsScored, timeline=timeline)
    rows = cerebro.run()[0].rows
    span = score_span("X", grid, timeline)
    closes = grid.close_time[grid.present].tolist()
    late = [ms for ms in closes if ms > closes[0] + 2 * DAY_MS]  # strategies may begin late
    found = np.array([rows[ms] for ms in late])
    for place, line in enumerate(SCORES):
        expected = getattr(span, line)[[grid.row_of(ms - HOUR_MS) for ms in late]]
        np.testing.assert_allclose(found[:, place], expected, atol=1e-5, err_msg=line)
    assert np.isfinite(found[:, 0]).sum() > 100


class SecondIsScored(BesideMarket):
    """As `BesideMarket`, the symbol being the second feed: the market is the strategy's clock."""

    def __init__(self):
        self.score = MicroScore(self.dnames.X, bundles=self.p.timeline)
        self.rows = {}

    def next(self):
        data = self.dnames.X
        if len(data) and bar_close_ms(data) not in self.rows:
            self.rows[bar_close_ms(data)] = [getattr(self.score, line)[0] for line in SCORES]


def test_bundles_that_read_a_market_want_its_feed(toy):
    """Scores from a market that is not there, or whose bars are of another length."""
    settings = dataclasses.replace(
        toy.settings, names=(*DEFAULT_COLUMNS, *MARKET_COLUMNS), market="M"
    )
    candles = toy.candles()
    timeline = toy.timeline(toy.grid(candles).with_market(candles), settings)
    for extra, message in (((), "has no feed of that name"), ((900_000,), "their bars differ")):
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.adddata(ReplayFeed(candles=candles, interval_ms=HOUR_MS, name="X"))
        for interval_ms in extra:
            feed = ReplayFeed(candles=candles, interval_ms=interval_ms, name="M")
            cerebro.adddata(feed)
        cerebro.addstrategy(BesideMarket, timeline=timeline)
        with pytest.raises(RecipeError, match=message):
            cerebro.run()


def test_failed_rollovers_are_listed_with_the_day_they_come_from(toy):
    """A stale embedding that looks fresh in the table."""
    holes = [row for row in range(19 * 24, 25 * 24) if row % 2]
    candles = toy.candles(days=26, missing=holes)
    timeline = toy.timeline(toy.grid(candles), toy.settings, sessions=(4,))
    tables = [
        run({"A": candles}, timeline, runonce=once).scores["A"].macro.embeddings()
        for once in (True, False)
    ]
    stale = [row[:3] for row in tables[0] if row[0] != row[1]]
    assert len(stale) == 3
    assert len({row[1] for row in stale}) == 1
    assert [row[:3] for row in tables[1]] == [row[:3] for row in tables[0]]


def test_vector_before_the_first_bundle_is_none(market, reference):
    """Zeros that look like an embedding."""
    _, timeline = market
    for name, vectors in reference.vectors.items():
        early = [v for ms, v in vectors.items() if ms < timeline.first_session_ms]
        later = [v for ms, v in vectors.items() if ms >= timeline.first_session_ms]
        assert early, name
        assert all(vector is None for vector in early)
        assert all(vector.shape == (128,) for vector in later)


def test_bundle_seeds_start_with_each_bundle(toy):
    """A threshold that starts with another bundle's scores, or at another time."""
    grid = toy.grid(toy.candles())
    timeline = toy.timeline(grid, toy.settings, sessions=(4, 7))
    for in_sample, first in ((False, timeline.first_session_ms), (True, 0)):
        asked = dataclasses.replace(timeline, in_sample=in_sample)
        seeds = run({"A": toy.candles()}, asked).scores["A"].bundle_seeds
        assert [start for start, _ in seeds] == [first, timeline.bundles[1].info.trained_until_ms]
        for (_, scores), bundle in zip(seeds, timeline.bundles, strict=True):
            np.testing.assert_array_equal(scores, bundle.score_seed)


def test_seconds_of_every_score_and_rollover_are_kept(market):
    """A latency report of nothing."""
    score = run(*market, runonce=False).scores["A"]
    assert len(score.score_s) == len(market[0]["A"].open_time)
    assert len(score.macro.rollover_s) == len(score.macro.embeddings())
    assert all(seconds > 0 for seconds in (*score.score_s, *score.macro.rollover_s))


@pytest.mark.parametrize("indicator", [MacroEmbedding, MicroScore])
def test_missing_or_wrong_bundles_say_so(toy, tmp_path, indicator):
    """A traceback out of Backtrader's metaclass instead of an instruction."""

    class Careless(bt.Strategy):
        params = (("bundles", None),)

        def __init__(self):
            self.indicator = indicator(self.data, bundles=self.p.bundles)

    for bundles, error, text in (
        (None, RecipeError, "pass a BundleTimeline or the path"),
        (tmp_path, BundleError, "holds no bundle"),
    ):
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.adddata(ReplayFeed(candles=toy.candles(days=2), interval_ms=HOUR_MS, name="A"))
        cerebro.addstrategy(Careless, bundles=bundles)
        with pytest.raises(error, match=text):
            cerebro.run()


def test_bundles_may_be_a_folder(toy, market, reference, tmp_path):
    """A path accepted but read as something else."""
    candles, timeline = market
    for number, bundle in enumerate(timeline.bundles):
        bundle.save(tmp_path / f"bundle-{number}")
    again = run(candles, tmp_path, preload=True, runonce=True)
    for name, rows in reference.rows.items():
        np.testing.assert_array_equal(list(again.rows[name].values()), list(rows.values()))


def test_misspelt_parameter_is_refused(toy, market):
    """Backtrader takes any keyword of an indicator that has no __init__ of its own."""

    class Careless(bt.Strategy):
        def __init__(self):
            self.indicator = MicroScore(self.data, bundels=market[1])

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(ReplayFeed(candles=toy.candles(days=2), interval_ms=HOUR_MS, name="A"))
    cerebro.addstrategy(Careless)
    with pytest.raises(TypeError, match="bundels"):
        cerebro.run()


def test_data_without_a_line_that_a_feature_needs_is_refused(toy):
    """A network fed NaN where taker volumes belong: no score, and no word about it."""
    names = ("log_return", "taker_imbalance", "present")
    settings = dataclasses.replace(toy.settings, names=names)
    timeline = toy.timeline(toy.grid(toy.candles()), settings)

    class Plain(bt.feeds.PandasData):
        """Backtrader's own feed: no taker line."""

    class Strategy(bt.Strategy):
        def __init__(self):
            self.score = MicroScore(self.data, bundles=timeline)

    candles = toy.candles(days=2)
    frame = pd.DataFrame({n: getattr(candles, n) for n in ("open", "high", "low", "close")})
    frame.index = pd.to_datetime(candles.open_time, unit="ms")
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(Plain(dataname=frame))
    cerebro.addstrategy(Strategy)
    with pytest.raises(RecipeError, match=r"'taker_imbalance', which needs taker_buy_volume"):
        cerebro.run()
