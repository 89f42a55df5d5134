"""How long to try initialisations of MicroNet: schedules read off whole curves, planted markets.

For each market MacroNet is pretrained once, and three initialisations learn until six epochs have
brought no gain. What any schedule would have learned and kept follows from these curves to the bit,
because no network's draws depend on another's. Judged by hits at setups of 500 later days.

    python benchmarks/schedules.py --seeds 201-210

One JSON line per market on stdout, then the table in Markdown: differences from one rung of four
epochs and a patience of six, in points, with 95 % intervals over markets.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from dataclasses import replace
from typing import Any

# Before numpy is imported: a second thread of its algebra waits in a loop, which costs time.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import torch
from reading import Days, days_of, hits, predictive

from cppncripto_strategy.models.learning.data import embed_set
from cppncripto_strategy.models.learning.training import _Fit, _fresh
from cppncripto_strategy.models.macronet import build_macronet
from cppncripto_strategy.models.pretraining import build_objective, pretrain
from cppncripto_strategy.models.settings import PretrainSettings, TrainSettings

TRAIN_DAYS, VALIDATE_DAYS, NETWORKS = 180, 30, 3
LONGEST = TrainSettings(patience=6)
"""As long as any schedule below learns."""
RUNGS: dict[str, list[tuple[int, int]]] = {
    "to the end": [],
    "4": [(4, 1)],
    "2": [(2, 1)],
    "1": [(1, 1)],
    "2, 4": [(2, 2), (4, 1)],
    "1, 3": [(1, 2), (3, 1)],
    "1, 2": [(1, 2), (2, 1)],
}
"""After which epochs how many networks go on."""
BEFORE = ("4", 6)
SCHEDULES = [(name, patience) for name in RUNGS for patience in (6, 5, 4, 3)]


def chosen(
    curves: list[list[float]], rungs: list[tuple[int, int]], patience: int
) -> tuple[int, int, int]:
    """Which network a schedule keeps, of which epoch, and the epochs that all of them learned."""
    learned, alive = [0] * len(curves), list(range(len(curves)))
    last = [(LONGEST.epochs, 1)]

    def best(number: int) -> int:
        return int(np.argmin(curves[number][: learned[number]]))

    for until, left in [*rungs, *last]:
        for number in alive:
            while learned[number] < until and (
                not learned[number] or learned[number] - 1 - best(number) < patience
            ):
                learned[number] += 1
        alive = sorted(alive, key=lambda number: curves[number][best(number)])[:left]
    return alive[0], best(alive[0]), sum(learned)


def market(seed: int) -> dict[str, Any]:
    """Hits, validation loss and epochs of each schedule on one market."""
    days = days_of(seed, TRAIN_DAYS, VALIDATE_DAYS)
    data = with_embeddings(days, seed)
    train, validate = data["train"].with_labels(), data["validate"].with_labels()
    known = {part: (values.context, values.mirror_context) for part, values in data.items()}
    shape = days.learn.micro_settings()
    reading = predictive(days, known, shape.components)
    curves, weights = [], []
    for number in range(NETWORKS):
        torch.manual_seed(seed + 1000 * number)
        fit = _Fit(_fresh(shape, train.context, reading), LONGEST, seed + 1000 * number)
        kept: list[Any] = []
        fit.learn(
            train, validate, LONGEST.epochs, lambda fit, kept=kept: kept.append(averaged(fit))
        )
        curves.append(fit.curve["validation"])
        weights.append(kept)
    judged: dict[tuple[int, int], float] = {}
    found: dict[str, Any] = {"seed": seed}
    for name, patience in SCHEDULES:
        number, epoch, learned = chosen(curves, RUNGS[name], patience)
        if (number, epoch) not in judged:
            net = _fresh(shape, train.context, reading).eval()
            net.load_state_dict(weights[number][epoch])
            judged[number, epoch] = hits(days, data["test"], net)
        loss = curves[number][epoch]
        found[f"{name} / {patience}"] = [judged[number, epoch], loss, learned]
    return found


def averaged(fit: _Fit) -> dict[str, Any]:
    """The weights that would be kept of this epoch."""
    return copy.deepcopy(fit._average.state_dict())


def with_embeddings(days: Days, seed: int) -> dict[str, Any]:
    """The days' data under a MacroNet pretrained as by default."""
    torch.manual_seed(seed)
    learn, session = days.learn, days.learn.session
    macro = build_macronet(learn.encoder, len(session.names), session.n_statistics, {})
    objective = build_objective(
        learn.objective, macro.encoder, session.table, {}, session.macro_day_rows
    )
    sets = days.sets
    pretrain(macro.encoder, objective, sets["train"], sets["validate"], PretrainSettings(), seed)
    macro.calibrate(embed_set(macro, sets["train"], raw=True))
    macro.eval()
    return {
        part: replace(
            values,
            context=embed_set(macro, sets[part]),
            mirror_context=embed_set(macro, sets[part], mirrored=True),
        )
        for part, values in days.data.items()
    }


def table(lines: list[dict[str, Any]]) -> str:
    """Means over markets, and differences in hits from the schedule before."""
    rng = np.random.default_rng(0)
    of = {
        (name, patience): np.array([line[f"{name} / {patience}"] for line in lines])
        for name, patience in SCHEDULES
    }
    rows = [
        "| rungs after epochs | patience | hits | difference, points | validation loss | epochs |",
        "|---" * 6 + "|",
    ]
    for (name, patience), values in of.items():
        difference = 100 * (values[:, 0] - of[BEFORE][:, 0])
        drawn = difference[rng.integers(0, len(lines), (10_000, len(lines)))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        hit, loss, epochs = values.mean(axis=0)
        rows.append(
            f"| {name} | {patience} | {100 * hit:.1f} % | {difference.mean():+.2f}"
            f" [{low:+.2f}, {high:+.2f}] | {loss:.5f} | {epochs:.1f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Learn and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="201-210", help="first-last, planted markets")
    first, last = map(int, parser.parse_args().seeds.split("-"))
    torch.set_num_threads(1)
    lines = []
    for seed in range(first, last + 1):
        lines.append(market(seed))
        print(json.dumps(lines[-1]), flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
