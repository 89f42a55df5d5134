"""Transfer between planted symbols: what is shared carries over, what is opposed fails."""

from __future__ import annotations

import pandas as pd
import pytest

from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.evaluation.undefined import Refusal
from cppncripto_strategy.experiments.transfer import (
    COIN,
    ROLES,
    TransferPlan,
    day_shares,
    readable,
    training_sets,
    transfer_table,
    write_transfer_page,
)
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSettings, build_sessions
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.scoring.threshold import ThresholdSettings
from cppncripto_strategy.models.settings import LearnSettings, TrainSettings

HOUR_MS = 3_600_000
SESSION = SessionSettings(interval_ms=HOUR_MS, long_window=120)
START_DAY, DAYS = 112, 140


def market(seed):
    """A market whose regime never changes: a setup's direction always means the same."""
    return generate(
        PlantedSettings(
            days=DAYS, interval="1h", seed=seed, mu=2.0, setup_rate=0.3, horizon=2, tau_days=1e6
        )
    )


def seeds_of_regime(sign, count):
    return [seed for seed in range(40) if market(seed).regime[0] == sign][:count]


def transfer(seeds):
    markets = {f"S{k}": market(seed) for k, seed in enumerate(seeds)}
    start = markets["S0"].settings.start_ms
    plan = TransferPlan(
        learn=LearnSettings(
            session=SESSION,
            use_macro=False,
            train=TrainSettings(epochs=12, initialisations=1, batch_sessions=8, learning_rate=5e-3),
            label=LabelSettings(horizon=2, options={"threshold_bps": 5.0}),
            short_window=12,
            train_days=70,
            validate_days=20,
            retrain_days=140,
            macro_retrain_days=140,
        ),
        threshold=ThresholdSettings(min_scores=24, window=240),
        start_ms=start + START_DAY * DAY_MS,
        end_ms=start + DAYS * DAY_MS,
    )
    tables = {
        name: build_sessions(name, CandleGrid.from_candles(m.candles, HOUR_MS), SESSION)
        for name, m in markets.items()
    }
    setups = {name: m.candles.open_time[m.setup] + HOUR_MS for name, m in markets.items()}
    return transfer_table(tables, plan, setups, resamples=100)


def hit(table, scored, learned_from, where="setups"):
    chosen = table[
        (table["scored"] == scored)
        & (table["learned_from"] == learned_from)
        & (table["where"] == where)
    ]
    return float(chosen["hit"].iloc[0])


def test_training_sets_are_own_others_and_all():
    """Dies here: a network called unseen that learned from the symbol it is judged on."""
    assert training_sets("B", ["A", "B", "C"]) == [("B",), ("A", "C"), ("A", "B", "C")]


@pytest.mark.slow
def test_what_symbols_share_transfers_and_what_is_opposed_does_not(tmp_path):
    """Dies here: scores of one symbol judged by another's candles, or seen and unseen swapped."""
    found = transfer(seeds_of_regime(1, 2))
    same = found.table
    assert hit(same, "S0", "S0") > 0.75
    assert hit(same, "S0", "S1") > 0.75
    assert isinstance(found.family.best, Refusal)  # 28 days
    assert "28 common days" in found.to_plain()["words"][0]
    crossed = transfer([seeds_of_regime(1, 1)[0], seeds_of_regime(-1, 1)[0]])
    opposed = crossed.table
    assert hit(opposed, "S0", "S0") > 0.75
    assert hit(opposed, "S0", "S1") < 0.25
    seen = opposed.set_index(["scored", "learned_from"])["seen"]
    assert seen.loc[("S0", "S0")].all()
    assert not seen.loc[("S0", "S1")].any()
    head, rows = readable(opposed)
    assert head[:4] == ["Scored", "Learned from", "Seen", "Hit, setups"]
    assert [row[:3] for row in rows[:3]] == [
        ["S0", "S0", "yes"],
        ["S0", "S1", "no"],
        ["S0", "S0+S1", "yes"],
    ]
    write_transfer_page(crossed, tmp_path / "transfer.html", {"seed": 0})
    assert rows[0][3] in (tmp_path / "transfer.html").read_text("utf-8")


def test_one_symbol_cannot_transfer():
    """Dies here: a table that compares a symbol with itself."""
    with pytest.raises(RecipeError, match="at least two symbols"):
        transfer_table({"A": None}, None)


def test_days_weigh_symbols_by_their_candles():
    """Dies here: a day's share averaged over symbols, or taken from the wrong training set."""

    def part(hits, candles):
        return pd.DataFrame({"hits": hits, "candles": candles}, index=[1, 2])

    shares = day_shares({ROLES[0]: [part([3.0, 1.0], [4.0, 4.0]), part([1.0, 2.0], [4.0, 2.0])]})
    assert shares[ROLES[0]].tolist() == [0.0, 0.0]
    assert COIN not in ROLES
