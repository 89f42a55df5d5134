"""The coming day's forecast: what it may know, what it says of itself, and its command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cppncripto_strategy.cli import cli
from cppncripto_strategy.errors import CandleError
from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS, ms_to_date
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.forecasts import LINEAR, forecast_day, judge_embedding
from cppncripto_strategy.models.forecasting.days import day_table
from cppncripto_strategy.models.forecasting.forecaster import fit_forecaster
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionSettings, build_sessions

START_MS = 1_704_067_200_000  # 2024-01-01
DAYS = 200
COMING_MS = START_MS + DAYS * DAY_MS


def candles_of(seed: int) -> Candles:
    """Hourly candles whose volatility stays high or low for days."""
    return generate(
        PlantedSettings(
            DAYS, "1h", seed, start_ms=START_MS, sigma=0.004, garch_alpha=0.12, garch_beta=0.87
        )
    ).candles


@pytest.fixture(scope="module")
def series() -> dict[str, Candles]:
    return {"ETHUSDT": candles_of(2), "BTCUSDT": candles_of(1)}


def test_a_forecast_of_a_past_day_is_the_one_that_was_made_then(series) -> None:
    """Kills a look-ahead: candles after the day's midnight in its forecast or its record."""
    day_ms = COMING_MS - 30 * DAY_MS
    cut = {name: candles.between(0, day_ms) for name, candles in series.items()}
    then = forecast_day("ETHUSDT", cut, HOUR_MS, "BTCUSDT")
    now = forecast_day("ETHUSDT", series, HOUR_MS, "BTCUSDT", day_ms)
    assert then.day_ms == day_ms
    assert then.to_json() == now.to_json()
    assert then.history.equals(now.history)
    half_a_day = {n: c.between(0, day_ms + DAY_MS // 2) for n, c in series.items()}
    assert forecast_day("ETHUSDT", half_a_day, HOUR_MS, "BTCUSDT").to_json() == then.to_json()


def test_a_forecast_says_what_it_is_made_of_and_how_it_held(series) -> None:
    """Kills an interval without a record, and a volatility in other units than the day's."""
    found = forecast_day("ETHUSDT", series, HOUR_MS, "BTCUSDT")
    assert (found.day_ms, found.inputs, found.embedding) == (COMING_MS, LINEAR, "")
    assert found.volatility.low < found.volatility.expected < found.volatility.high
    assert found.annual_volatility == pytest.approx(found.volatility.expected * 365**0.5)
    days = day_table(CandleGrid.from_candles(series["ETHUSDT"], HOUR_MS))
    came = dict(zip(days.day_ms.tolist(), np.exp(days.log_volatility), strict=True))
    np.testing.assert_allclose(
        found.history["came"], [came[ms] for ms in found.history["day_ms"]], rtol=1e-9
    )
    ordinary = np.median(np.exp(days.log_volatility))
    assert 0.2 * ordinary < found.volatility.expected < 5 * ordinary
    inside = found.history["came"].between(found.history["low"], found.history["high"])
    assert found.volatility_held.value == pytest.approx(inside.mean())
    assert found.past_days == len(found.history) == found.volatility_held.count
    wide = forecast_day("ETHUSDT", series, HOUR_MS, "BTCUSDT", level=0.95)
    assert wide.volatility.high > found.volatility.high
    assert wide.volatility_held.value > found.volatility_held.value


def test_the_market_is_looked_at_and_named(series) -> None:
    """Kills a market option that changes nothing."""
    alone = forecast_day("ETHUSDT", {"ETHUSDT": series["ETHUSDT"]}, HOUR_MS)
    both = forecast_day("ETHUSDT", series, HOUR_MS, "BTCUSDT")
    assert (alone.market, both.market) == (None, "BTCUSDT")
    assert alone.volatility != both.volatility


def test_what_cannot_be_forecast_is_refused_with_the_reason(series) -> None:
    """Kills a forecast made of a hole, of another day, or of a fortnight."""
    own = series["ETHUSDT"]
    gap = own[(own.open_time < COMING_MS - DAY_MS) | (own.open_time >= COMING_MS)]
    with pytest.raises(CandleError, match="the day before"):
        forecast_day("ETHUSDT", {"ETHUSDT": gap}, HOUR_MS, None, COMING_MS)
    short = own.between(START_MS, START_MS + 60 * DAY_MS)
    with pytest.raises(CandleError, match="60 are needed"):
        forecast_day("ETHUSDT", {"ETHUSDT": short}, HOUR_MS)
    with pytest.raises(CandleError, match="no whole UTC day"):
        forecast_day("ETHUSDT", {"ETHUSDT": own[:20]}, HOUR_MS)
    with pytest.raises(CandleError, match="of ETHUSDT or BTCUSDT"):
        forecast_day("ETHUSDT", {"ETHUSDT": own, "BTCUSDT": gap}, HOUR_MS, "BTCUSDT", COMING_MS)


def test_a_bundles_embedding_stands_beside_har_x_or_is_left_out_by_name(series, toy) -> None:
    """Kills an embedding that counts for the days its encoder learned from."""
    table = build_sessions("ETHUSDT", toy.grid(series["ETHUSDT"]), toy.settings)
    young = toy.bundle(table, COMING_MS - 10 * DAY_MS, seed=0)
    found = forecast_day("ETHUSDT", series, HOUR_MS, "BTCUSDT", bundle=young)
    assert found.inputs == LINEAR
    assert "left out: on the 10 days after its training" in found.embedding
    plain = forecast_day("ETHUSDT", series, HOUR_MS, "BTCUSDT")
    assert found.volatility.expected == pytest.approx(plain.volatility.expected, rel=0.05)
    assert young.model_hash in found.embedding


def test_a_macronet_that_forecasts_corrects_the_days_after_its_training(series, toy) -> None:
    """Kills a correction that is stored and not added, or added to days it was learned from."""
    until_ms = COMING_MS - 50 * DAY_MS
    table = build_sessions("ETHUSDT", toy.grid(series["ETHUSDT"]), toy.settings)
    bundle = toy.bundle(table, until_ms, seed=0)
    known = SessionSet.between([table], 0, until_ms)
    added = np.zeros((2, 129))
    added[:, -1] = np.log(1.25), np.log(1.5)
    learned = fit_forecaster(known, bundle.bank, 0, until_ms, until_ms, added)
    correcting = dataclasses.replace(bundle, forecaster=learned)
    found = forecast_day("ETHUSDT", series, HOUR_MS, "BTCUSDT", bundle=correcting)
    none = dataclasses.replace(learned, correction=0 * added)
    plain = dataclasses.replace(bundle, forecaster=none)
    expected = forecast_day("ETHUSDT", series, HOUR_MS, "BTCUSDT", bundle=plain)
    assert found.inputs == f"{LINEAR} and MacroNet's forecast"
    assert found.volatility.high == pytest.approx(1.25 * expected.volatility.high)
    assert found.range.expected == pytest.approx(1.5 * expected.range.expected)
    ratio = found.history["expected"] / expected.history["expected"]
    later = found.history["day_ms"] >= until_ms
    np.testing.assert_allclose(ratio, np.where(later, 1.25, 1.0))
    assert 0 < later.sum() == 50 < len(later)


def test_judging_an_embedding_holds_every_input_to_har_x(series, toy) -> None:
    """Kills a card whose inputs are judged on different days, or whose noise costs the anchor."""
    settings = SessionSettings(interval_ms=HOUR_MS, long_window=48)
    tables = [build_sessions(name, toy.grid(c), settings) for name, c in series.items()]
    bundle = toy.bundle(tables[0], COMING_MS - 90 * DAY_MS, seed=0)
    found = judge_embedding(bundle, series, "BTCUSDT", series["BTCUSDT"])
    scores = {score.name: score for score in found.forecasts}
    assert {score.symbol_days for score in scores.values()} == {2 * 90}
    assert scores["har_x_and_embedding"].r2 > scores["har_x"].r2 - 0.02
    assert scores["har_x"].r2_gain.value is None
    assert scores["embedding"].diebold_mariano is not None
    document = json.loads(json.dumps(found.to_json()))
    assert document["market"] == "BTCUSDT"
    assert [score["name"] for score in document["forecasts"]] == list(scores)


def _run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, [str(part) for part in arguments])
    return done.exit_code, done.output


def test_the_command_prints_writes_and_refuses(series, tmp_path: Path) -> None:
    """Kills a command that drifts from the library under it, and a chart that is not one."""
    for name, candles in series.items():
        CandleStore(tmp_path / "candles").write(name, "1h", candles)
    where = ("--candles", tmp_path / "candles", "--interval", "1h")
    page, picture = tmp_path / "forecast.html", tmp_path / "forecast.png"
    status, text = _run("forecast", "ETHUSDT", *where, "--chart", page)
    assert status == 0
    expected = forecast_day("ETHUSDT", series, HOUR_MS, "BTCUSDT")
    assert f"{100 * expected.volatility.expected:.2f} % expected" in text
    assert f"of {expected.past_days} past days" in text
    assert "made by HAR-X and the last hours with the market symbol BTCUSDT" in text
    assert "plotly" in page.read_text("utf-8")
    status, text = _run("forecast", "ETHUSDT", *where, "--chart", picture, "--json")
    assert status == 0
    assert json.loads(text) == {
        **json.loads(json.dumps(expected.to_json())),
        "chart": str(picture),
    }
    assert picture.read_bytes().startswith(b"\x89PNG")
    status, text = _run("forecast", "ETHUSDT", *where, "--market", "none", "--level", 0.5)
    assert status == 0
    assert "no market symbol" in text
    assert "50 % intervals" in text
    for wrong in (("--chart", "x.gif"), ("--date", "2024-03-14 10:00"), ("--level", "1")):
        assert _run("forecast", "ETHUSDT", *where, *wrong)[0] == 2
    status, text = _run("forecast", "ETHUSDT", *where, "--market", "XRPUSDT")
    assert status != 0
    late = ms_to_date(COMING_MS + 5 * DAY_MS)
    assert _run("forecast", "ETHUSDT", *where, "--date", late)[0] != 0
