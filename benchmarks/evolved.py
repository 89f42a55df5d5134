"""What evolving MacroNet's encoder is worth, against everything that is easier.

    python benchmarks/evolved.py planted --seeds 81-85 --out planted.jsonl
    python benchmarks/evolved.py universe --candles DIR --out universe.jsonl
    python benchmarks/evolved.py table planted.jsonl universe.jsonl

Arms: no macro; the TCN, trained by gradient; the champions of NEAT, MAP-Elites and random search,
which evaluate `--evaluations` genomes each, not one more or less; NEAT's champion fine-tuned with
its mask frozen; random kernels with as many connections in each layer, a draw and the fittest of as
many draws; and ROCKET's (Dempster et al. 2020), as many channels. `--searches` and `--fitness`
choose what is searched by. CPU seconds are stated per arm; the TCN gets as many as evolution and
fine-tuning took together.

Planted markets: every arm gets the same MicroNet trainings (the directions that predict, two
initialisations, the same days) on a market of its own per seed, and is judged on 500 days after
them. Universe: genomes are chosen on days before 2023-07 alone; a ridge regression on HAR-X's terms
and the embedding, refitted each quarter on all days before it, is judged from 2023-10 to 2024-08.

JSON lines to --out (added to what is there, so that a run can go on), then the table in Markdown.
Beside the arms stands what an encoder could say at best of a planted market: the five days' mean of
volume times the clock, by hand. Intervals are of 95 %, from resampling blocks of ten days of every
market or of the year, paired; on the universe seeds are drawn anew as well. A look at its later
days leaves a row in the ledger of looks, `docs/experiments/looks.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evolved_arms import Arms, connections
from evolved_universe import universe_arms, universe_table
from reading import (
    HOW,
    PARTS,
    Contexts,
    Days,
    days_of,
    embedded,
    named,
    per_day,
    predictive,
    standardised,
)
from universe import LOOKS

from cppncripto_strategy.arrays import FloatArray
from cppncripto_strategy.models.hyperneat.fitness import ProbeData
from cppncripto_strategy.models.hyperneat.options import CPPNOptions
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings, NeatSettings
from cppncripto_strategy.models.learning.training import train_micronet
from cppncripto_strategy.models.macronet import MacroNet, build_macronet

Line = dict[str, Any]
BLOCK_DAYS, RESAMPLES = 10, 4000


# ------------------------------------------------------------------ planted markets
def planted(seed: int, options: argparse.Namespace, emit: Callable[[Line], None]) -> None:
    """All arms on the market of one seed."""
    days = days_of(seed)
    train, session = days.sets["train"], days.learn.session

    def build(encoder: str, values: dict[str, Any], seed: int) -> MacroNet:
        torch.manual_seed(seed)
        return build_macronet(encoder, len(session.names), session.n_statistics, values).eval()

    width = build("tcn", {}, seed).encoder.width
    substrate = CPPNOptions(**options.substrate).substrate_for(len(session.names), width)
    settings = evolution_settings(options)
    data = ProbeData.of_sessions(train, days.split_ms, substrate.stride, settings.fitness)
    arms = Arms(
        build, train, days.sets["validate"], data, substrate, "contrastive", {}, {}, settings,
        options.searches.split(","), options.evaluations,
    )  # fmt: skip
    zeros = {part: (torch.zeros(len(days.sets[part]), 128),) * 2 for part in PARTS}
    if not options.named:
        emit({"kind": "planted", "seed": seed, "arm": "none", **hits_of(days, zeros, seed)})
    known = standardised(rhythm(days))
    line = {"kind": "planted", "seed": seed, "arm": "the rhythm itself"}
    line["named"] = round(named(days, known, None, seed), 4)
    emit(line if options.named else line | hits_of(days, known, seed))
    for arm, net, cpu_s, about in arms.nets(seed, by_gradient=not options.named):
        known = standardised(embedded(days, [net]))
        line = {"kind": "planted", "seed": seed, "arm": arm, "macro_cpu_s": round(cpu_s, 1)}
        line |= {"connections": connections(net.encoder), **about}
        line["named"] = round(named(days, known, None, seed), 4)
        if not options.named:
            line |= hits_of(days, known, seed)
        emit(line)


def rhythm(days: Days) -> Contexts:
    """What an encoder could say at best: the five days' mean of volume times each clock wave."""
    names = days.learn.session.names
    found = {}
    for part in PARTS:
        windows = days.sets[part].gather(np.arange(len(days.sets[part])))  # (N, T, F)
        volume = windows[:, :, names.index("volume_z")]
        waves = [windows[:, :, names.index(name)] for name in ("sin_day", "cos_day")]
        said = torch.stack([(volume * wave).mean(dim=1) for wave in waves], dim=1)  # (N, 2)
        padded = torch.nn.functional.pad(said, (0, 128 - 2))
        found[part] = padded, padded
    return found


def evolution_settings(options: argparse.Namespace) -> EvolutionSettings:
    neat = NeatSettings(population=options.population, locality=options.locality)
    return EvolutionSettings(
        generations=options.evaluations,  # more than any search comes to
        fitness=options.fitness,
        connection_cost=options.connection_cost,
        neat=neat,
    )


def hits_of(days: Days, known: Contexts, seed: int) -> Line:
    """Right answers and setups of each test day, after a training on these embeddings."""
    data = {
        part: replace(days.data[part], context=a, mirror_context=b)
        for part, (a, b) in known.items()
    }
    began, shape = time.process_time(), days.learn.micro_settings()
    reading = predictive(days, known, shape.components) if known["train"][0].any() else None
    trained = train_micronet(data["train"], data["validate"], shape, HOW, seed, reading=reading)
    right, setups = per_day(days, data["test"], trained.net)
    line: Line = {"hit": round(float(right.sum() / setups.sum()), 4)}
    line |= {"right": right.tolist(), "setups": setups.tolist()}
    return line | {"micro_cpu_s": round(time.process_time() - began, 1)}


# ------------------------------------------------------------------ tables
def resampled(days: int, rng: np.random.Generator) -> Any:
    """Days of a circular block bootstrap."""
    starts = rng.integers(0, days, -(-days // BLOCK_DAYS))
    return ((starts[:, None] + np.arange(BLOCK_DAYS)).ravel() % days)[:days]


def shares(lines: Sequence[Line], arm: str, picks: Sequence[Any]) -> FloatArray:
    """Hits of an arm under each resampling, all markets pooled; several arms of a name averaged."""
    found = []
    for number, pick in picks:
        own = [ln for ln in lines if ln["seed"] == number and ln["arm"].rstrip(" 12") == arm]
        right = np.mean([np.array(ln["right"])[pick].sum() for ln in own])
        found.append((right, np.array(own[0]["setups"])[pick].sum()))
    return np.array(found)


def planted_table(lines: Sequence[Line]) -> str:
    """Hits at setups in percent, and what the first champion has more than each arm."""
    lines = [ln for ln in lines if ln["kind"] == "planted" and ("hit" in ln or "named" in ln)]
    if not all("hit" in ln for ln in lines):
        return named_table(lines)
    seeds = sorted({ln["seed"] for ln in lines})
    arms = list(dict.fromkeys(ln["arm"].rstrip(" 12") for ln in lines))
    rng, drawn = np.random.default_rng(0), []
    size = {s: len(next(ln for ln in lines if ln["seed"] == s)["right"]) for s in seeds}
    drawn.append([(s, np.arange(size[s])) for s in seeds])
    drawn += [[(s, resampled(size[s], rng)) for s in seeds] for _ in range(RESAMPLES)]
    hits: dict[str, FloatArray] = {}
    for arm in arms:
        sums = np.array([shares(lines, arm, picks).sum(axis=0) for picks in drawn])
        hits[arm] = 100 * sums[:, 0] / sums[:, 1]
    rows = ["| encoder | hits | by market | days named | connections | CPU s | less than evolved |"]
    rows.append("|---" * 7 + "|")
    for arm in arms:
        own = [ln for ln in lines if ln["arm"].rstrip(" 12") == arm]
        each = [100 * np.mean([ln["hit"] for ln in own if ln["seed"] == s]) for s in seeds]
        gap = hits["evolved"] - hits[arm]
        low, high = np.quantile(gap[1:], (0.025, 0.975))
        less = "" if arm == "evolved" else f"{gap[0]:.2f} [{low:.2f}, {high:.2f}]"
        told = np.mean([ln.get("named", 0.5) for ln in own])
        sizes = np.mean([ln.get("connections", 0) for ln in own])
        cpu = np.mean([ln.get("macro_cpu_s", 0) for ln in own])
        by = " ".join(f"{value:.1f}" for value in each)
        row = f"| {arm} | {hits[arm][0]:.2f} | {by} | {100 * told:.1f} | {sizes:,.0f} | {cpu:.0f}"
        rows.append(f"{row} | {less} |")
    return "\n".join(rows)


def named_table(lines: Sequence[Line]) -> str:
    """Days named in percent by arm and market, and the difference from the evolved champion."""
    seeds = sorted({ln["seed"] for ln in lines})
    rows = ["| encoder | days named | by market | less than evolved (standard error) | fitness |"]
    rows.append("|---" * 5 + "|")
    told = {(ln["arm"].rstrip(" 12"), ln["seed"]): 100 * ln["named"] for ln in lines}
    for arm in dict.fromkeys(name for name, _ in told):
        own = np.array([told[arm, seed] for seed in seeds])
        gap = np.array([told["evolved", seed] for seed in seeds]) - own
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan
        fit = [ln["fitness"] for ln in lines if ln["arm"] == arm and "fitness" in ln]
        by = " ".join(f"{value:.1f}" for value in own)
        less = "" if arm == "evolved" else f"{gap.mean():+.2f} ({error:.2f})"
        fitness = f"{np.mean(fit):.3f}" if fit else ""
        rows.append(f"| {arm} | {own.mean():.2f} | {by} | {less} | {fitness} |")
    return "\n".join(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("planted", "universe", "table"))
    parser.add_argument("files", nargs="*", type=Path, help="with table: files to tell it from")
    parser.add_argument("--seeds", default="81-85", help="first-last")
    parser.add_argument("--candles", type=Path)
    parser.add_argument("--searches", default="neat,map-elites,random")
    parser.add_argument("--fitness", default=EvolutionSettings().fitness)
    parser.add_argument("--substrate", type=json.loads, default={}, help="options, as JSON")
    parser.add_argument("--evaluations", type=int, default=720, help="genomes of every search")
    parser.add_argument("--population", type=int, default=48)
    parser.add_argument("--connection-cost", type=float, default=0.02)
    parser.add_argument("--locality", action="store_true")
    parser.add_argument(
        "--choice",
        action="store_true",
        help="universe: chosen before 2022-07, judged before 2023-07",
    )
    parser.add_argument(
        "--named",
        action="store_true",
        help="no trainings, of MicroNet nor of arms",
    )
    parser.add_argument("--out", type=Path, help="JSON lines to add to")
    parser.add_argument("--ledger", type=Path, default=LOOKS, help="where looks are counted")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "table":
        show([json.loads(x) for file in options.files for x in file.read_text().splitlines()])
        return
    lines: list[Line] = []

    def emit(line: Line) -> None:
        lines.append(line)
        print({k: v for k, v in line.items() if not isinstance(v, list)}, flush=True)
        if options.out is not None:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    first, last = map(int, options.seeds.split("-"))
    if options.what == "universe":
        universe_arms(range(first, last + 1), options, evolution_settings(options), emit)
    else:
        for seed in range(first, last + 1):
            planted(seed, options, emit)
    show(lines)


def show(lines: list[Line]) -> None:
    """Print the tables of what there is."""
    if any(line["kind"] == "planted" for line in lines):
        print(planted_table(lines))
    if any(line["kind"] == "universe" for line in lines):
        print(universe_table(lines))


if __name__ == "__main__":
    main()
