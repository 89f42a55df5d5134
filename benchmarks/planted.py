"""What macro is worth on the planted market, where the answer is known.

For each seed: a market with the default parameters, networks trained on its first part, hit ratio
at setups on the rest, with macro, without, under embeddings shifted by 60 days, and on the null
market (mu = 0, same seed). Prints one line per measurement and, last, one JSON document of all.

    python benchmarks/planted.py [--seeds 3] [--days 1000] [--test-days 360] [--window 60]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from typing import Any

import numpy as np
import torch

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedMarket, PlantedSettings, generate
from cppncripto_strategy.feeds.planted_hits import (
    HitRatio,
    ceiling_hit,
    hit_at_setups,
    macro_hit,
    marker_filter_accuracy,
    micro_only_hit,
    oracle_hit,
)
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionTable, build_sessions
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.scoring.batch import embed_sessions, score_sessions
from cppncripto_strategy.models.settings import LearnSettings

SHIFT_DAYS = 60
VALIDATE_DAYS = 60
# What a measurement is: whether anything is planted, whether the network sees the embedding.
ARMS = {"with": (True, True), "without": (True, False), "null": (False, True)}


def scores(table: SessionTable, bundle: Bundle, shift_days: int = 0) -> np.ndarray[Any, Any]:
    """Score of every candle, the embeddings taken from `shift_days` earlier."""
    timeline = BundleTimeline((bundle,))
    states = embed_sessions(table, timeline)
    if shift_days:
        # Embeddings before the bundle came into force are computed for the shift alone.
        every = embed_sessions(table, BundleTimeline((bundle,), in_sample=True))
        states = dataclasses.replace(states, embedding=np.roll(every.embedding, shift_days, axis=0))
    return score_sessions(table, timeline, states).score


def all_candles_hit(market: PlantedMarket, score: np.ndarray[Any, Any], start_ms: int) -> float:
    """Hit ratio of sign(score) over all candles at the setup horizon."""
    close, h = market.candles.close, market.settings.horizon
    ahead = np.full(len(close), np.nan)
    ahead[:-h] = close[h:] / close[:-h] - 1
    known = np.isfinite(score) & np.isfinite(ahead) & (market.candles.open_time >= start_ms)
    return float((np.sign(score) == np.sign(ahead))[known].mean())


def measure(seed: int, mu: float, use_macro: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Train on one market and judge it."""
    began = time.perf_counter()
    market = generate(PlantedSettings(days=options.days, seed=seed, mu=mu))
    grid = CandleGrid.from_candles(market.candles, 300_000)
    settings = LearnSettings(
        use_macro=use_macro,
        short_window=options.window,
        micro_options={"clock": False},  # as the closed form of the window alone assumes
        train_days=options.days - options.test_days - VALIDATE_DAYS - 14,
        validate_days=VALIDATE_DAYS,
        label=LabelSettings(horizon=6),
    )
    table = build_sessions("PLANTED", grid, settings.session)
    until = calendar(grid.end_ms - options.test_days * DAY_MS, grid.end_ms, 7)[0]
    bundle = learn_bundle([table], until, settings, seed)
    score = scores(table, bundle)
    found: dict[str, Any] = {
        "seed": seed,
        "mu": mu,
        "macro": use_macro,
        "hit": _plain(hit_at_setups(market, score, until)),
        "hit_all_candles": all_candles_hit(market, score, until),
    }
    if use_macro and mu:
        shifted = scores(table, bundle, SHIFT_DAYS)
        found["hit_shifted"] = _plain(hit_at_setups(market, shifted, until))
    found["seconds"] = round(time.perf_counter() - began, 1)
    return found


def _plain(hit: HitRatio) -> dict[str, float]:
    return {"hit": hit.hit, "low": hit.low, "high": hit.high, "setups": hit.count}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--days", type=int, default=1000)
    parser.add_argument("--test-days", type=int, default=360)
    parser.add_argument("--window", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    default = PlantedSettings()
    rows = []
    for seed in range(options.seeds):
        for mu, use_macro in ((default.mu, True), (default.mu, False), (0.0, True)):
            rows.append(measure(seed, mu, use_macro, options))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    of = {
        arm: float(np.mean([r["hit"]["hit"] for r in rows if (r["mu"] > 0, r["macro"]) == key]))
        for arm, key in ARMS.items()
    }
    document = {
        "name": "planted_macro",
        "closed_form": {
            "oracle": oracle_hit(default),
            "five_day_filter": macro_hit(default, marker_filter_accuracy(default, 5)),
            "window_alone": micro_only_hit(default, options.window),
            "all_candles_ceiling": ceiling_hit(default),
        },
        "hit_with_macro": of["with"],
        "hit_without_macro": of["without"],
        "hit_null_market": of["null"],
        "gain_points": 100 * (of["with"] - of["without"]),
        "rows": rows,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
