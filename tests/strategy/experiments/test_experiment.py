"""The experiment engine on made-up cells: resuming, sharing, counting, and what the page says."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.errors import SourceError
from cppncripto_strategy.evaluation.account import Account, buy_and_hold
from cppncripto_strategy.evaluation.metrics import run_metrics
from cppncripto_strategy.evaluation.signals import Yardstick, forward_returns
from cppncripto_strategy.evaluation.trials import TrialLedger
from cppncripto_strategy.experiments import beside
from cppncripto_strategy.experiments.beside import run_cells_beside
from cppncripto_strategy.experiments.cells import Arm, CellOutcome
from cppncripto_strategy.experiments.experiment import Experiment, run_experiment
from cppncripto_strategy.experiments.verdicts import Verdict, judge_macro
from cppncripto_strategy.locks import FileLock
from cppncripto_strategy.results import empty_table, to_plain
from cppncripto_strategy.spreading.spread import Spread

HOUR = 3_600_000
START = 1_704_067_200_000
HORIZON = 2
ABOUT = {"horizon": HORIZON, "label_threshold_bps": 22.0, "seeds": 2}

MACRO = Experiment(
    name="e1",
    title="Macro",
    question="Does it help?",
    criterion="At least 5 points.",
    arms=(Arm("macro", {"skill": 0.75}), Arm("none", {"skill": 0.5})),
    pairs=(("macro", "none"),),
    judge=lambda found, a, b: judge_macro(found),
)


def made_outcome(skill, seed, days=30, setups=True):
    """A backtest whose score is right about the next two hours with probability `skill`."""
    world, rng = np.random.default_rng(seed), np.random.default_rng([seed, round(100 * skill)])
    count = 24 * days
    stamps = START + HOUR * np.arange(count, dtype=np.int64)
    close = 100 * np.exp(np.cumsum(world.normal(0, 0.01, count)))
    signals = pd.DataFrame({"symbol": "BTCUSDT", "close_time_ms": stamps, "close": close})
    forward = forward_returns(signals, HORIZON, HOUR)
    right = np.where(rng.random(count) < skill, 1, -1)
    score = np.sign(np.nan_to_num(forward)) * right * 0.5
    signals = signals.assign(
        score=score,
        p_buy=0.5,
        p_sell=0.5,
        score_zero=0.0,
        upper=0.4,
        lower=-0.4,
        signal=np.sign(score).astype(np.int64),
        drift=1.0,
        age_ms=0,
    )
    equity = pd.DataFrame(
        {
            "close_time_ms": stamps,
            "equity": 100 * np.exp(np.cumsum(rng.normal((skill - 0.5) / 500, 0.002, count))),
            "cash": 0.0,
            "exposure": 1.0,
        }
    )
    fills, trades = empty_table("fills"), empty_table("trades")
    hold = buy_and_hold(signals, 100.0)
    account = Account(equity, fills, trades)
    found = run_metrics(signals, account, hold, Yardstick(HORIZON, HOUR, resamples=0))
    return CellOutcome(
        signals,
        equity,
        to_plain(found),
        (1.0, 2.0),
        {"BTCUSDT": stamps[::3]} if setups else None,
    )


class Runner:
    """Runs made-up cells, counts them, and can be killed before one of them."""

    def __init__(self, killed_at=None, **how):
        self.ran, self.killed_at, self.how = [], killed_at, how

    def __call__(self, arm, seed, progress):
        if len(self.ran) == self.killed_at:
            raise KeyboardInterrupt
        self.ran.append((arm.name, seed))
        progress(1, 1, "done")
        return made_outcome(arm.changes["skill"], seed, **self.how)


def identity(arm):
    return json.dumps(dict(arm.changes))


def run(out, runner, seeds=(0, 1), experiment=MACRO):
    return run_experiment(experiment, seeds, out, runner, identity, ABOUT, resamples=100)


def test_planted_gain_is_found_and_reported(tmp_path):
    """Dies here: a page or table that does not say what the cells showed."""
    findings = run(tmp_path, Runner())
    assert findings.verdicts[0].met
    assert findings.comparisons[0].where == "setups"
    page = (tmp_path / "e1.html").read_text("utf-8")
    assert "Macro helps, as much as hoped" in page
    assert "http://" not in page[page.index("<body>") :]
    cells = pd.read_parquet(tmp_path / "results.parquet")
    assert list(zip(cells["arm"], cells["seed"], strict=True)) == [
        ("macro", 0),
        ("macro", 1),
        ("none", 0),
        ("none", 1),
    ]
    hits = cells.groupby("arm")["hit_setups"].mean()
    assert hits["macro"] == pytest.approx(0.75, abs=0.06)
    assert hits["none"] == pytest.approx(0.50, abs=0.06)
    assert (cells["validation_loss"] == 1.5).all()
    answer = json.loads((tmp_path / "e1.json").read_text())
    assert answer["family"]["benchmark"] == "none"
    assert answer["family"]["words"][0] in page
    assert answer["luck"]["macro"]["effective_trials"] <= 4
    assert answer["found_in_seeds"] == [{"pair": "macro - none", "found": 2, "of": 2}]


@pytest.mark.parametrize("wanted", [None, 5.0])
def test_only_a_criterion_that_asks_for_an_amount_draws_its_line(tmp_path, wanted):
    """Dies here: E1's five points drawn as everybody's."""
    run(tmp_path, Runner(), experiment=dataclasses.replace(MACRO, wanted_points=wanted))
    page = (tmp_path / "e1.html").read_text("utf-8")
    assert ("the 5 asked for" in page) == (wanted is not None)


def test_seed_that_meets_the_criterion_has_claimed_something(tmp_path):
    """Dies here: thresholds, whose hits never differ, cleared of every false claim."""
    met = itertools.cycle([False, True, False])  # the experiment itself, then seed by seed
    same = (Arm("macro", {"skill": 0.6}), Arm("none", {"skill": 0.6}))
    judged = dataclasses.replace(
        MACRO, arms=same, judge=lambda found, a, b: Verdict(next(met), f"{len(a)} {len(b)}", ())
    )
    findings = run(tmp_path, Runner(), experiment=judged)
    assert findings.seeds[0]["hit_difference"].tolist() == [0.0, 0.0]
    assert findings.seeds[0]["found"].tolist() == [True, False]
    assert findings.verdicts[0].headline == "2 2"


def test_killed_experiment_goes_on_where_it_was(tmp_path):
    """Dies here: a crash after hours that costs the hours."""
    first = Runner(killed_at=3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first)
    second = Runner()
    resumed = run(tmp_path, second)
    assert first.ran + second.ran == [("macro", 0), ("macro", 1), ("none", 0), ("none", 1)]
    fresh = run(tmp_path / "fresh", Runner())
    pd.testing.assert_frame_equal(
        resumed.cells.drop(columns="seconds"), fresh.cells.drop(columns="seconds")
    )
    assert resumed.comparisons == fresh.comparisons


def test_cell_without_its_last_file_is_run_again(tmp_path):
    """Dies here: tables of a cell killed while writing, read as a finished cell."""
    run(tmp_path, Runner())
    next((tmp_path / "cells").glob("*/cell.json")).unlink()
    again = Runner()
    run(tmp_path, again)
    assert len(again.ran) == 1


def test_changed_setting_runs_its_arm_again(tmp_path):
    """Dies here: a stale cell served after the recipe changed."""
    run(tmp_path, Runner())
    changed = Experiment(**{**vars(MACRO), "arms": (Arm("macro", {"skill": 0.6}), MACRO.arms[1])})
    again = Runner()
    run(tmp_path, again, experiment=changed)
    assert again.ran == [("macro", 0), ("macro", 1)]


def test_experiments_share_equal_arms_and_keep_each_others_rows(tmp_path):
    """Dies here: the base arm trained once for every experiment, or rows overwritten."""
    run(tmp_path, Runner())
    other = Experiment(
        **{
            **vars(MACRO),
            "name": "e4",
            "arms": (Arm("adaptive", {"skill": 0.75}), Arm("static", {"skill": 0.55})),
            "pairs": (("adaptive", "static"),),
        }
    )
    again = Runner()
    run(tmp_path, again, experiment=other)
    assert again.ran == [("static", 0), ("static", 1)]
    cells = pd.read_parquet(tmp_path / "results.parquet")
    assert cells["experiment"].tolist() == ["e1"] * 4 + ["e4"] * 4
    assert set(cells["arm"]) == {"macro", "none", "adaptive", "static"}
    assert len(TrialLedger(tmp_path).distinct()) == 6


def test_every_cell_is_counted_once_as_a_trial(tmp_path):
    """Dies here: a resumed experiment that counts its trials twice, or not at all."""
    for _ in range(2):
        findings = run(tmp_path, Runner())
    ledger = TrialLedger(tmp_path)
    assert len(ledger.read()) == len(ledger.distinct()) == 4
    assert findings.luck["macro"]["trials"] == 4
    assert 0 <= findings.luck["pbo"] <= 1


def test_without_planted_setups_signals_are_compared(tmp_path):
    """Dies here: an experiment on real candles that compares no candle at all."""
    findings = run(tmp_path, Runner(setups=False))
    assert findings.comparisons[0].where == "signals"
    assert findings.comparisons[0].candles == 2 * (30 * 24 - HORIZON)
    assert findings.cells["hit_setups"].isna().all()


def test_second_run_of_an_experiment_is_refused_before_it_runs_anything(tmp_path):
    """Dies here: two runs that replace each other's page, and count trials twice."""
    runner = Runner()
    path = tmp_path / ".e1.lock"
    with FileLock.take(path, "e1", SourceError, ""), pytest.raises(SourceError) as refused:
        run(tmp_path, runner)
    assert f"the experiment e1 in {tmp_path} is in use by this process" in str(refused.value)
    assert runner.ran == []
    run(tmp_path, runner)
    assert not list(tmp_path.rglob("*.lock"))


def test_cell_that_two_experiments_share_is_run_once_at_a_time(tmp_path):
    """Dies here: the same hours spent twice, and one table of two lost."""
    waits = threading.Event()

    class Slow(Runner):
        def __call__(self, arm, seed, progress):
            assert waits.wait(30)
            return super().__call__(arm, seed, progress)

    runner, others = Slow(), dataclasses.replace(MACRO, name="e2")

    def heard(done, total, text):
        if "waiting for" in text:
            waits.set()

    def go(experiment):
        return run_experiment(
            experiment, (0, 1), tmp_path, runner, identity, ABOUT, (), heard, resamples=100
        )

    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(go, MACRO), pool.submit(go, others)]:
            job.result(60)
    assert sorted(runner.ran) == [("macro", 0), ("macro", 1), ("none", 0), ("none", 1)]
    cells = pd.read_parquet(tmp_path / "results.parquet")
    assert cells["experiment"].value_counts().to_dict() == {"e1": 4, "e2": 4}


class Recipe:
    """What a cell's process is given to begin with."""

    def plugin_digests(self):
        return {}


class WithMarket(Runner):
    """A runner of made-up cells that knows how large its market is."""

    recipe, cache = Recipe(), Path("bundles")
    identity = staticmethod(identity)

    def market(self):
        return SimpleNamespace(every={"X": range(100)})


@pytest.fixture
def asked(monkeypatch):
    """The jobs that were asked for, done in this process."""
    jobs = []

    def run_jobs(some, spread, progress, bytes_each, take):
        if spread.workers < 2 or len(some) < 2:
            return False
        jobs.extend(some)
        for job in some:
            take(job.target(*job.arguments, lambda done, total, text: None))
        return True

    monkeypatch.setattr(beside, "run_jobs", run_jobs)
    monkeypatch.setattr(beside, "RecipeRunner", lambda recipe, cache: WithMarket())
    return jobs


@pytest.mark.parametrize(
    ("jobs", "names"),
    [
        (2, ["e1 seed 0", "e1 seed 1"]),
        (8, ["e1 macro, seed 0", "e1 none, seed 0", "e1 macro, seed 1", "e1 none, seed 1"]),
    ],
)
def test_experiment_finds_every_cell_that_ran_beside_it(tmp_path, asked, jobs, names):
    """A key that differs, and every cell run twice; cores that stay idle beside few seeds."""
    run_cells_beside(
        WithMarket(), MACRO, (0, 1), tmp_path / "a", Spread(workers=jobs), lambda *_: None
    )
    assert [job.name for job in asked] == names
    here = Runner()
    findings = run(tmp_path / "a", here)
    assert here.ran == []
    alone = run(tmp_path / "b", Runner())
    seconds = ["seconds"]
    assert findings.cells.drop(columns=seconds).equals(alone.cells.drop(columns=seconds))
    assert findings.comparisons == alone.comparisons


def test_finished_cells_are_not_asked_for_again(tmp_path, asked):
    """A resumed experiment that starts processes for what is there."""
    run(tmp_path, Runner(), seeds=(0,))
    run_cells_beside(WithMarket(), MACRO, (0, 1, 2), tmp_path, Spread(workers=2), lambda *_: None)
    assert [job.name for job in asked] == ["e1 seed 1", "e1 seed 2"]
    asked.clear()
    run_cells_beside(WithMarket(), MACRO, (0, 1, 2), tmp_path, Spread(workers=2), lambda *_: None)
    run_cells_beside(WithMarket(), MACRO, (7, 8), tmp_path, Spread(workers=1), lambda *_: None)
    assert asked == []
