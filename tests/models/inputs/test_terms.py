"""Terms of a session: against sums written out day by day, and never a candle of its own day."""

from __future__ import annotations

import dataclasses
import datetime

import numpy as np
import pytest

from cppncripto_strategy.errors import CandleError, RecipeError
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionSettings, build_sessions
from cppncripto_strategy.models.inputs.terms import HAR_DAYS, TERMS, session_terms, term_rows
from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.macronet import build_macronet
from cppncripto_strategy.testing.grids import (
    changed_before,
    changed_from,
    mirrored,
    random_grid,
    same_bits,
    with_hole,
)

DAY = 24
HOUR_MS = 3_600_000
DAYS = 40
START_MS = 1_704_067_200_000 + 5 * HOUR_MS  # a Monday, 05:00 UTC
NAMES = tuple(TERMS)


def market_pair(seed: int = 0) -> CandleGrid:
    """Hourly candles of a symbol and a market, each with gaps, begun in the middle of a day."""
    own, beside = (
        random_grid(DAYS * DAY, seed + k, 0.03, 0.03, start_ms=START_MS, interval_ms=HOUR_MS)
        for k in (0, 1)
    )
    return dataclasses.replace(with_hole(own, 700, 720), market=with_hole(beside, 800, 809))


def midnights(grid: CandleGrid) -> np.ndarray:
    """The sessions of the grid with 30 days before them."""
    first = -(-grid.start_ms // DAY_MS) * DAY_MS + 31 * DAY_MS
    return np.arange(first, grid.end_ms + 1, DAY_MS)


def day_values(grid: CandleGrid, session_ms: int, back: int) -> tuple[float, float, float, float]:
    """ln variance, log return, share of falls and mean ln volume of one day, by a plain loop."""
    end = session_ms - back * DAY_MS
    close = dict(zip(grid.close_time.tolist(), grid.close.tolist(), strict=True))
    times = range(end - DAY_MS + HOUR_MS, end + 1, HOUR_MS)
    moves = [np.log(close[t] / close[t - HOUR_MS]) for t in times]
    moves = [move for move in moves if not np.isnan(move)]
    at = np.isin(grid.close_time, times)
    volumes = [v for v in grid.volume[at] if v > 0]
    squares = sum(m * m for m in moves)
    falls = sum(m * m for m in moves if m < 0)
    if len(moves) < DAY / 2:
        return (np.nan,) * 4
    return np.log(squares * DAY / len(moves)), sum(moves), falls / squares, np.mean(np.log(volumes))


def hour_values(grid: CandleGrid, session_ms: int) -> np.ndarray:
    """ln variance of the 24 hours before a session, latest first, by a plain loop; NaN of none."""
    size = HOUR_MS // grid.interval_ms
    close = dict(zip(grid.close_time.tolist(), grid.close.tolist(), strict=True))
    found = []
    for hour in range(24):
        end = session_ms - hour * HOUR_MS
        times = range(end - HOUR_MS + grid.interval_ms, end + 1, grid.interval_ms)
        moves = [np.log(close[t] / close[t - grid.interval_ms]) for t in times]
        moves = [move for move in moves if not np.isnan(move)]
        enough = 2 * len(moves) >= size
        square = sum(m * m for m in moves) * size / max(len(moves), 1)
        found.append(np.log(square + 1e-9) if enough else np.nan)
    return np.array(found)


def hour_terms(grid: CandleGrid, session_ms: int) -> list[float]:
    """The day's mean hourly ln variance, and that of its last hours less it; 0 where unknown."""
    hourly = hour_values(grid, session_ms)
    day = mean_known(hourly) if np.isfinite(hourly).sum() >= 12 else np.nan
    found = [day]
    for count in (1, 3, 6, 12):
        part = hourly[:count]
        known = 2 * np.count_nonzero(~np.isnan(part)) >= count
        found.append(mean_known(part) - day if known else 0.0)
    return found


def mean_known(values: np.ndarray) -> float:
    """Mean of what is known; NaN of nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def test_terms_are_the_sums_of_the_days_before() -> None:
    """A lag off by a day, a day that begins with the wrong return, a market read as the symbol."""
    grid = market_pair()
    sessions = midnights(grid)
    found = session_terms(grid, sessions, NAMES)
    for row, session_ms in enumerate(sessions.tolist()):
        own = np.array([day_values(grid, session_ms, k) for k in range(30)])
        market = np.array([day_values(grid.of_market(), session_ms, k) for k in range(30)])
        moment = datetime.datetime.fromtimestamp(session_ms / 1000, datetime.UTC)
        expected = [float(moment.weekday() == k) for k in range(7)]
        for days in (own, market):
            expected += [mean_known(days[:n, 0]) for n in HAR_DAYS]
        drift = own[0, 1] / np.exp(own[0, 0] / 2)
        expected += [drift, own[0, 3] - mean_known(own[:, 3]), 2 * own[0, 2] - 1]
        expected += hour_terms(grid, session_ms) + hour_terms(grid.of_market(), session_ms)
        np.testing.assert_allclose(found[row], expected, rtol=1e-9, atol=1e-12)
    assert np.isfinite(found).mean() > 0.9


def test_a_day_mostly_missing_is_unknown_and_a_month_is_not() -> None:
    """A mean over three candles taken for a day; a month thrown away for one day of it."""
    grid = with_hole(market_pair(), 31 * DAY - 5, 31 * DAY + 9)
    session = np.array([grid.start_ms // DAY_MS * DAY_MS + 32 * DAY_MS])
    day, week, month, _ = session_terms(grid, session, ["har"])[0]
    assert np.isnan(day)
    assert np.isfinite([week, month]).all()


def test_the_last_hours_are_those_of_five_minute_candles() -> None:
    """An hour of the wrong twelve candles, or an outage before midnight that loses the session."""
    size, five_ms = 288, HOUR_MS // 12
    grid = random_grid(5 * size, 8, 0.03, 0.03, start_ms=START_MS, interval_ms=five_ms)
    midnight = grid.row_of(-(-grid.start_ms // DAY_MS) * DAY_MS + 2 * DAY_MS)
    grid = with_hole(grid, midnight - 26, midnight + 1)  # two hours before midnight
    sessions = grid.start_ms + five_ms * np.array([midnight, midnight + size])
    found = session_terms(grid, sessions, ["hours"])
    expected = [hour_terms(grid, int(session_ms)) for session_ms in sessions]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert found[0, 1] == found[0, 2] == 0.0 != found[0, 3]
    assert (found[1, 1:] != 0.0).all()


def test_candles_longer_than_an_hour_stand_for_the_hours_they_hold() -> None:
    """A division by no candle, or a last hour that is never known."""
    four_ms = 4 * HOUR_MS
    grid = random_grid(6 * 10, 2, 0.0, 0.0, start_ms=START_MS - HOUR_MS, interval_ms=four_ms)
    session_ms = -(-grid.start_ms // DAY_MS) * DAY_MS + 4 * DAY_MS
    at = grid.row_of(session_ms)
    moves = np.diff(np.log(grid.close[at - 7 : at]))[::-1]  # latest first
    hourly = np.log(moves**2 + 1e-9)
    day = hourly.mean()
    expected = [day, *[hourly[0] - day] * 3, hourly[:3].mean() - day]
    found = session_terms(grid, np.array([session_ms]), ["hours"])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_terms_know_nothing_of_their_own_day_and_nothing_beyond_their_reach(name: str) -> None:
    """A term that sees the day it describes, or whose live ring is too short for it."""
    grid = market_pair(3)
    sessions = midnights(grid)
    whole = session_terms(grid, sessions, [name])
    for number in (0, 3, len(sessions) - 2):
        at = grid.row_of(int(sessions[number]))
        one = sessions[number : number + 1]
        for other in (grid.rows(0, at), grid.rows(0, at + 7), changed_from(grid, at)):
            assert same_bits(whole[number], session_terms(other, one, [name])[0])
        first = at - max(1, term_rows([name], DAY))
        for other in (grid.rows(first, at), changed_before(grid, first)):
            assert same_bits(whole[number], session_terms(other, one, [name])[0])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "weekday"])
def test_terms_follow_the_candles_they_are_named_for(name: str) -> None:
    """A market's term made of the symbol's candles, or a term that reads none."""
    grid = market_pair()
    sessions = midnights(grid)
    beside = dataclasses.replace(grid, market=changed_from(grid.of_market(), 0))
    of_market = not same_bits(
        session_terms(grid, sessions, [name]), session_terms(beside, sessions, [name])
    )
    assert of_market == TERMS[name].market == name.startswith("market_")


@pytest.mark.parametrize("name", NAMES)
def test_signs_are_those_of_a_mirrored_market(name: str) -> None:
    """A mirrored embedding that keeps yesterday's return, or turns its variance around."""
    grid = market_pair()
    sessions = midnights(grid)
    plain = session_terms(grid, sessions, [name])
    other = session_terms(mirrored(grid), sessions, [name])
    np.testing.assert_allclose(other, plain * np.array(TERMS[name].signs), atol=1e-9)


def test_the_embedding_holds_the_terms_behind_the_scaler_and_mirrors_them() -> None:
    """Terms computed and never given to the network, or a mirror that forgets them."""
    names = ("log_return", "volatility_12", "present")
    settings = SessionSettings(HOUR_MS, 48, names=names, market="M", terms=NAMES)
    grid = market_pair()
    table = build_sessions("X", grid, settings)
    assert settings.warmup == 30 * DAY + 1
    assert settings.n_statistics == 4 + 7 + 4 + 4 + 3 + 5 + 5
    sessions = SessionSet.between([table], 0, 2**62)
    macro = build_macronet("tcn", 3, settings.n_statistics, {"channels": 4, "dilations": [1]})
    index = sessions.members[:, 1]
    terms = session_terms(grid, table.start_ms, NAMES)[index]
    for flipped in (False, True):
        raw = embed_set(macro, sessions, raw=True, mirrored=flipped).detach().numpy()
        expected = terms * (settings.term_signs if flipped else 1)
        np.testing.assert_allclose(raw[:, -28:], expected, rtol=1e-6)


def test_a_session_whose_days_are_unknown_is_not_usable() -> None:
    """NaN in an embedding, and from there in every score of the day."""
    settings = SessionSettings(HOUR_MS, 48, names=("log_return", "present"), terms=("har",))
    grid = random_grid(DAYS * DAY, 0, start_ms=START_MS, interval_ms=HOUR_MS)
    day = grid.row_of(grid.start_ms // DAY_MS * DAY_MS + 32 * DAY_MS)
    hole = with_hole(grid, day, day + 16)
    usable = build_sessions("X", hole, settings).ok
    without = build_sessions("X", hole, dataclasses.replace(settings, terms=())).ok
    assert build_sessions("X", grid, settings).ok.all()
    assert usable.sum() < len(usable)
    assert without.all()


def test_unknown_terms_and_absent_markets_are_refused_with_their_names() -> None:
    """A KeyError for a typing error; a market's term that silently reads nothing."""
    grid = dataclasses.replace(market_pair(), market=None)
    with pytest.raises(RecipeError, match="hars: no such term of a session; there are: weekday"):
        session_terms(grid, midnights(grid), ["hars"])
    with pytest.raises(RecipeError, match="more than once"):
        session_terms(grid, midnights(grid), ["har", "har"])
    settings = SessionSettings(HOUR_MS, 48, market="M", terms=("market_har",))
    with pytest.raises(
        CandleError, match=r"X cannot be scored by itself: the term market_har .* M"
    ):
        build_sessions("X", grid, settings)
