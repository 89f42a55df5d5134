"""The trial ledger under crashes and rivals, and the Sharpe discount it feeds."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from cppncripto_strategy.evaluation.returns import daily_sharpe
from cppncripto_strategy.evaluation.statistics import deflated_sharpe, probabilistic_sharpe
from cppncripto_strategy.evaluation.trials import (
    Trial,
    TrialLedger,
    discounted_sharpe,
    fingerprint,
)


def trial(mark, sharpe=0.1):
    return Trial(f"mark{mark}", "run", "demo", 0, sharpe, 100, f"runs/demo/{mark}")


def append_many(folder, worker):
    ledger = TrialLedger(folder)
    for k in range(40):
        ledger.append(trial(f"{worker}-{k}"))


def test_ledger_returns_what_was_appended(tmp_path):
    """Dies here: a field lost on the way to disk."""
    ledger = TrialLedger(tmp_path / "new" / "folder")
    entries = [trial(1), trial(2, None)]
    assert ledger.read() == []
    for entry in entries:
        ledger.append(entry)
    assert ledger.read() == entries


def test_several_processes_appending_lose_nothing(tmp_path):
    """Dies here: two writers whose lines interleave or overwrite each other."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_many, args=(tmp_path, k)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    marks = [entry.fingerprint for entry in TrialLedger(tmp_path).read()]
    assert sorted(marks) == sorted(f"mark{w}-{k}" for w in range(4) for k in range(40))


def test_line_torn_by_a_crash_costs_only_itself(tmp_path):
    """Dies here: the entry after a power loss glued to the torn line and lost with it."""
    ledger = TrialLedger(tmp_path)
    ledger.append(trial(1))
    with open(ledger.path, "ab") as stream:
        stream.write(b'{"fingerprint": "mark2", "ki')
    ledger.append(trial(3))
    assert [entry.fingerprint for entry in ledger.read()] == ["mark1", "mark3"]


def test_same_trial_run_again_counts_once(tmp_path):
    """Dies here: a rerun that inflates the trial count and deflates an honest result."""
    ledger = TrialLedger(tmp_path)
    for entry in (trial(1, 0.1), trial(2, 0.3), trial(1, 0.2)):
        ledger.append(entry)
    assert [(t.fingerprint, t.daily_sharpe) for t in ledger.distinct()] == [
        ("mark1", 0.2),
        ("mark2", 0.3),
    ]


def test_fingerprint_changes_with_settings_seed_and_data_only():
    """Dies here: a hash of key order, or one that overlooks the seed."""
    base = fingerprint({"a": 1, "b": {"c": 2.0}}, 7, "data")
    assert base == fingerprint({"b": {"c": 2.0}, "a": 1}, 7, "data")
    others = [
        fingerprint({"a": 1, "b": {"c": 2.5}}, 7, "data"),
        fingerprint({"a": 1, "b": {"c": 2.0}}, 8, "data"),
        fingerprint({"a": 1, "b": {"c": 2.0}}, 7, "other"),
    ]
    assert len({base, *others}) == 4


def test_trial_run_again_is_not_counted_twice(tmp_path):
    """Dies here: luck discounted more with every repetition of one and the same run."""
    ledger = TrialLedger(tmp_path)
    returns = np.random.default_rng(0).normal(0.001, 0.01, 120)

    def judged(horizon, folder, daily):
        mark = fingerprint({"horizon": horizon}, 1, "data")
        ledger.append(Trial(mark, "run", "demo", 1, daily_sharpe(daily), len(daily), folder))
        return discounted_sharpe(daily, ledger)["trials"]

    assert judged(6, "runs/demo/1", returns) == 1
    assert judged(6, "runs/demo/2", returns) == 1
    assert judged(12, "runs/demo/3", -returns) == 2
    assert ledger.distinct()[0].folder == "runs/demo/2"


def test_discount_uses_the_ledgers_count_and_spread(tmp_path):
    """Dies here: a deflation with the wrong number of trials or the spread of annual ratios."""
    ledger = TrialLedger(tmp_path)
    returns = np.random.default_rng(4).normal(0.002, 0.01, 200)
    ledger.append(trial("own", daily_sharpe(returns)))
    alone = discounted_sharpe(returns, ledger)
    assert alone["deflated_sharpe"] == alone["probabilistic_sharpe"]
    others = [-0.05, 0.0, 0.08]
    for k, value in enumerate(others):
        ledger.append(trial(k, value))
    found = discounted_sharpe(returns, ledger)
    variance = np.var([returns.mean() / returns.std(), *others], ddof=1)
    assert found["trials"] == 4
    assert found["probabilistic_sharpe"] == pytest.approx(probabilistic_sharpe(returns))
    assert found["deflated_sharpe"] == pytest.approx(deflated_sharpe(returns, 4, variance))
    assert found["deflated_sharpe"] < found["probabilistic_sharpe"]
