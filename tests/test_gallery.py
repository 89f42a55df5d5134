"""The gallery: every recipe runs, reduced to seconds, and its page shows what it says."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from cppncripto_strategy import Recipe, load_recipe, run_backtest

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"
NAMES = sorted(path.parent.name for path in GALLERY.glob("*/recipe.toml"))
PICTURE_BYTES = 100_000
# The smallest networks, trained for one epoch; what a recipe is about stays as it is.
SMALL: dict[str, Any] = {
    "macro": {"epochs": 1},
    "micro": {
        "channels": 4,
        "hidden": 4,
        "components": 2,
        "initialisations": 1,
        "epochs": 1,
        "warm_epochs": 1,
    },
}


def reduced(name: str, **changes: Any) -> Recipe:
    """A recipe of the gallery with some of its keys replaced."""
    values = load_recipe(GALLERY / name / "recipe.toml").to_plain()
    merge(values, SMALL)
    merge(values, changes)
    return Recipe.model_validate(values)


def merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value


def script(name: str) -> Any:
    """main of an entry's run.py; Backtrader looks its classes up among the modules."""
    spec = spec_from_file_location(f"gallery_{name}", GALLERY / name / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.main


def test_the_gallery_is_listed_and_its_pictures_are_small() -> None:
    """An entry that nobody finds, or a picture that makes every clone heavier."""
    index = (GALLERY / "README.md").read_text("utf-8")
    assert len(NAMES) == 5
    for name in NAMES:
        assert f"({name}/README.md)" in index
        page = (GALLERY / name / "README.md").read_text("utf-8")
        assert "](picture.png)" in page
        picture = (GALLERY / name / "picture.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < PICTURE_BYTES
        assert load_recipe(GALLERY / name / "recipe.toml").symbols


@pytest.mark.slow
def test_momentum_earns_where_it_is_planted_and_not_where_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example whose score is not traded, or earns by a mistake of the account."""
    candles = {"planted": {"days": 24}}
    result = script("momentum")(reduced("momentum", candles=candles), tmp_path / "m")
    assert (tmp_path / "m" / "report.html").stat().st_size > 10_000
    hit = result.metrics["signals"]["both"]["hit_ratio"]["value"]
    null = reduced("momentum", candles={"planted": {"days": 24, "mu": 0.0}})
    main = script("momentum")
    monkeypatch.setitem(main.__globals__, "write_outputs", lambda *_: None)
    nothing = main(null, tmp_path / "n")
    assert hit > nothing.metrics["signals"]["both"]["hit_ratio"]["value"]
    assert nothing.metrics["strategy"]["total_return"] < 0
    assert result.embeddings is None


@pytest.mark.slow
def test_universe_forecasts_every_symbol(tmp_path: Path) -> None:
    """A symbol without a forecast, or sizes that do not follow it."""
    recipe = reduced(
        "universe",
        interval="1h",
        candles={"planted": {"days": 150}},
        macro={"long_window": 288, "pool": 1, "encoder_options": {"channels": 4, "stride": 4}},
        micro={"short_window": 12},
        walkforward={"train_days": 70, "validate_days": 20},
        threshold={"window": 168},
    )
    found = script("universe")(recipe, tmp_path / "u")
    assert set(found) == {"ONE", "TWO", "THREE"}
    for name, day in found.items():
        assert day.volatility.low < day.volatility.expected < day.volatility.high
        assert (tmp_path / "u" / f"{name.lower()}.png").is_file()
    assert recipe.strategy.sizing == "volatility"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evidence", "painted"])
def test_recipe_runs(name: str, tmp_path: Path) -> None:
    """A recipe that its own version of the package refuses."""
    recipe = reduced(
        name,
        interval="1h",
        candles={"planted": {"days": 256}},
        macro={"long_window": 288},
        micro={"short_window": 12},
        walkforward={"train_days": 180, "validate_days": 30},
        threshold={"window": 168},
    )
    result = run_backtest(recipe, tmp_path / name)
    assert (tmp_path / name / "picture.png").is_file()
    if name == "evidence":
        assert result.recipe["strategy"]["evidence"] == "wait"
        entries = result.fills[result.fills["side"] == "buy"]
        assert set(entries["reason"]) <= {"evidence"}
    else:
        assert result.recipe["macro"]["encoder"] == "cppn"


@pytest.mark.slow
def test_search_chooses_a_candidate_and_opens_the_sealed_days_once(tmp_path: Path) -> None:
    """A space whose keys were renamed, or a search that ends without a verdict."""
    pytest.importorskip("optuna")
    from cppncripto_strategy.spreading.spread import Spread
    from cppncripto_strategy.tuning.search import Where, tune

    recipe = reduced(
        "tuned",
        candles={"planted": {"days": 300}},
        macro={"long_window": 288},
        search={"trials": 2, "windows": 2, "sealed_days": 28},
    )
    place = Where(tmp_path, tmp_path / "tuning", None, Spread("none", 1, None))
    found = tune(recipe, place)
    assert (tmp_path / "tuning" / "tuning.html").is_file()
    assert found.summary()["sealed"]
