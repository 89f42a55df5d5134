"""The eight checks together: run in order, by name, and each able to fail."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.checks import planted as planted_checks
from cppncripto_strategy.checks import shuffled
from cppncripto_strategy.checks.plan import CheckPlan
from cppncripto_strategy.checks.suite import CHECKS, run_checks, summary
from cppncripto_strategy.errors import RecipeError
from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.models.inputs import sessions
from cppncripto_strategy.models.inputs.features import compute_features
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.settings import TrainSettings


def test_an_unknown_check_is_refused(plan: CheckPlan) -> None:
    """Kills a typo that runs nothing and passes."""
    with pytest.raises(RecipeError, match="prefixx"):
        run_checks(plan, only=["prefixx"])


@pytest.fixture
def short_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer scored days and looser needs, so that a study takes seconds."""
    monkeypatch.setattr(planted_checks, "SCORED_DAYS", 75)
    monkeypatch.setattr(shuffled, "SCORED_DAYS", 8)


def test_all_eight_checks_run_in_order_and_an_honest_plan_passes(
    plan: CheckPlan, short_studies: None
) -> None:
    """Kills a check that is defined but never run, and an honest recipe that is refused."""
    reported: list[tuple[int, int, str]] = []
    verdicts = run_checks(plan, progress=lambda *step: reported.append(step))
    assert list(dict.fromkeys(verdict.name for verdict in verdicts)) == list(CHECKS)
    assert [verdict.detail for verdict in verdicts if not verdict.passed] == []
    assert summary(verdicts) == "all 8 checks passed"
    shares = [done / total for done, total, _ in reported]
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert reported[-1] == (4000, 4000, "done")


def test_only_the_checks_asked_for_are_run(plan: CheckPlan, short_studies: None) -> None:
    """Kills a filter that only hides what was run."""
    reported: list[str] = []
    verdicts = run_checks(
        plan, only=["shuffled labels"], progress=lambda _, __, text: reported.append(text)
    )
    assert [verdict.name for verdict in verdicts] == ["shuffled labels"]
    assert {text.split(":")[0] for text in reported} == {"shuffled labels", "done"}
    assert summary(verdicts) == "the check passed"


def test_a_plan_beside_a_market_symbol_runs_to_its_end(
    plan: CheckPlan, short_studies: None
) -> None:
    """Kills studies on planted markets that have no market symbol for the networks to read."""
    beside = generate(PlantedSettings(days=34, seed=4)).candles
    session = dataclasses.replace(
        plan.learn.session,
        names=(*plan.learn.session.names, "market_log_return", "market_present"),
        market="MARKET",
    )
    plan = dataclasses.replace(
        plan,
        grids={name: grid.with_market(beside) for name, grid in plan.grids.items()},
        learn=dataclasses.replace(plan.learn, session=session),
        weigh=None,
    )
    names = ["shuffled labels", "null market", "ceiling"]
    verdicts = run_checks(plan, only=names)
    assert list(dict.fromkeys(verdict.name for verdict in verdicts)) == names
    assert [verdict.detail for verdict in verdicts if not verdict.passed] == []


def next_return(grid: CandleGrid, names: tuple[str, ...]) -> FloatArray:
    """LEAK: log_return is that of the next candle."""
    features = compute_features(grid, names)
    column = features[:, names.index("log_return")]
    column[:-1] = column[1:].copy()
    return features


@pytest.mark.parametrize("name", ["null market", "ceiling"])
def test_a_leak_that_earns_is_caught_by_what_it_earns(
    name: str, plan: CheckPlan, short_studies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills a statistical check that training on the future would pass."""
    monkeypatch.setattr(sessions, "compute_features", next_return)
    longer = dataclasses.replace(plan.learn, train=TrainSettings(epochs=6, initialisations=1))
    verdicts = run_checks(dataclasses.replace(plan, learn=longer), only=[name])
    failed = [verdict for verdict in verdicts if not verdict.passed]
    assert name in {verdict.name for verdict in failed}
    assert max(verdict.first_offending_value or 0 for verdict in failed) > 0.53
    assert summary(verdicts) == f"1 of 1 checks failed: {name}"


def test_the_example_in_the_documentation_runs(
    grid: CandleGrid, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills an example that nobody ran."""
    text = (Path(__file__).parents[3] / "docs" / "checks.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(example, "docs/checks.md", "exec"), {"grid": grid})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["prefix", "True"],
        ["perturbation", "True"],
        ["start-invariance", "True"],
    ]
