"""The verdict on a search: silent on null markets, awake to a real edge, clear about reasons."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from cppncripto_strategy.errors import AccountError
from cppncripto_strategy.evaluation.search_worth import SearchReturns, search_worth
from cppncripto_strategy.evaluation.statistics import deflated_sharpe
from cppncripto_strategy.evaluation.undefined import Refusal

INNER, SEALED, TRIALS = 200, 120, 21


def searched(seed, edge=0.0, untuned_edge=0.0, trials=TRIALS, inner=INNER, sealed=SEALED):
    """A search whose trials share most of their luck; the last third of them earns `edge`.

    `edge` is the daily mean in deviations: 0.2 is an annual Sharpe ratio of about 4.
    """
    rng = np.random.default_rng([13, seed])
    market = rng.normal(0, 0.7, inner + sealed)
    rows = 0.01 * (market + rng.normal(0, 0.7, (trials, inner + sealed)))
    rows[-(trials // 3) :] += 0.01 * edge
    untuned = 0.01 * (market + rng.normal(0, 0.7, inner + sealed) + untuned_edge)
    scores = rows[:, :inner].mean(axis=1) / rows[:, :inner].std(axis=1)
    chosen = int(scores.argmax())
    return SearchReturns(
        rows[:, :inner], chosen, untuned[:inner], rows[chosen, inner:], untuned[inner:]
    )


def test_null_markets_have_nothing_to_find():
    """Dies here: the best of many trials of luck, sold as a find. One of 20 seeds may."""
    verdicts = [search_worth(searched(seed), resamples=100) for seed in range(20)]
    assert sum(worth.found for worth in verdicts) <= 1
    assert sum(worth.improved for worth in verdicts) <= 1
    assert sum(worth.headline.startswith("Nothing found") for worth in verdicts) >= 19


def test_planted_edge_is_found_and_credited_to_the_search():
    """Dies here: a verdict so careful that it never says yes."""
    verdicts = [search_worth(searched(seed, 0.45), resamples=100) for seed in range(10)]
    assert sum(worth.found and worth.improved for worth in verdicts) >= 9
    worth = verdicts[0]
    assert worth.headline.startswith("Found: the best of 21 trials earns more than luck")
    assert worth.against_untuned.superior
    assert worth.paths.losing == 0
    assert worth.overfitting < 0.5


def test_edge_that_the_untuned_recipe_had_is_not_the_searchs():
    """Dies here: a search praised for what was there before it."""
    made = searched(3, 0.6, untuned_edge=0.6)
    worth = search_worth(made, resamples=100)
    assert worth.found
    assert not worth.improved
    assert worth.headline.startswith("An edge, but 21 trials are not shown to have improved")


def test_edge_on_inner_days_alone_is_nothing():
    """Dies here: a verdict that never looks at the sealed days."""
    made = searched(1, 0.6)
    dead = np.random.default_rng(0).normal(0, 0.01, SEALED)
    worth = search_worth(dataclasses.replace(made, sealed=dead - dead.mean()), resamples=100)
    assert [holds for _, holds in worth.proofs][:2] == [True, False]
    assert not worth.found
    assert worth.shrinkage == pytest.approx(worth.inner.value, abs=1e-9)


def test_each_further_opening_of_the_sealed_days_asks_for_more():
    """Dies here: the sealed days opened until they agree."""
    made = searched(2, 0.45)
    noise = np.random.default_rng(5).normal(0, 1.0, SEALED)
    sealed = (noise - noise.mean()) / noise.std() + 2.0 / np.sqrt(SEALED)  # t = 2: sure to 97.7 %
    once = search_worth(dataclasses.replace(made, sealed=sealed), resamples=50)
    thrice = search_worth(dataclasses.replace(made, sealed=sealed, openings=3), resamples=50)
    assert (once.found, thrice.found) == (True, False)
    assert "98.3 %" in thrice.proofs[1][0]
    assert "opened 3 times" in thrice.detail[-1]


def test_pruned_trials_are_counted_and_not_compared():
    """Dies here: trials that were cut short left out of the count that discounts the winner."""
    made = searched(4, 0.3)
    inner = made.inner.copy()
    pruned = [k for k in range(TRIALS) if k != made.chosen][:12]
    inner[pruned, INNER // 3 :] = np.nan
    worth = search_worth(dataclasses.replace(made, inner=inner, front=(pruned[0],)), resamples=50)
    assert (worth.count.raw, worth.complete) == (TRIALS, TRIALS - 12)
    sharpes = [row[np.isfinite(row)].mean() / row[np.isfinite(row)].std() for row in inner]
    expected = deflated_sharpe(inner[made.chosen], TRIALS, np.var(sharpes, ddof=1))
    assert worth.chosen.deflated == pytest.approx(expected)
    assert worth.front[0].trial == pruned[0]
    assert f"trial {pruned[0]}" not in worth.against_untuned.compared


def test_too_few_trials_and_days_find_nothing_and_say_why():
    """Dies here: a search of one trial and a week praised, or a crash in place of a reason."""
    made = searched(5, 1.0, trials=3, inner=25, sealed=20)
    alone = SearchReturns(
        made.inner[[made.chosen]], 0, made.untuned_inner, made.sealed, made.untuned_sealed
    )
    worth = search_worth(alone, resamples=20)
    assert not worth.found
    assert not worth.improved
    assert isinstance(worth.against_untuned, Refusal)
    assert isinstance(worth.paths, Refusal)
    said = " ".join(worth.detail)
    assert "25 common days are too few" in said
    assert "choosing takes two" in said
    assert worth.overfitting is None


def test_same_seed_gives_the_same_verdict_and_it_is_json():
    """Dies here: a verdict that changes when it is read again, or NaN in a JSON document."""
    made = searched(6, 0.2)
    first, second = (search_worth(made, seed=3, resamples=50) for _ in range(2))
    assert first == second
    document = json.loads(json.dumps(first.to_plain(), allow_nan=False))
    assert document["headline"] == first.headline
    assert document["count"]["effective"] == first.count.effective


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inner": np.zeros(5)}, "must be"),
        ({"untuned_inner": np.zeros(3)}, "inner returns are of shape"),
        ({"untuned_sealed": np.zeros(3)}, "sealed returns are of shape"),
        ({"chosen": TRIALS}, f"no trial {TRIALS}"),
        ({"front": (-1,)}, "no trial -1"),
        ({"openings": 0}, "openings is 0"),
        ({"inner": np.full((TRIALS, INNER), np.nan)}, "was not judged on all inner days"),
    ],
)
def test_returns_that_do_not_fit_are_refused_by_name(change, said):
    """Dies here: the wrong row judged, or two recipes compared on different days."""
    with pytest.raises(AccountError, match=said):
        dataclasses.replace(searched(0), **change)
