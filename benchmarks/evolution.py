"""Painting kernels, and judging genomes.

Prints two JSON lines. The first: the whole grid at once against neat-python asked at every
coordinate; name, ours_s and baseline_s (seconds a genome, each side the total over the same
genomes), speedup, max_error (largest difference between weights), mask_disagreements, genomes and
weights. The second: a genome's whole evaluation by each fitness, ours_s of "gain" and of "profile",
against what an evaluation was before there was a choice (baseline_s): an encoder built of checked
options, all of whose filters are run, and a ridge probe. All sides run in this process, on one
thread, alternating genome by genome.

    python benchmarks/evolution.py [--genomes N]
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from cppncripto_strategy.feeds.planted import PlantedSettings, generate
from cppncripto_strategy.models.hyperneat.decoding import Kernels, decode, decode_by_coordinate
from cppncripto_strategy.models.hyperneat.encoder import CPPNEncoder, is_expressed
from cppncripto_strategy.models.hyperneat.fitness import ProbeData, evaluate
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.neat_python import random_genome
from cppncripto_strategy.models.hyperneat.options import CPPNOptions
from cppncripto_strategy.models.hyperneat.settings import FITNESSES, EvolutionSettings
from cppncripto_strategy.models.hyperneat.substrate import Substrate
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionSettings, build_sessions
from cppncripto_strategy.models.judging.probes import walk_forward_r2

# 8 features, width 64, three taps, five layers: 50,688 weights, five coordinates each.
SUBSTRATE = Substrate.temporal(8, width=64, channels=64, taps=3, dilations=(1, 2, 4, 8, 16))
# Mutations that take a random genome to the size of an evolved one (about five hidden nodes).
MUTATIONS = 60
# Ours is timed over this many repeats a genome: one alone is too short for the clock.
REPEATS = 20


def measure(genomes: list[Genome]) -> dict[str, float | int | str]:
    """Time both decoders on the same genomes and compare what they paint."""
    ours_s = baseline_s = max_error = 0.0
    disagreements = 0
    for genome in genomes:
        decode(genome, SUBSTRATE)  # first touch of memory is charged to neither side
        started = time.perf_counter()
        for _ in range(REPEATS):
            ours = decode(genome, SUBSTRATE)
        ours_s += (time.perf_counter() - started) / REPEATS
        started = time.perf_counter()
        theirs = decode_by_coordinate(genome, SUBSTRATE)
        baseline_s += time.perf_counter() - started
        error, flips = difference(ours, theirs)
        max_error, disagreements = max(max_error, error), disagreements + flips
    return {
        "name": "cppn_decode",
        "ours_s": ours_s / len(genomes),
        "baseline_s": baseline_s / len(genomes),
        "speedup": baseline_s / ours_s,
        "max_error": max_error,
        "mask_disagreements": disagreements,
        "genomes": len(genomes),
        "weights": SUBSTRATE.weights,
    }


def difference(ours: Kernels, theirs: Kernels) -> tuple[float, int]:
    """Largest weight difference, and number of connections expressed on one side alone."""
    error = max(
        float((a - b).abs().max()) for a, b in zip(ours.weights, theirs.weights, strict=True)
    )
    flips = sum(int((a != b).sum()) for a, b in zip(ours.masks, theirs.masks, strict=True))
    return error, flips


def measure_evaluation(genomes: list[Genome]) -> dict[str, float | int | str]:
    """Time evaluations on a year of planted days."""
    market = generate(PlantedSettings(days=372, seed=1))
    session = SessionSettings()
    grid = CandleGrid.from_candles(market.candles, session.interval_ms)
    sessions = SessionSet.between([build_sessions("MARKET", grid, session)], 0, 2**60)
    substrate = CPPNOptions().substrate_for(len(session.names), 116)
    data = {
        kind: ProbeData.of_sessions(sessions, grid.end_ms, substrate.stride, kind)
        for kind in FITNESSES
    }
    spent = dict.fromkeys(("baseline", *FITNESSES), 0.0)
    for genome in genomes:
        for name in spent:
            began = time.process_time()
            if name == "baseline":
                as_before(genome, substrate, data["profile"])
            else:
                evaluate(genome, substrate, data[name], EvolutionSettings(fitness=name))
            spent[name] += time.process_time() - began
    parts = {f"{name}_s": seconds / len(genomes) for name, seconds in spent.items()}
    return {
        "name": "evaluation",
        "ours_s": parts["gain_s"],
        "speedup": parts["baseline_s"] / parts["gain_s"],
        **parts,
        "genomes": len(genomes),
        "days": len(data["gain"]),
    }


@torch.no_grad()
def as_before(genome: Genome, substrate: Substrate, data: ProbeData) -> float:
    """A ridge probe of an encoder that is built of options, every filter run."""
    if not is_expressed(decode(genome, substrate), substrate):
        return 0.0
    options = CPPNOptions(genome=genome.to_json(), substrate=substrate.to_json())
    encoder = CPPNEncoder(substrate.layers[0].inputs, substrate.width, options)
    rows = torch.from_numpy(data.rows)
    parts = [encoder.pool(encoder.rows_map(rows[i : i + 64])) for i in range(0, len(rows), 64)]
    embedding = torch.cat(parts).double().numpy()
    return walk_forward_r2(embedding, data.targets, data.day_ms)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--genomes", type=int, default=16, help="random genomes to paint")
    count = parser.parse_args().genomes
    torch.set_num_threads(1)
    genomes = [random_genome(seed, MUTATIONS) for seed in range(count)]
    print(json.dumps(measure(genomes)))
    print(json.dumps(measure_evaluation(genomes)))


if __name__ == "__main__":
    main()
