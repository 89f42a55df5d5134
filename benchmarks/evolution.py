"""Painting kernels: the whole grid at once against neat-python asked at every coordinate.

Prints one JSON line: name, ours_s and baseline_s (seconds a genome, each side the total over the
same genomes), speedup, max_error (largest difference between weights), mask_disagreements, genomes
and weights. Both sides run in this process, on one thread, alternating genome by genome.

    python benchmarks/evolution.py [--genomes N]
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from cppncripto_strategy.models.hyperneat.decoding import Kernels, decode, decode_by_coordinate
from cppncripto_strategy.models.hyperneat.genome import Genome
from cppncripto_strategy.models.hyperneat.neat_python import random_genome
from cppncripto_strategy.models.hyperneat.substrate import Substrate

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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--genomes", type=int, default=16, help="random genomes to paint")
    count = parser.parse_args().genomes
    torch.set_num_threads(1)
    print(json.dumps(measure([random_genome(seed, MUTATIONS) for seed in range(count)])))


if __name__ == "__main__":
    main()
