"""The trial ledger under crashes and rivals, and the Sharpe discount it feeds."""

from __future__ import annotations

import json
import math
import multiprocessing

import numpy as np
import pandas as pd
import pytest

from cppncripto_strategy.evaluation.many_trials import correlated_count, minimum_backtest_days
from cppncripto_strategy.evaluation.returns import daily_sharpe, sharpe_ratio
from cppncripto_strategy.evaluation.statistics import deflated_sharpe, probabilistic_sharpe
from cppncripto_strategy.evaluation.trials import (
    RETURN_DIGITS,
    Trial,
    TrialLedger,
    discounted_sharpe,
    fingerprint,
    trial_returns,
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


def days(values, first="2024-01-05"):
    return pd.Series(np.asarray(values, float), index=pd.date_range(first, periods=len(values)))


def test_daily_returns_come_back_with_their_days(tmp_path):
    """Dies here: returns laid on the wrong days, and two trials compared on different ones."""
    ledger = TrialLedger(tmp_path)
    rng = np.random.default_rng(1)
    early, late = rng.normal(0, 0.01, 10), rng.normal(0, 0.01, 8)
    ledger.append(Trial.of("a", "run", "x", 1, days(early), "1"))
    ledger.append(trial("b"))  # as an entry without returns
    ledger.append(Trial.of("c", "run", "x", 1, days(late, "2024-01-12"), "2"))
    table = trial_returns(ledger.distinct())
    assert table.shape == (2, 15)
    np.testing.assert_allclose(table[0, :10], early, atol=0.5 * 10**-RETURN_DIGITS)
    np.testing.assert_allclose(table[1, 7:], late, atol=0.5 * 10**-RETURN_DIGITS)
    assert np.isnan(table[0, 10:]).all()
    assert np.isnan(table[1, :7]).all()
    assert ledger.read()[0].first_day == (pd.Timestamp("2024-01-05") - pd.Timestamp(0)).days
    assert trial_returns([]).shape == (0, 0)


def test_account_that_lost_everything_is_a_trial_without_returns(tmp_path):
    """Dies here: a NaN in the ledger, which JSON does not have, and a trial lost with it."""
    ledger = TrialLedger(tmp_path)
    ledger.append(Trial.of("a", "run", "x", 1, days([0.1, -1.0, math.nan]), "1"))
    [entry] = ledger.read()
    assert (entry.days, entry.daily_sharpe, entry.returns) == (3, None, ())


def test_ledger_of_an_older_version_is_read_and_counted(tmp_path):
    """Dies here: every trial of last month skipped as unreadable, and luck counted from one."""
    ledger = TrialLedger(tmp_path)
    ledger.append(trial(1))
    entry = json.loads(ledger.path.read_text())
    for key in ("first_day", "returns"):
        del entry[key]
    ledger.path.write_text(json.dumps(entry) + "\n")
    [read] = ledger.read()
    assert (read.fingerprint, read.daily_sharpe, read.returns) == ("mark1", 0.1, ())
    assert discounted_sharpe([0.1, -0.2, 0.3, 0.0], ledger)["trials"] == 1


def test_damaged_returns_cost_their_own_trial(tmp_path, caplog):
    """Dies here: a day a billion years away, and a table that takes all memory."""
    ledger = TrialLedger(tmp_path)
    ledger.append(Trial.of("good", "run", "x", 1, days([0.1, 0.2]), "1"))
    line = json.loads(ledger.path.read_text())
    changes = (
        {"returns": ["0.1"]},
        {"returns": None},
        {"returns": [float("nan")]},
        {"returns": [10**400]},
        {"first_day": 10**15},
        {"first_day": -1},
        {"first_day": 0.5},
    )
    with ledger.path.open("a") as stream:
        for change in changes:
            stream.write(json.dumps({**line, **change}) + "\n")
    assert [entry.fingerprint for entry in ledger.read()] == ["good"]
    assert caplog.text.count("unreadable line") == len(changes)


def test_independent_trials_are_counted_beside_all_of_them(tmp_path):
    """Dies here: copies of one recipe counted as so many tries, or as one."""
    ledger = TrialLedger(tmp_path)
    rng = np.random.default_rng(2)
    common = rng.normal(0.001, 0.01, 200)
    rows = [common + rng.normal(0, 0.003, 200) for _ in range(12)]
    for k, row in enumerate(rows):
        ledger.append(Trial.of(f"t{k}", "run", "x", k, days(row), str(k)))
    found = discounted_sharpe(rows[0], ledger)
    assert (found["trials"], found["days"]) == (12, 200)
    correlation = np.corrcoef(rows)[np.triu_indices(12, 1)].mean()
    assert found["mean_correlation"] == pytest.approx(correlation, abs=1e-3)
    assert found["effective_by_correlation"] == correlated_count(12, correlation) < 5
    assert found["effective_trials"] == max(
        found["effective_by_order"], found["effective_by_correlation"]
    )
    variance = np.var([daily_sharpe(row) for row in rows], ddof=1)
    effective = deflated_sharpe(rows[0], found["effective_trials"], variance)
    assert found["deflated_sharpe_effective"] == pytest.approx(effective)
    assert found["deflated_sharpe_effective"] >= found["deflated_sharpe"]
    minimum = minimum_backtest_days(12, sharpe_ratio(rows[0]))
    assert found["minimum_backtest_days"] == pytest.approx(minimum)
