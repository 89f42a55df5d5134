"""A search: the same trials whatever happens to it, the sealed days opened once, and reported."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cppncripto_strategy.errors import RecipeError, TrainingError
from cppncripto_strategy.evaluation.trials import TrialLedger
from cppncripto_strategy.stopping import Stopped
from cppncripto_strategy.tuning.request import adopt, with_search
from cppncripto_strategy.tuning.sealed import OpeningLedger
from cppncripto_strategy.tuning.search import Where, tune
from cppncripto_strategy.tuning.study import TrialStudy

HERE = Path(__file__).parent
SAMPLERS = ("tpe", "random", "gp", "nsga3")


def where(home):
    return Where(home, home / "tuning")


def tried(folder):
    """What every trial tried and how it ended, without times."""
    kept = [json.loads(p.read_text()) for p in sorted((folder / "trials").glob("*.json"))]
    return [(entry["number"], entry["state"], entry["changes"]) for entry in kept]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_tries_the_same_candidates(tiny, quick, tmp_path, sampler):
    """A search that nobody can repeat."""
    recipe = tiny.recipe(search={"sampler": sampler})
    for name in "ab":
        tune(recipe, where(tmp_path / name), keep_sealed=True)
    assert len(tried(tmp_path / "a/tuning")) == tiny.base["search"]["trials"]
    assert tried(tmp_path / "a/tuning") == tried(tmp_path / "b/tuning")
    other = tiny.recipe(search={"sampler": sampler, "seed": 4})
    tune(other, where(tmp_path / "c"), keep_sealed=True)
    assert tried(tmp_path / "a/tuning")[0] != tried(tmp_path / "c/tuning")[0]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_stopped_and_resumed_is_the_uninterrupted_one(tiny, quick, tmp_path, sampler):
    """A resumed search that draws its first trials again, or skips the one that was running."""
    recipe = tiny.recipe(search={"sampler": sampler})
    whole = tune(recipe, where(tmp_path / "whole"))
    for count in (0, 3, 7):
        stopped = tune(recipe, where(tmp_path / "parts"), watcher=_stop_after(count))
        assert stopped.interrupted is not None
        assert stopped.sealed is None
        assert (tmp_path / "parts/tuning/tuning.html").is_file()
    resumed = tune(recipe, where(tmp_path / "parts"))
    assert tried(tmp_path / "parts/tuning") == tried(tmp_path / "whole/tuning")
    assert resumed.best.number == whole.best.number
    assert [t.fingerprint for t in TrialLedger(tmp_path / "parts").read()] == [
        t.fingerprint for t in TrialLedger(tmp_path / "whole").read()
    ]


def _stop_after(count):
    def watch(pulse):
        if pulse.done >= count:
            raise Stopped(signal.SIGINT)

    return watch


def test_a_better_candidate_is_found_than_the_recipe_as_it_was(tiny, quick, tmp_path):
    """Directions turned round: the worst candidate is chosen, with confidence."""
    found = tune(tiny.recipe(search={"trials": 30}), where(tmp_path))
    best = max(t.values[0] for t in found.trials if t.state == "complete")
    assert found.best.values == (best,)
    assert abs(found.best.changes["threshold.quantile"] - 0.2) < 0.1
    assert found.pulse.pruned > 0
    pruned = [t for t in found.trials if t.state == "pruned"]
    assert all(len(t.steps) < 4 for t in pruned)


def test_several_objectives_give_a_front_within_the_constraints(tiny, quick, tmp_path):
    """A front that holds points that others beat, or that break a limit."""
    changes = {"objectives": ["sharpe", "turnover"], "constraints": {"drawdown": 0.1}}
    recipe = tiny.recipe(search={**changes, "sampler": "nsga3", "trials": 30})
    found = tune(recipe, where(tmp_path), keep_sealed=True)
    usable = [t for t in found.trials if t.measures["drawdown"] <= 0.1]
    assert 0 < len(usable) < 30
    points = np.array([[-t.values[0], t.values[1]] for t in usable])
    unbeaten = [
        t.number
        for t, p in zip(usable, points, strict=True)
        if not ((points <= p).all(axis=1) & (points < p).any(axis=1)).any()
    ]
    assert [t.number for t in found.front] == unbeaten
    assert found.best.number in unbeaten


def test_the_grid_is_tried_once_whatever_number_is_asked_for(tiny, quick, tmp_path):
    """A grid that goes round again, or leaves a corner out."""
    space = {"strategy.hold_candles": {"int": [1, 3]}, "threshold.mode": {"choice": ["static"]}}
    recipe = tiny.recipe(search={"sampler": "grid", "pruner": "none"}, space=space)
    found = tune(recipe, where(tmp_path), keep_sealed=True)
    assert sorted(t.changes["strategy.hold_candles"] for t in found.trials) == [1, 2, 3]


def test_sealed_days_are_opened_once_and_a_second_time_is_reported(tiny, quick, tmp_path):
    """The last days looked at until they please, and shown as if for the first time."""
    recipe = tiny.recipe()
    first = tune(recipe, where(tmp_path))
    assert first.sealed.opening.earlier == 0
    assert "were opened once" in (tmp_path / "tuning/tuning.html").read_text()
    again = tune(recipe, where(tmp_path))  # nothing is left to do: no second look
    assert again.sealed.opening == first.sealed.opening
    other = tiny.recipe(search={"seed": 9})
    second = tune(other, Where(tmp_path, tmp_path / "other"))
    assert second.sealed.opening.earlier == 1
    assert "opening number 2" in (tmp_path / "other/tuning.html").read_text()
    assert "opening number 2" in (tmp_path / "other/search.json").read_text()
    assert len(OpeningLedger(tmp_path).read()) == 2


def test_nothing_is_opened_when_the_ledger_cannot_be_read(tiny, quick, tmp_path):
    """A damaged line forgotten: the third opening is the first again."""
    from cppncripto_strategy.errors import SourceError

    (tmp_path / "openings.jsonl").write_text("{half a li\n")
    with pytest.raises(SourceError, match="ledger of openings"):
        tune(tiny.recipe(), where(tmp_path))
    assert not (tmp_path / "tuning/sealed.json").exists()


def test_a_study_of_another_search_is_refused(tiny, quick, tmp_path):
    """Trials of two spaces in one study, compared as if they were alike."""
    tune(tiny.recipe(), where(tmp_path), keep_sealed=True)
    more = tiny.recipe(search={"trials": 14})
    assert len(tune(more, where(tmp_path), keep_sealed=True).trials) == 14
    for changes in ({"label": {"horizon": 3}}, {"search": {"windows": 3}}):
        with pytest.raises(RecipeError, match=r"another search.*differ"):
            tune(tiny.recipe(**changes), where(tmp_path), keep_sealed=True)
    fresh = tune(tiny.recipe(search={"windows": 3}), where(tmp_path), fresh=True, keep_sealed=True)
    assert len(fresh.trials) == 12
    assert len(list(tmp_path.glob("tuning-*Z/trials/*.json"))) == 14  # put aside, not deleted


def test_a_space_in_which_everything_fails_ends_soon(tiny, quick, tmp_path, monkeypatch):
    """A thousand candidates that all say the same."""
    monkeypatch.setattr(
        "cppncripto_strategy.tuning.search.evaluate", lambda *a: _refuse(a, tiny.formula)
    )
    with pytest.raises(TrainingError, match=r"first 8 candidates failed.*too few days"):
        tune(tiny.recipe(search={"trials": 50}), where(tmp_path))


def _refuse(arguments, formula):
    return {"refused": "too few days"} if arguments[1] else formula(*arguments)


def test_failed_candidates_are_named_and_the_others_go_on(tiny, quick, tmp_path, monkeypatch):
    """One impossible combination that ends a night's search."""

    def evaluate(plan, changes, window, seed):
        if changes.get("strategy.hold_candles", 0) > 6:
            return {"refused": "too long"}
        return tiny.formula(plan, changes, window, seed)

    monkeypatch.setattr("cppncripto_strategy.tuning.search.evaluate", evaluate)
    found = tune(tiny.recipe(), where(tmp_path), keep_sealed=True)
    failed = [t for t in found.trials if t.state == "failed"]
    assert {t.reason for t in failed} == {"too long"}
    assert len(found.trials) == 12 > len(failed) > 0


def test_cached_networks_cost_what_they_cost_when_they_were_made(
    tiny, quick, tmp_path, monkeypatch
):
    """Computing is cheapest for whoever comes second: the search is drawn to what it has tried."""
    spent = iter([8.0] + [0.0] * 1000)

    def evaluate(plan, changes, window, seed):
        step = tiny.step(changes, window, seed, networks="one", train_s=next(spent))
        return step.to_plain()

    monkeypatch.setattr("cppncripto_strategy.tuning.search.evaluate", evaluate)
    recipe = tiny.recipe(search={"objectives": ["cpu_s"], "trials": 3, "pruner": "none"})
    found = tune(recipe, where(tmp_path), keep_sealed=True)
    assert {t.values[0] for t in found.trials} == {4 * (8.0 + 0.5)}


def test_adopted_recipe_is_the_candidate(tiny, quick, tmp_path):
    """A recipe written with another trial's values, or over somebody's file."""
    from cppncripto_strategy.recipe import load_recipe

    recipe = tiny.recipe()
    found = tune(recipe, where(tmp_path), keep_sealed=True)
    trial = found.trials[5]
    path = adopt(recipe, tmp_path / "tuning", 5, tmp_path / "adopted.toml")
    loaded = load_recipe(path)
    assert loaded.threshold.quantile == trial.changes["threshold.quantile"]
    assert loaded.strategy.hold_candles == trial.changes["strategy.hold_candles"]
    assert (loaded.space, loaded.search) == (None, None)
    same = loaded.model_copy(update={"threshold": recipe.threshold, "strategy": recipe.strategy})
    assert replace_search(recipe).to_plain() == same.to_plain()
    with pytest.raises(RecipeError, match="exists"):
        adopt(recipe, tmp_path / "tuning", 5, path)
    with pytest.raises(RecipeError, match="no finished trial 99: there are 0 to 11"):
        adopt(recipe, tmp_path / "tuning", 99, tmp_path / "x.toml")


def replace_search(recipe):
    return recipe.model_copy(update={"search": None, "space": None})


def test_trial_whose_end_was_written_but_not_said_is_not_run_again(
    tiny, quick, tmp_path, monkeypatch
):
    """A kill between two files: a finished trial that ends in another way the second time."""
    recipe = tiny.recipe()
    tune(recipe, where(tmp_path / "whole"), keep_sealed=True)
    whole = tried(tmp_path / "whole/tuning")
    pruned = next(number for number, state, _ in whole if state == "pruned")
    settle, add = TrialStudy.settle, TrialStudy.add

    def killed(study, live):
        if live.number == pruned:
            raise KeyboardInterrupt
        settle(study, live)

    def not_again(study, live, result):
        assert live.number != pruned
        return add(study, live, result)

    home = where(tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(TrialStudy, "settle", killed)
        assert len(tune(recipe, home, keep_sealed=True).trials) == pruned
    monkeypatch.setattr(TrialStudy, "add", not_again)
    found = tune(recipe, home, keep_sealed=True)
    assert tried(tmp_path / "cut/tuning") == whole
    assert found.trials[pruned].state == "pruned"
    assert len(TrialLedger(home.home).distinct()) == len(whole)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_trial_lost_between_two_keys_tries_what_it_would_have(
    tiny, quick, tmp_path, monkeypatch, sampler
):
    """A kill in the middle of proposing: the second key gets the first one's random number."""
    from optuna.trial import Trial

    recipe = tiny.recipe(search={"trials": 4, "sampler": sampler})
    tune(recipe, where(tmp_path / "whole"), keep_sealed=True)
    suggest = Trial.suggest_int

    def killed(trial, *arguments, **more):
        if trial.number == 2:
            raise KeyboardInterrupt
        return suggest(trial, *arguments, **more)

    home = where(tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(Trial, "suggest_int", killed)
        assert len(tune(recipe, home, keep_sealed=True).trials) == 2
    tune(recipe, home, keep_sealed=True)
    assert tried(tmp_path / "cut/tuning") == tried(tmp_path / "whole/tuning")


def test_a_trial_lost_after_two_steps_is_judged_again_step_by_step(
    tiny, quick, tmp_path, monkeypatch
):
    """A trial stopped after its first step for what it had said of its second before."""
    recipe = tiny.recipe(search={"trials": 20, "pruner": "halving"})
    tune(recipe, where(tmp_path / "whole"), keep_sealed=True)
    whole = tried(tmp_path / "whole/tuning")
    steps = {t.number: len(t.steps) for t in _done(recipe, tmp_path / "whole")}
    longer = next(n for n, state, _ in whole if state == "pruned" and steps[n] > 1)
    end = TrialStudy._end

    def killed(study, live, *how):
        if live.number == longer:
            raise KeyboardInterrupt
        end(study, live, *how)

    home = where(tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(TrialStudy, "_end", killed)
        tune(recipe, home, keep_sealed=True)
    assert {t.number: len(t.steps) for t in _done(recipe, tmp_path / "cut")} == steps
    assert tried(tmp_path / "cut/tuning") == whole


def _done(recipe, home):
    """The trials of a search, resumed where it was stopped."""
    return tune(recipe, where(home), keep_sealed=True).trials


def test_a_file_beside_the_recipe_replaces_its_space(tiny, tmp_path):
    """A space that is read and then forgotten."""
    file = tmp_path / "space.toml"
    file.write_text('[search]\ntrials = 7\n[space]\n"micro.channels" = { int = [4, 8] }\n')
    recipe = with_search(tiny.recipe(), file, {"sampler": "random", "pruner": None})
    assert list(recipe.space) == ["micro.channels"]
    assert (recipe.search.trials, recipe.search.sampler, recipe.search.windows) == (7, "random", 4)
    file.write_text("[serach]\n")
    with pytest.raises(RecipeError, match="did you mean 'search'"):
        with_search(tiny.recipe(), file, {})
    with pytest.raises(RecipeError, match=r"sampler.*'tpe'"):
        with_search(tiny.recipe(), None, {"sampler": "tpee"})


# A search in a process of its own, whose steps are formulas.
SCRIPT = """
import sys, time, pathlib
sys.path.insert(0, sys.argv[2])
import conftest
import cppncripto_strategy.tuning.search as search
def slow(plan, changes, window, seed):
    time.sleep(0.01)
    return conftest.formula(plan, changes, window, seed)
search.evaluate = slow
home = pathlib.Path(sys.argv[1])
recipe = conftest.recipe_of(search={"trials": int(sys.argv[3])})
search.tune(recipe, search.Where(home, home / "tuning"), keep_sealed=True)
"""


def start(home, trials):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(home), str(HERE), str(trials)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_kill_9_loses_no_finished_trial_and_two_processes_share_a_study(tiny, quick, tmp_path):
    """A trial that was finished and is gone, one that ran twice, or two that are one."""
    trials = 24
    whole = tune(
        tiny.recipe(search={"trials": trials}), where(tmp_path / "whole"), keep_sealed=True
    )
    home = tmp_path / "killed"
    finished: dict[str, str] = {}
    for at_least in (4, 9):
        process = start(home, trials)
        _wait(lambda least=at_least: len(tried(home / "tuning")) >= least, process)
        process.kill()
        process.wait()
        now = {str(n): s for n, s, _ in tried(home / "tuning")}
        assert finished.items() <= now.items()
        finished = now
    both = [start(home, trials), start(home, trials)]
    for process in both:
        assert process.wait(timeout=120) == 0, process.stderr.read().decode()
    kept = tried(home / "tuning")
    assert [number for number, *_ in kept] == list(range(trials))
    assert finished.items() <= {str(n): s for n, s, _ in kept}.items()
    assert len(whole.trials) == trials
    first = [entry for entry in kept if entry[0] < 9]
    assert first == tried(tmp_path / "whole/tuning")[:9]  # one worker until then
    assert len(TrialLedger(home).distinct()) == trials


def _wait(condition, process, limit_s=120.0):
    until = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < until
        time.sleep(0.02)
