"""Evidence where the answer is known: luck seldom opens it, an edge does, and its end closes it.

Small enough for every run of the suite; `benchmarks/evidence.py` is the whole campaign.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.evaluation.evidence import EvidenceSettings, weigh
from cppncripto_strategy.evaluation.shadow import Measure, daily_means, daily_results
from cppncripto_strategy.feeds.planted import PlantedSettings, generate

SETTINGS = EvidenceSettings()
STEP_MS, COST_BPS = 900_000, 22.0
RUNS, DAYS = 40, 120


def oracle_days(seed, mu, cost_bps):
    """Daily mean net results, bps, of the oracle's signals on 15-minute planted candles."""
    settings = PlantedSettings(days=DAYS, interval="15m", seed=seed, mu=mu, sigma=0.004)
    market = generate(settings)
    signals = pd.DataFrame(
        {
            "symbol": "PLANTED",
            "close_time_ms": market.candles.open_time + STEP_MS,
            "close": market.candles.close,
            "signal": market.oracle_scores().astype(np.int64),
        }
    )
    measure = Measure(settings.horizon, STEP_MS, cost_bps)
    return daily_means(list(daily_results(signals, {"PLANTED": measure}).values()))


def path_of(net_bps):
    return weigh(np.array([SETTINGS.clipped(value) for value in net_bps]), SETTINGS)


@pytest.fixture(scope="module")
def null_days():
    """Markets in which nothing can be predicted, before costs."""
    return [oracle_days(seed, 0.0, 0.0) for seed in range(RUNS)]


def test_luck_seldom_opens_it_at_the_edge_of_the_null(null_days):
    """A test that is no test under daily looks: five of forty would be one in a hundred."""
    opened = sum(bool(path_of(days).open.any()) for days in null_days)
    assert opened <= 4


def test_nothing_opens_below_the_costs(null_days):
    """Costs that are forgotten, or added."""
    assert not any(path_of(days - COST_BPS).open.any() for days in null_days)


def test_a_test_looked_at_daily_is_wrong_far_more_often(null_days):
    """A null so easy that every test would hold on it."""
    fired = 0
    for days in null_days:
        count = np.arange(1, len(days) + 1)
        mean = np.cumsum(days) / count
        variance = np.cumsum(days**2) / count - mean**2
        t = mean[10:] / np.sqrt(variance[10:] / count[10:])
        fired += bool((t > 1.7).any())
    assert fired >= 6


def test_an_edge_opens_it_and_its_end_closes_it():
    """Evidence that never comes, or never goes."""
    for seed in range(5):
        lasting, over = oracle_days(seed, 0.8, COST_BPS), oracle_days(90 + seed, 0.0, COST_BPS)
        path = path_of(np.concatenate([lasting, over]))
        opened = int(np.argmax(path.open))
        assert 5 < opened < 90
        assert path.open[opened:DAYS].all()
        assert not path.open[-1]
