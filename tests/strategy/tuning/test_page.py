"""The page of a search, its clusters and its verdict: what a reader would believe."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cppncripto_strategy.tuning.figures import heat_figure, history_figure, parallel_figure
from cppncripto_strategy.tuning.page import write_tuning_page
from cppncripto_strategy.tuning.plan import make_plan
from cppncripto_strategy.tuning.plateaus import distances, plateaus
from cppncripto_strategy.tuning.search import Where, tune
from cppncripto_strategy.tuning.space import read_space
from cppncripto_strategy.tuning.study import DoneTrial
from cppncripto_strategy.tuning.worth import search_returns

SPACE = {
    "threshold.quantile": {"float": [0.05, 0.4], "log": True},
    "strategy.hold_candles": {"int": [1, 9]},
    "macro.encoder": {"choice": ["tcn", "gru"]},
    "macro.encoder_options.layers": {"int": [1, 3], "when": {"macro.encoder": "gru"}},
}


@pytest.fixture(scope="module")
def plan(tiny):
    recipe = tiny.recipe(space=SPACE)
    return make_plan(recipe, read_space(recipe.space), None)


def trial(number, value, quantile, hold, **more):
    changes = {"threshold.quantile": quantile, "strategy.hold_candles": hold}
    changes["macro.encoder"] = "tcn"
    state = "complete" if value is not None else "failed"
    values = None if value is None else (value,)
    return DoneTrial(number, state, changes | more, values, {"sharpe": value}, True, [], "", 1.0)


def test_a_plateau_is_told_from_a_lonely_peak(plan):
    """The best trial stands alone among bad ones, and is shown as the place to be."""
    space = read_space(SPACE)
    broad = [trial(n, 2.0 + 0.01 * n, 0.1 + 0.002 * n, 3) for n in range(6)]
    peak = trial(6, 3.0, 0.38, 9)
    around = [trial(7 + n, -2.0, 0.36 + 0.005 * n, 9) for n in range(5)]
    far = [trial(12 + n, -1.0, 0.06, 6) for n in range(16)]
    found = plateaus([*broad, peak, *around, *far], space, plan)
    assert set(found[0].members) == {0, 1, 2, 3, 4, 5}
    alone = next(p for p in found if p.best == 6)
    assert alone.members == (6,)
    assert alone.value == 3.0
    assert alone.neighbours == pytest.approx(-2.0)
    assert found[0].neighbours > 1.9


def test_distance_counts_a_key_that_only_one_has(plan):
    """A GRU's layers at the place of their lowest value in every TCN."""
    space = read_space(SPACE)
    gru = trial(0, 1.0, 0.1, 3)
    gru.changes.update({"macro.encoder": "gru", "macro.encoder_options.layers": 1})
    tcn = trial(1, 1.0, 0.1, 3)
    apart = distances([gru, tcn, tcn], space)
    assert apart[0, 1] == pytest.approx(2 / 4)
    assert apart[1, 2] == 0.0


@pytest.fixture
def found(tiny, quick, tmp_path):
    recipe = tiny.recipe(space=SPACE, search={"trials": 40})
    return tune(recipe, Where(tmp_path, tmp_path / "tuning"))


def test_the_page_holds_what_was_found_and_asks_no_host(found, tmp_path):
    """A chart that is empty, or a page that is blank on a train."""
    page = (tmp_path / "tuning/tuning.html").read_text()
    for chart in ("history", "parallel", "importance", "heat"):
        assert f'id="{chart}"' in page
    assert 'src="http' not in page
    assert "What was asked for" in page
    assert f"trial {found.best.number}" in page
    for done in found.trials:
        assert f">{done.number}: " in page
    points = [len(trace.x) for trace in history_figure(found).data]
    pruned = sum(t.state == "pruned" for t in found.trials)
    assert points[:2] == [len(found.trials) - pruned, pruned]
    assert len(heat_figure(found).data) == 6  # pairs of four keys
    lines = parallel_figure(found).data[0].dimensions
    assert len(lines) == 5
    assert all(len(axis["values"]) == len(found.trials) - pruned for axis in lines)


def test_text_of_a_recipe_is_text_on_the_page(found, tmp_path):
    """A choice that is HTML, run by whoever opens the page."""
    evil = "<script>alert(1)</script>"
    done = [
        replace(t, reason=evil, changes=t.changes | {"macro.encoder": "tcn"}) for t in found.trials
    ]
    write_tuning_page(tmp_path / "x.html", replace(found, trials=done), evil)
    assert evil not in (tmp_path / "x.html").read_text()


def test_returns_of_all_trials_are_judged_on_the_days_they_reached(found):
    """A pruned trial's missing windows taken for days in cash: every one looks safe."""
    returns = search_returns(found)
    days = sum(len(step.daily) for step in found.untuned)
    assert returns.inner.shape == (len(found.trials), days)
    for done in found.trials:
        row = returns.inner[done.number]
        known = np.concatenate([step.daily for step in done.steps])
        assert row[: len(known)] == pytest.approx(known)
        assert np.isnan(row[len(known) :]).all()
    assert returns.chosen == found.best.number
    assert returns.openings == 1


def test_the_verdict_is_in_the_summary(found, tmp_path):
    """A verdict on the page alone, which no program can read."""
    summary = json.loads((tmp_path / "tuning/search.json").read_text())
    assert summary["worth"]["headline"] == found.worth["headline"]
    assert summary["best"]["number"] == found.best.number
    assert summary["sealed"]["measures"]["chosen"]["sharpe"] is not None
