"""All arms at once: what is said where one wins, where none does, and where none compares."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from cppncripto_strategy.evaluation.undefined import Refusal
from cppncripto_strategy.experiments.family import arm_family

DAYS = 80


def curves(means, seeds=2, shared=True, days=DAYS):
    """Accounts of arms with these daily means, in deviations; on shared days every seed has its own
    noise on the same market."""
    found = {}
    for arm, (name, mean) in enumerate(means.items()):
        rows = []
        for seed in range(seeds):
            rng = np.random.default_rng([3, arm, seed])
            first = "2024-01-01" if shared else f"20{24 + seed}-01-01"
            index = pd.date_range(first, periods=days)
            rows.append(pd.Series(0.01 * (mean + rng.normal(size=days)), index=index))
        found[name] = rows
    return found


def test_planted_winner_is_named_against_benchmark_and_cash():
    """Dies here: an arm that earns, and a page that does not say so."""
    family = arm_family(curves({"good": 0.8, "plain": 0.0, "idle": 0.0}), "plain", shared=True)
    assert family.against_benchmark.superior == ("good",)
    assert family.against_cash.superior == ("good",)
    assert family.best.included == ("good",)
    first, second, third = family.words()
    assert first.startswith("Better than plain, with all arms counted: good (SPA p = ")
    assert second.startswith("Better than cash, with all arms counted: good")
    assert third == "The best of these arms is good, with 95 % confidence."


def test_arm_that_only_loses_less_is_said_to():
    """Dies here: fees saved by trading less, praised as an edge."""
    family = arm_family(curves({"less": -0.3, "more": -1.2}), "more", shared=True)
    assert family.against_benchmark.superior == ("less",)
    assert not family.against_cash.found
    said = " ".join(family.words())
    assert "only loses less" in said
    assert "No arm is shown to do better than cash (SPA p = 1," in said


def test_equal_arms_may_all_be_best():
    """Dies here: the luckiest of equal arms called the best one."""
    family = arm_family(curves({"a": 0.0, "b": 0.0, "c": 0.0}), "c", shared=True)
    assert "No arm is shown to do better than c" in family.words()[0]
    assert "Any of the 3 arms may be the best one" in family.words()[-1]


def test_seeds_are_averaged_on_shared_days_and_laid_in_line_on_other_markets():
    """Dies here: markets of other seeds averaged by date, though their days have nothing shared."""
    same = arm_family(curves({"a": 0.5, "b": 0.0}, seeds=3), "b", shared=True)
    apart = arm_family(curves({"a": 0.5, "b": 0.0}, seeds=3, shared=False), "b", shared=False)
    assert (same.against_cash.days, apart.against_cash.days) == (DAYS, 3 * DAYS)


def test_too_few_days_are_said_and_kept_in_json():
    """Dies here: an experiment of two weeks that crashes at its last step."""
    family = arm_family(curves({"a": 0.0, "b": 0.0}, days=12), "b", shared=True)
    assert isinstance(family.best, Refusal)
    document = json.loads(json.dumps(family.to_plain(), allow_nan=False))
    assert "12 common days are too few" in document["against_cash"]["reason"]
    assert "12 common days are too few" in document["words"][0]
