"""How often the statistics of many trials are wrong where nothing can be found, and what they find.

No network is trained: accounts are drawn. Each line of JSON is one measurement.

- deflation: the best of trials without an edge that are correlated by rho, 250 days. In how many
  runs is its Sharpe ratio called more than luck (95 %): undiscounted, with all trials counted, with
  the effective number, and with the number by correlation alone?
- arms: four equal accounts, in every other run up to five times as wild, against a fifth. In how
  many runs does SPA find a better one, or the confidence set lose one: arch's, and ours?
- search: 40 trials that share most of their luck and trade on half of the days, half of them pruned
  after a third of 200 inner days, 120 sealed days. In how many runs does the verdict claim an edge,
  or that the search improved on the untuned recipe? A third of the trials has the edge, where there
  is one; noise is normal, or Student's with 4 degrees of freedom.

    python benchmarks/selection.py [--runs 200] [--only deflation --only arms --only search]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from arch.bootstrap import MCS, SPA

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.evaluation.many_trials import count_trials
from cppncripto_strategy.evaluation.search_worth import SearchReturns, search_worth
from cppncripto_strategy.evaluation.statistics import deflated_sharpe
from cppncripto_strategy.evaluation.superiority import (
    SIZE,
    ConfidenceSet,
    Superiority,
    confidence_set,
    superiority,
)

ARMS = ("a", "b", "c", "d")
RESAMPLES = 200
SURE = 1 - SIZE


def best_of(rho: float, trials: int, seed: int, days: int = 250) -> dict[str, bool]:
    """Whether the best of correlated trials of luck passes, by each way of counting them."""
    rng = np.random.default_rng([1, seed, trials])
    noise = rng.normal(size=(trials, days))
    rows = math.sqrt(rho) * rng.normal(size=days) + math.sqrt(1 - rho) * noise
    sharpes = rows.mean(axis=1) / rows.std(axis=1)
    best, spread = rows[int(sharpes.argmax())], float(np.var(sharpes, ddof=1))
    count = count_trials(sharpes.tolist(), rows)
    counts = {
        "undiscounted": 1,
        "all": count.raw,
        "effective": count.effective,
        "by_correlation": count.by_correlation or 1,
    }
    return {
        name: (deflated_sharpe(best, n, spread if n > 1 else 0.0) or 0.0) >= SURE
        for name, n in counts.items()
    }


def deflation(runs: int) -> Iterator[dict[str, Any]]:
    """Shares of runs in which luck passes."""
    for rho in (0.0, 0.5, 0.9):
        for trials in (5, 50):
            found = [best_of(rho, trials, seed) for seed in range(runs)]
            shares = {name: _share([one[name] for one in found]) for name in found[0]}
            yield {"what": "deflation", "rho": rho, "trials": trials, "runs": runs, **shares}


def equal_arms(days: int, seed: int) -> dict[str, bool]:
    """Whether equal accounts are called unequal, by arch's tests and by ours."""
    rng = np.random.default_rng([2, seed, days])
    wild = np.linspace(1, 5, 4)[:, None] if seed % 2 else 1.0
    rows, base = rng.standard_t(5, (4, days)) * wild, rng.standard_t(5, days)
    block = round(math.cbrt(days))
    spa = SPA(-base, -rows.T, block_size=block, reps=RESAMPLES, seed=seed)
    spa.compute()
    theirs = MCS(-rows.T, SIZE, block_size=block, reps=RESAMPLES, seed=seed)
    theirs.compute()
    tested = superiority(rows, ARMS, base, "base", seed, RESAMPLES)
    kept = confidence_set(rows, ARMS, seed, RESAMPLES)
    assert isinstance(tested, Superiority)
    assert isinstance(kept, ConfidenceSet)
    return {
        "arch_spa": float(spa.pvalues["consistent"]) <= SIZE,
        "arch_set": len(theirs.included) < len(ARMS),
        "spa": tested.found,
        "set": len(kept.included) < len(ARMS),
    }


def arms(runs: int) -> Iterator[dict[str, Any]]:
    """Shares of runs in which equal accounts are called unequal."""
    for days in (30, 60, 120):
        found = [equal_arms(days, seed) for seed in range(runs)]
        shares = {name: _share([one[name] for one in found]) for name in found[0]}
        yield {"what": "arms", "days": days, "runs": runs, **shares}


def searched(seed: int, edge: float, fat: bool) -> SearchReturns:
    """What a search leaves; its last third of trials earns `edge`, in deviations per active day."""
    rng = np.random.default_rng([3, seed])
    trials, inner, sealed = 40, 200, 120
    days = inner + sealed

    def noise(*shape: int) -> FloatArray:
        return rng.standard_t(4, shape) / math.sqrt(2) if fat else rng.normal(size=shape)

    market, active = noise(days), rng.random((trials, days)) < 0.5
    rows = 0.01 * (0.7 * market + 0.7 * noise(trials, days)) * active
    better = slice(-(trials // 3), None)
    rows[better] += 0.01 * edge * active[better]
    untuned = 0.01 * (0.7 * market + 0.7 * noise(days)) * (rng.random(days) < 0.5)
    seen = rows[:, :inner].copy()
    pruned = np.argsort(seen[:, : inner // 3].mean(axis=1))[: trials // 2]
    seen[pruned, inner // 3 :] = np.nan
    whole = np.flatnonzero(np.isfinite(seen).all(axis=1))
    chosen = int(whole[(seen[whole].mean(axis=1) / seen[whole].std(axis=1)).argmax()])
    return SearchReturns(seen, chosen, untuned[:inner], rows[chosen, inner:], untuned[inner:])


def search(runs: int) -> Iterator[dict[str, Any]]:
    """Shares of runs in which an edge, and an improvement, is claimed."""
    for edge, fat in ((0.0, False), (0.0, True), (0.2, False), (0.3, False), (0.45, False)):
        count = runs // 2 if edge == 0 else runs // 8
        found = [search_worth(searched(seed, edge, fat), seed, RESAMPLES) for seed in range(count)]
        # Of a better trial: the mean of all days over their deviation, and a year of that.
        moved = 0.5 * (0.98 + edge**2) - (0.5 * edge) ** 2
        yield {
            "what": "search",
            "annual_sharpe": round(0.5 * edge / math.sqrt(moved) * math.sqrt(365), 1),
            "fat_tails": fat,
            "runs": count,
            "edge": _share([worth.edge for worth in found]),
            "improved": _share([worth.improved for worth in found]),
        }


def _share(hits: list[bool]) -> float:
    return round(sum(hits) / len(hits), 3)


PARTS: dict[str, Callable[[int], Iterator[dict[str, Any]]]] = {
    "deflation": deflation,
    "arms": arms,
    "search": search,
}


def main() -> None:
    """Measure, and print one JSON line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", action="append", choices=list(PARTS))
    arguments = parser.parse_args()
    for name in arguments.only or PARTS:
        for row in PARTS[name](arguments.runs):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
