"""The coming day's forecast over the API: the command's, made once per change of the store."""

from __future__ import annotations

import threading

import pytest

from cppncripto_strategy.desk import outlook
from cppncripto_strategy.desk.busy import BusyError, alone
from cppncripto_strategy.desk.listing import Listing
from cppncripto_strategy.errors import StoreError
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.feeds.history.store import CandleStore
from cppncripto_strategy.feeds.planted import PlantedSettings, generate

DAYS = 120


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """(folder, candles by symbol) of a store with a symbol and the market."""
    root = tmp_path_factory.mktemp("outlook")
    every = {
        name: generate(PlantedSettings(DAYS, "1h", seed, sigma=0.004, garch_alpha=0.12,
                                       garch_beta=0.87)).candles
        for seed, name in enumerate(("BTCUSDT", "ETHUSDT"))
    }  # fmt: skip
    for name, candles in every.items():
        CandleStore(root / "candles").write(name, "1h", candles)
    return root, every


def test_it_is_the_commands_forecast(store, desk_of):
    """A forecast of another day, of other candles, or without the market."""
    from cppncripto_strategy.forecasts import forecast_day

    root, every = store
    id = Listing(root).of("candles")[0].id
    found = desk_of(root).get(f"/api/v1/stores/{id}/forecast?symbol=ETHUSDT").json()
    expected = forecast_day("ETHUSDT", every, HOUR_MS, "BTCUSDT")
    assert found["day"]["ms"] == expected.day_ms
    assert found["day"]["ms"] == int(every["ETHUSDT"].open_time[0]) + DAYS * DAY_MS
    assert found["volatility"]["expected"] == pytest.approx(expected.volatility.expected)
    assert found["range"]["high"] == pytest.approx(expected.range.high)
    assert (found["market"], found["inputs"]) == ("BTCUSDT", expected.inputs)
    assert found["volatility_held"] == pytest.approx(expected.volatility_held.value)


def test_it_is_made_once_until_a_candle_changes(store, monkeypatch):
    """A second of computing for every viewer; yesterday's forecast after today's candles came."""
    root, every = store
    entry = Listing(root).of("candles")[0]
    made = []
    monkeypatch.setattr(outlook, "_forecast", lambda *_: made.append(1) or len(made))
    outlooks = outlook.Outlooks()
    assert [outlooks.of(entry, "ETHUSDT") for _ in range(3)] == [1, 1, 1]
    last = every["ETHUSDT"][len(every["ETHUSDT"]) - 1 :]
    CandleStore(entry.path).write("ETHUSDT", "1h", last.replace(volume=last.volume + 1))
    assert outlooks.of(entry, "ETHUSDT") == 2


@pytest.mark.parametrize("symbol", ["ZUSDT", "../ETHUSDT", "", "ETHUSDT/..", "\0"])
def test_a_symbol_that_is_not_there_is_said(store, symbol):
    """A symbol that leads out of the store."""
    root, _ = store
    with pytest.raises(StoreError, match="no candles"):
        outlook.Outlooks().of(Listing(root).of("candles")[0], symbol)


def test_who_waits_too_long_is_asked_to_come_again():
    """Fifty viewers that wait behind one long computation, and all threads with them."""
    lock = threading.Lock()
    with alone(lock), pytest.raises(BusyError), alone(lock, wait_s=0.01):
        pass
    with alone(lock, wait_s=0.01):
        pass
