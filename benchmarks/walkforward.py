"""Weekly retraining of both networks: as it is, and with every initialisation trained to its end.

Two symbols, networks trained afresh at each of nine Mondays on the ninety days before, of real
5-minute candles where CPPN_BT_REAL_MARKET names some (2023, no later), else of planted ones. The
baseline has as many epochs, as much patience and as many whole initialisations as there were before
the trial of initialisations, on today's code. Processor seconds in this process, one thread for
torch and for numpy's algebra, the two sides alternating stamp by stamp.

Prints one JSON line: name, ours_s, baseline_s, ratio (ours over baseline), speedup, baseline,
losses (mean validation loss of both), stamps, market, peak_mb.

    python benchmarks/walkforward.py [--stamps 9]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

# Before numpy is imported: a second thread of its algebra waits in a loop, which counts as work.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import torch

from cppncripto_strategy.feeds.clock import DAY_MS, utc_to_ms
from cppncripto_strategy.market import load_market, session_tables
from cppncripto_strategy.models.learning.calendar import calendar
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.recipe import parse_recipe

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
TRAIN_DAYS, VALIDATE_DAYS = 75, 15
UNTIL = "2023-06-26"
PATIENCE_BEFORE = 6


def recipe_of(real: str) -> Any:
    """The recipe whose walk-forward is measured."""
    values: dict[str, Any] = {
        "symbols": SYMBOLS,
        "walkforward": {
            "train_days": TRAIN_DAYS,
            "validate_days": VALIDATE_DAYS,
            "retrain_days": 7,
            "macro_retrain_days": 7,
        },
    }
    if real:
        values["candles"] = {"folder": str(Path(real) / "candles")}
        values["timerange"] = f"20230401-{UNTIL.replace('-', '')}"
    else:
        values["candles"] = {"source": "planted", "planted": {"days": 200}}
    return parse_recipe(values)


def warm_up() -> None:
    """Take one step of an optimiser: the first in a process imports what nobody measures here."""
    weight = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.AdamW([weight], fused=True)
    weight.sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stamps", type=int, default=9)
    count = parser.parse_args().stamps
    torch.set_num_threads(1)
    warm_up()
    real = os.environ.get("CPPN_BT_REAL_MARKET", "")
    recipe = recipe_of(real)
    ours = recipe.learn_settings()
    before = dataclasses.replace(
        ours,
        pretrain=dataclasses.replace(ours.pretrain, epochs=30, patience=PATIENCE_BEFORE),
        train=dataclasses.replace(
            ours.train, trial_epochs=ours.train.epochs, patience=PATIENCE_BEFORE
        ),
    )
    tables = session_tables(load_market(recipe), ours.session)
    end_ms = min(table.grid.end_ms for table in tables) if not real else utc_to_ms(UNTIL)
    stamps = calendar(end_ms - 70 * DAY_MS, end_ms, 7)[:count]
    seconds, losses = {"ours": 0.0, "before": 0.0}, dict[str, list[float]](ours=[], before=[])
    for stamp in stamps:
        for name, settings in (("ours", ours), ("before", before)):
            began = time.process_time()
            bundle = learn_bundle(tables, stamp, settings, seed=1)
            seconds[name] += time.process_time() - began
            losses[name].append(bundle.info.validation["loss"])
    document = {
        "name": "walk_forward",
        "ours_s": round(seconds["ours"], 2),
        "baseline": "every initialisation to its end",
        "baseline_s": round(seconds["before"], 2),
        "ratio": round(seconds["ours"] / seconds["before"], 3),
        "speedup": round(seconds["before"] / seconds["ours"], 2),
        "losses": [round(float(np.mean(losses[name])), 5) for name in ("ours", "before")],
        "stamps": len(stamps),
        "market": "real" if real else "planted",
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
