"""A feature of a user's own: one file of theirs, nothing of ours, from a recipe to live scores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import Tensor

from cppncripto_strategy.errors import BundleError, RecipeError
from cppncripto_strategy.feeds.clock import DAY_MS, HOUR_MS
from cppncripto_strategy.market import Market, session_tables
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.inputs.features import DEFAULT_COLUMNS
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, build_sessions
from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.learning.training import MicroData
from cppncripto_strategy.models.scoring.batch import score_span
from cppncripto_strategy.models.scoring.macro_stream import MacroStream
from cppncripto_strategy.models.scoring.round_scorer import ScoreStream
from cppncripto_strategy.plugins import load_plugins
from cppncripto_strategy.recipe import parse_recipe
from cppncripto_strategy.registry import forget_everywhere
from cppncripto_strategy.testing.features import check_feature, check_table
from cppncripto_strategy.testing.grids import mirrored

PLUGIN = '''"""The body of a candle, and whether it is Monday."""

import numpy as np

from cppncripto_strategy.models.inputs.features import FEATURES, Feature


@FEATURES.register("body")
@Feature.of(memory=1, sign=-1)
def body(grid):
    return np.log(grid.close / grid.open)


@FEATURES.register("monday")
@Feature.of(memory=1, scaled=False, clock=True)
def monday(grid):
    return ((grid.close_time // 86_400_000 + 3) % 7 == 0).astype(float)
'''
NAMES = ("body", *DEFAULT_COLUMNS, "monday")
QUICK = {
    "interval": "1h",
    "features": {"columns": NAMES},
    "macro": {
        "long_window": 288,
        "epochs": 1,
        "encoder_options": {"channels": 4, "stride": 6, "dilations": [1, 2]},
    },
    "micro": {
        "short_window": 12,
        "channels": 4,
        "hidden": 4,
        "components": 2,
        "initialisations": 1,
        "epochs": 1,
        "clock": False,
    },
    "label": {"horizon": 4},
    "walkforward": {"train_days": 20, "validate_days": 20},
}


@pytest.fixture
def plugin(tmp_path: Path):
    """The plugin file, run; forgotten afterwards."""
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    load_plugins([path])
    yield path
    forget_everywhere(str(path))


def learned(plugin: Path, toy: SimpleNamespace, objective: str = "contrastive") -> SimpleNamespace:
    """A bundle that a recipe with the plugin's features trains, and the candles that follow."""
    market = Market({"X": toy.candles(days=74, missing=[1650, 1651])})
    recipe = parse_recipe(
        {**QUICK, "plugins": [str(plugin)], "macro": {**QUICK["macro"], "objective": objective}}
    )
    settings = recipe.learn_settings()
    (table,) = session_tables(market, settings.session)
    until_ms = int(table.start_ms[0]) + 41 * DAY_MS
    bundle = learn_bundle([table], until_ms, settings, seed=0)
    return SimpleNamespace(bundle=bundle, grid=table.grid, table=table, until_ms=until_ms)


def streamed(grid: CandleGrid, timeline: BundleTimeline) -> np.ndarray:
    """Scores taken one candle at a time."""
    macro = MacroStream(timeline)
    stream, scores = ScoreStream(macro), np.full(len(grid), np.nan)
    columns = (grid.open, grid.high, grid.low, grid.close, grid.volume, grid.taker_buy_volume)
    for row in np.flatnonzero(grid.present):
        macro.push(int(grid.open_time[row]), np.array([column[row] for column in columns]))
        scores[row] = stream.update()[0]
    return scores


def test_a_plugin_feature_keeps_the_contract(plugin: Path) -> None:
    """A kit that only knows the features of the package."""
    check_feature("body")
    check_feature("monday")
    check_table(NAMES)


@pytest.mark.parametrize("objective", ["contrastive", "masked", "autoencoder"])
def test_a_plugin_feature_is_learned_and_scored_alike_live(
    plugin: Path, toy: SimpleNamespace, tmp_path: Path, objective: str
) -> None:
    """A place where the nine features are still counted by hand."""
    made = learned(plugin, toy, objective)
    bundle = Bundle.load(made.bundle.save(tmp_path / "bundle"))
    assert bundle.info.session.names == NAMES
    assert bundle.info.micro.unseen == (7, 8, 10)  # sin_day, cos_day, monday
    timeline = BundleTimeline((bundle,))
    batch = score_span("X", made.grid, timeline).score
    live = streamed(made.grid, timeline)
    np.testing.assert_allclose(live, np.where(made.grid.present, batch, np.nan), atol=1e-5)
    scored = batch[np.isfinite(batch)]
    assert len(np.unique(scored)) > 24
    assert made.grid.close_time[np.isfinite(batch)].min() >= made.until_ms


def test_a_plugin_feature_is_mirrored_with_its_own_sign(
    plugin: Path, toy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mirrored training in which a user's odd feature keeps its sign."""
    mirrored_columns, original = set(), MicroData.mirrored

    def spy(data: MicroData, flip: Tensor) -> MicroData:
        mirrored_columns.add(data.odd_columns)
        return original(data, flip)

    monkeypatch.setattr(MicroData, "mirrored", spy)
    made = learned(plugin, toy)
    other = build_sessions("X", mirrored(made.grid), made.table.settings)
    assert mirrored_columns == {(NAMES.index("body"), NAMES.index("log_return"))}
    both = [SessionSet.between([table], 0, made.until_ms) for table in (made.table, other)]
    rule = embed_set(made.bundle.macro, both[0], mirrored=True)
    truth = embed_set(made.bundle.macro, both[1])
    plain = embed_set(made.bundle.macro, both[0])
    # Ranges in price units are mirrored only nearly, so the embeddings are too.
    assert (rule - truth).abs().mean() < 0.3 * (plain - truth).abs().mean()


def test_a_bundle_without_its_plugin_is_refused(
    plugin: Path, toy: SimpleNamespace, tmp_path: Path
) -> None:
    """A network fed other columns than it learned from."""
    folder = learned(plugin, toy).bundle.save(tmp_path / "bundle")
    plugin.write_text(PLUGIN.replace("grid.close / grid.open", "grid.high / grid.open"))
    load_plugins([plugin])
    with pytest.raises(BundleError, match=r"'body' of the plugin mine\.py .* go back to that file"):
        Bundle.load(folder)
    forget_everywhere(str(plugin))
    with pytest.raises(BundleError, match=r"'body' of the plugin mine\.py .* not loaded"):
        Bundle.load(folder)
    with pytest.raises(RecipeError, match=r"features\.columns: .*'body' is unknown"):
        parse_recipe(QUICK)


def test_candles_of_an_hour_are_what_the_market_holds(toy: SimpleNamespace) -> None:
    """Toy candles at another interval than the recipe's: everything above would be vacuous."""
    assert np.diff(toy.candles(days=1).open_time).tolist() == [HOUR_MS] * 23
