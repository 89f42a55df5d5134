"""The planted market against its closed forms, and the closed forms against other arithmetic."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds import planted, planted_hits
from cppncripto_strategy.feeds.candles import gaps, validate
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedMarket, PlantedSettings

DEFAULT = PlantedSettings()
PHI = NormalDist().cdf
DAYS = 400


@pytest.fixture(scope="module")
def markets() -> list[PlantedMarket]:
    return [planted.generate(PlantedSettings(days=DAYS, seed=seed)) for seed in range(4)]


def _ahead(market: PlantedMarket) -> np.ndarray:
    """Log return over the horizon after each close, by a plain loop over setups."""
    log_close, h = np.log(market.candles.close), market.settings.horizon
    return np.array(
        [
            log_close[row + h] - log_close[row] if row + h < len(log_close) else np.nan
            for row in range(len(log_close))
        ]
    )


def _pooled(markets: list[PlantedMarket], scores: list[np.ndarray]) -> tuple[float, float]:
    """Hit ratio at setups over several markets and its standard error."""
    hits = []
    for market, score in zip(markets, scores, strict=True):
        ahead = _ahead(market)
        counted = market.setup & np.isfinite(ahead)
        hits.append(np.sign(score[counted]) == np.sign(ahead[counted]))
    flat = np.concatenate(hits)
    return float(flat.mean()), 0.5 / math.sqrt(len(flat))


def _votes(market: PlantedMarket, window: int) -> np.ndarray:
    """The micro-only trader: setups answered inside the window vote; a coin on a tie."""
    rng, ahead = np.random.default_rng(1), _ahead(market)
    rows, h = np.flatnonzero(market.setup), market.settings.horizon
    scores = np.zeros(len(market.setup))
    for row in rows:
        seen = rows[(rows >= row - window + 1) & (rows + h < row)]
        vote = np.sum(market.direction[seen] * ahead[seen] / market.volatility[seen])
        scores[row] = market.direction[row] * (vote or rng.choice([-1.0, 1.0]))
    return scores


def test_the_oracle_hits_as_often_as_its_closed_form(markets: list[PlantedMarket]) -> None:
    """A drift lost, doubled or given to the wrong candles would show here first."""
    hit, error = _pooled(markets, [market.oracle_scores() for market in markets])
    assert abs(hit - planted_hits.oracle_hit(DEFAULT)) < 3 * error


@pytest.mark.parametrize("window", [24, 60, 120])
def test_voting_on_earlier_setups_reaches_the_micro_only_form(
    markets: list[PlantedMarket], window: int
) -> None:
    """Kills a closed form that the candles do not obey."""
    hit, error = _pooled(markets, [_votes(market, window) for market in markets])
    assert abs(hit - planted_hits.micro_only_hit(DEFAULT, window)) < 3 * error


@pytest.mark.parametrize(
    "planting",
    [DEFAULT, PlantedSettings(mu=2.5, setup_rate=0.5, setup_size=1.0, season=0.0, tau_days=2)],
    ids=["default", "crowded"],
)
def test_the_oracle_over_all_candles_reaches_the_ceiling_and_no_more(
    planting: PlantedSettings,
) -> None:
    """Kills a ceiling that an honest forecast could pass, or that a leak could hide under."""
    shares = []
    for seed in range(4):
        market = planted.generate(replace(planting, days=DAYS, seed=seed))
        ahead = _ahead(market)
        following = np.append(market.drift_sign[1:], 0)  # drift of the next candle, known at setups
        score = np.where(following != 0, following, 0)
        right = np.where(score == 0, 0.5, score == np.sign(ahead))
        shares.append(right[np.isfinite(ahead)])
    share = float(np.concatenate(shares).mean())
    assert abs(share - planted_hits.ceiling_hit(planting)) < 0.002
    assert 0.5 < planted_hits.ceiling_hit(planting) < planted_hits.oracle_hit(planting)


def test_the_null_market_knows_no_direction() -> None:
    """Kills a regime that leaks into prices when mu is 0."""
    null = planted.generate(PlantedSettings(days=DAYS, mu=0.0, seed=3))
    result = planted_hits.hit_at_setups(null, null.oracle_scores())
    assert result.low < 0.5 < result.high
    forms = [
        planted_hits.oracle_hit,
        lambda s: planted_hits.micro_only_hit(s, 60),
        planted_hits.ceiling_hit,
    ]
    assert [form(null.settings) for form in forms] == pytest.approx([0.5] * 3, abs=1e-12)


def test_turning_the_marker_over_is_a_shift_of_twelve_hours() -> None:
    """A marker that changed more than the phase could be read without a clock."""
    quiet = PlantedSettings(days=60, volume_noise=0.0, setup_volume=0.0, tau_days=5, seed=1)
    market = planted.generate(quiet)
    profile = np.log(market.candles.volume).reshape(quiet.days, quiet.candles_per_day)
    up, down = profile[market.marker > 0], profile[market.marker < 0]
    assert len(up) > 5
    assert len(down) > 5
    half_day = quiet.candles_per_day // 2
    np.testing.assert_allclose(np.roll(up[0], half_day), down[0], atol=1e-12)
    np.testing.assert_allclose(up, np.broadcast_to(up[0], up.shape), atol=1e-12)


def test_volatility_shows_the_same_face_twice_a_day() -> None:
    """A 24-hour season of volatility would give away the phase, and with it the marker."""
    still = PlantedSettings(days=2, garch_alpha=0.0, garch_beta=0.0)
    volatility = planted.generate(still).volatility
    np.testing.assert_allclose(volatility, np.tile(volatility[:144], 4), rtol=1e-12)
    assert volatility.max() / volatility.min() == pytest.approx(math.exp(2 * still.season))
    assert np.mean(volatility**2) == pytest.approx(still.sigma**2)


def test_garch_variance_is_the_plain_recursion() -> None:
    """Kills the vectorised recursion if it drifts from the textbook loop."""
    shock = np.random.default_rng(0).standard_normal(600)
    flat = PlantedSettings(days=3, season=0.0, interval="5m")
    variance, expected = 1.0, []
    for z in np.resize(shock, 864):
        expected.append(flat.sigma * math.sqrt(variance))
        variance = 0.05 + 0.05 * variance * z**2 + 0.90 * variance
    computed = planted._volatility(flat, np.resize(shock, 864))
    np.testing.assert_allclose(computed, expected, rtol=1e-12)


def test_setups_can_be_told_from_candles_alone(markets: list[PlantedMarket]) -> None:
    """A setup nobody can see would make every network fail for no fault of its own."""
    candles, setup = markets[0].candles[:20_000], markets[0].setup[:20_000]
    log_return = np.log(candles.close / candles.open)
    log_volume = np.log(candles.volume)
    seen = np.zeros(len(setup), dtype=bool)
    for row in range(48, len(setup)):
        usual = np.median(np.abs(log_return[row - 48 : row])) / 0.6745
        usual_volume = np.median(log_volume[row - 12 : row])
        seen[row] = abs(log_return[row]) > 2.0 * usual and log_volume[row] > usual_volume + 1.0
    recall = (seen & setup)[48:].sum() / setup[48:].sum()
    precision = (seen & setup).sum() / seen.sum()
    assert recall > 0.95
    assert precision > 0.95


def test_setups_never_start_inside_a_response(markets: list[PlantedMarket]) -> None:
    """Overlapping responses would break every closed form."""
    for market in markets:
        rows, h = np.flatnonzero(market.setup), market.settings.horizon
        assert np.diff(rows).min() > h
        assert not (market.setup & market.response).any()
        last = rows[rows + h < len(market.setup)]
        assert market.response.sum() >= len(last) * h
        rate = len(rows) / (len(market.setup) - market.response.sum())
        assert rate == pytest.approx(market.settings.setup_rate, rel=0.06)


def test_a_setup_at_midnight_answers_to_the_day_that_begins() -> None:
    """The embedding valid from midnight scores that close: its regime must be the one that acts."""
    settings_ = PlantedSettings(days=300, tau_days=1.5, setup_rate=0.3, horizon=2, seed=5)
    market = planted.generate(settings_)
    per_day = settings_.candles_per_day
    checked = 0
    for row in np.flatnonzero(market.setup):
        if row % per_day == per_day - 1 and row + 1 < len(market.setup):
            day = (row + 1) // per_day
            assert market.drift_sign[row + 1] == market.direction[row] * market.regime[day]
            checked += market.regime[day] != market.regime[day - 1]
    assert checked > 10


def test_regimes_stay_and_markers_tell_as_asked() -> None:
    """Kills a chain whose mean stay, or a marker whose fidelity, is not the one in the settings."""
    long = planted.generate(PlantedSettings(days=3_000, interval="12h", horizon=1, seed=2))
    changes = np.mean(long.regime[1:] != long.regime[:-1])
    assert changes == pytest.approx(1 / 30, abs=3 * math.sqrt(1 / 30 / 3_000))
    assert np.mean(long.regime == long.marker) == pytest.approx(0.9, abs=3 * 0.3 / math.sqrt(3_000))


@settings(max_examples=25, deadline=None)
@given(
    days=st.integers(1, 4),
    interval=st.sampled_from(["1m", "5m", "15m", "1h"]),
    seed=st.integers(0, 2**32),
    horizon=st.integers(1, 30),
    mu=st.floats(0, 3),
    sigma=st.floats(1e-5, 0.02),
)
def test_candles_are_valid_and_continuous(
    days: int, interval: str, seed: int, horizon: int, mu: float, sigma: float
) -> None:
    """A market our own store refuses, or with a gap between close and open, is no test market."""
    market = planted.generate(
        PlantedSettings(days, interval, seed, mu, horizon=horizon, sigma=sigma)
    )
    candles, step = market.candles, market.settings.interval_ms
    validate(candles, step)
    assert gaps(candles.open_time, step) == []
    assert len(candles) == days * DAY_MS // step
    assert np.array_equal(candles.open[1:], candles.close[:-1])
    assert (candles.taker_buy_volume < candles.volume).all()
    assert not np.isnan(candles.trades).any()


def test_a_longer_market_begins_with_the_shorter_one() -> None:
    """Same seed, same bytes; and a test may lengthen a market without changing its past."""
    short, again = (planted.generate(PlantedSettings(days=20, seed=9)) for _ in range(2))
    long = planted.generate(PlantedSettings(days=33, seed=9))
    assert short.candles.equals(again.candles)
    assert long.candles[: len(short.candles)].equals(short.candles)
    assert np.array_equal(long.regime[:20], short.regime)
    other = planted.generate(PlantedSettings(days=20, seed=10))
    assert (
        abs(
            np.corrcoef(np.diff(np.log(other.candles.close)), np.diff(np.log(short.candles.close)))[
                0, 1
            ]
        )
        < 0.05
    )


def test_expected_trade_agrees_with_trading_the_oracle() -> None:
    """The demo market is chosen by this number: a wrong one promises profits that are not there."""
    rich = PlantedSettings(days=1_000, seed=4, sigma=0.004, horizon=12)
    market = planted.generate(rich)
    buys = np.flatnonzero((market.oracle_scores() > 0) & np.isfinite(_ahead(market)))
    price = market.candles.close
    gross = (price[buys + rich.horizon] / price[buys] - 1) * 1e4
    expected = planted_hits.expected_trade_bps(rich, 1.0, 10.0, 1.0)
    assert abs(gross.mean() - 22.0 - expected) < 3 * gross.std() / math.sqrt(len(gross))
    # By hand, with flat volatility: mu sigma sqrt(h) = 14.7 bps at the defaults, cost 22.
    flat = replace(DEFAULT, season=0.0, garch_alpha=0.0)
    assert planted_hits.expected_trade_bps(flat, 1.0, 10.0, 1.0) == pytest.approx(
        14.7 - 22, abs=0.1
    )
    assert planted_hits.expected_trade_bps(flat, 0.5, 10.0, 1.0) == pytest.approx(-22, abs=0.1)
    # Without drift a lognormal bet earns sigma^2 h / 2: (e^0.0003 - 1) = 3 bps at 1 % a candle.
    null = replace(flat, mu=0.0, sigma=0.01)
    assert planted_hits.expected_trade_bps(null, 1.0, 0.0, 0.0) == pytest.approx(3.0, abs=0.01)


def test_hit_at_setups_counts_decisions_only(markets: list[PlantedMarket]) -> None:
    """Undecided setups counted as misses, or setups of another span, would bias every hit ratio."""
    market = markets[0]
    scores = np.full(len(market.setup), np.nan)
    rows = np.flatnonzero(market.setup & np.isfinite(_ahead(market)))
    scores[rows] = np.sign(_ahead(market)[rows])
    scores[rows[:10]] = 0.0
    assert planted_hits.hit_at_setups(market, scores).count == len(rows) - 10
    assert planted_hits.hit_at_setups(market, scores).hit == 1.0
    assert planted_hits.hit_at_setups(market, -scores).hit == 0.0
    close_ms = market.candles.open_time[rows] + market.settings.interval_ms
    later = planted_hits.hit_at_setups(market, scores, int(close_ms[100]), int(close_ms[150]))
    assert later.count == 50
    with pytest.raises(ValueError, match="no score decides"):
        planted_hits.hit_at_setups(market, np.full(len(market.setup), np.nan))
    with pytest.raises(ValueError, match="shape"):
        planted_hits.hit_at_setups(market, scores[1:])


def test_the_interval_of_a_hit_ratio_is_as_wide_as_it_should_be(
    markets: list[PlantedMarket],
) -> None:
    """An interval too narrow would certify noise."""
    result = planted_hits.hit_at_setups(markets[1], markets[1].oracle_scores())
    expected = 2 * 1.96 * math.sqrt(result.hit * (1 - result.hit) / result.count)
    assert result.low < result.hit < result.high
    assert result.high - result.low == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"days": 0}, "days"),
        ({"interval": "7m"}, "interval"),
        ({"setup_rate": 0.0}, "setup_rate"),
        ({"marker_fidelity": 0.4}, "marker_fidelity"),
        ({"garch_alpha": 0.2}, "below 1"),
        ({"start_ms": 1}, "midnight"),
        ({"sigma": 0.0}, "sigma"),
    ],
)
def test_impossible_settings_are_refused_by_name(change: dict[str, float], rule: str) -> None:
    """A market planted from nonsense would be judged by formulas that do not hold for it."""
    with pytest.raises(RecipeError, match=rule):
        replace(DEFAULT, **change)


@pytest.mark.slow
def test_a_thousand_days_are_planted_whole() -> None:
    """Kills a recursion that loses precision, or prices that leave the floats, on a long market."""
    market = planted.generate(PlantedSettings(days=1_000, sigma=0.006, seed=1))
    validate(market.candles, market.settings.interval_ms)
    assert len(market.candles) == 288_000
    assert np.isfinite(market.volatility).all()
    result = planted_hits.hit_at_setups(market, market.oracle_scores())
    assert abs(result.hit - planted_hits.oracle_hit(market.settings)) < 3 * 0.5 / math.sqrt(
        result.count
    )
