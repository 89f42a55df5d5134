"""The encoder a CPPN paints, evolved and fine-tuned, against its baselines: one table.

Arms: no macro; random weights in the CPPN's own architecture, with all connections and with as many
as the champion has, drawn at random; a random CPPN; the evolved champion; the champion fine-tuned
with its mask frozen; and the TCN, trained by gradient for as much CPU time as evolution and
fine-tuning took together. Every arm then gets the same MicroNet training, and is
judged on days after all of it.

    python benchmarks/encoder_comparison.py                    the planted market
    python benchmarks/encoder_comparison.py --market FOLDER    real candles

One JSON line per arm and seed on stdout (and to --out), then the table in Markdown. On the planted
market the probe is the accuracy of a ridge that names the day's regime from the encoder's vector,
and the hit ratio counts setups. On real candles the probe is the R2 of the next day's profile of
volume and volatility, and the hit ratio counts the strongest 30 % of the scores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cppncripto_strategy.feeds.candles import Candles
from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.history.files import open_source
from cppncripto_strategy.feeds.planted import PlantedMarket, PlantedSettings, generate
from cppncripto_strategy.feeds.planted_hits import HitRatio, hit_at_setups
from cppncripto_strategy.models.bundle import Bundle, BundleTimeline
from cppncripto_strategy.models.encoders import ENCODERS, Encoder, build_encoder
from cppncripto_strategy.models.hyperneat.encoder import CPPNEncoder
from cppncripto_strategy.models.hyperneat.evolution import Evolution, champion_json
from cppncripto_strategy.models.hyperneat.fitness import ProbeData, evaluate
from cppncripto_strategy.models.hyperneat.front import knee
from cppncripto_strategy.models.hyperneat.options import CPPNOptions
from cppncripto_strategy.models.hyperneat.settings import EvolutionSettings
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable, build_sessions
from cppncripto_strategy.models.judging.probes import profile_targets, sign_accuracy
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.learning.learner import learn_bundle
from cppncripto_strategy.models.pretraining import build_objective, pretrain
from cppncripto_strategy.models.ridge import fit_ridge
from cppncripto_strategy.models.scoring.batch import score_span
from cppncripto_strategy.models.settings import (
    EMBEDDING_SIZE,
    LearnSettings,
    PretrainSettings,
    TrainSettings,
)

INTERVAL_MS = 300_000
# Months of a regime each: fewer days hold too few changes of it to learn from, or to choose by.
TRAIN_DAYS, VALIDATE_DAYS = 360, 60
FINE_TUNE_EPOCHS = 20
WARMUP_DAYS = 7
ARMS = (
    "none",
    "random weights",
    "random weights, as sparse",
    "random CPPN",
    "evolved",
    "evolved + fine-tuned",
    "TCN",
)
FROZEN = PretrainSettings(epochs=0)


class RandomOptions(CPPNOptions):
    """connections : how many are expressed, of all layers together; None for all of them."""

    connections: int | None = None


class RandomWeights(CPPNEncoder):
    """The architecture of the encoder `cppn`, filled at random: filters of length 1, no CPPN."""

    Options = RandomOptions

    def __init__(self, n_features: int, width: int, options: RandomOptions) -> None:
        super().__init__(n_features, width, options)
        connections = options.connections
        total = self.substrate.weights
        chosen = torch.zeros(total, dtype=torch.bool)
        chosen[torch.randperm(total)[: total if connections is None else connections]] = True
        masks = chosen.split([layer.weights for layer in self.substrate.layers])
        with torch.no_grad():
            for layer, mask in zip(self.painted, masks, strict=True):
                layer.mask.copy_(mask.reshape(layer.mask.shape))
                drawn = torch.randn(layer.weight.shape) * layer.mask
                length = drawn.flatten(1).norm(dim=1).clamp(min=1e-9)
                layer.weight.copy_(drawn / length[:, None, None])
        self.options = {"width": width, "connections": connections}


@dataclass(frozen=True, eq=False)
class Ground:
    """Candles to compare on: the truth where they are planted, and where training ends."""

    table: SessionTable
    until_ms: int
    planted: PlantedMarket | None
    label: LabelSettings

    @property
    def train(self) -> SessionSet:
        """Days that MacroNet learns from, and the genome is chosen on."""
        split = self.until_ms - VALIDATE_DAYS * DAY_MS
        return SessionSet.between([self.table], split - TRAIN_DAYS * DAY_MS, split)

    @property
    def validation(self) -> SessionSet:
        """Days that stop the training."""
        return SessionSet.between(
            [self.table], self.until_ms - VALIDATE_DAYS * DAY_MS, self.until_ms
        )

    @property
    def test(self) -> SessionSet:
        """Days that judge, each with a whole day of candles after it."""
        return SessionSet.between([self.table], self.until_ms, self.table.grid.end_ms - DAY_MS)


def planted_ground(seed: int, test_days: int) -> Ground:
    """A planted market whose setups can pay, and the days of the demo recipe."""
    days = WARMUP_DAYS + TRAIN_DAYS + VALIDATE_DAYS + test_days
    market = generate(PlantedSettings(days=days, seed=seed, mu=0.8, sigma=0.004))
    label = LabelSettings(horizon=market.settings.horizon, options={"threshold_bps": 50})
    return ground_of(market.candles, market, label)


def real_ground(folder: Path, symbol: str, days: int) -> Ground:
    """The last `days` days before 2024-09-06 of one symbol."""
    end_ms = 1_725_580_800_000
    candles = open_source(folder).read(symbol, "5m", end_ms - days * DAY_MS, end_ms)
    return ground_of(candles, None, LabelSettings())


def ground_of(candles: Candles, market: PlantedMarket | None, label: LabelSettings) -> Ground:
    grid = CandleGrid.from_candles(candles, INTERVAL_MS)
    table = build_sessions("MARKET", grid, LearnSettings().session)
    first = -(-grid.start_ms // DAY_MS) * DAY_MS
    until = first + (WARMUP_DAYS + TRAIN_DAYS + VALIDATE_DAYS) * DAY_MS
    return Ground(table, until, market, label)


def evolve(ground: Ground, seed: int, generations: int) -> dict[str, Any]:
    """A champion's encoder options, its point on the front."""
    settings = EvolutionSettings(
        generations=generations, search="neat", fitness="profile", seed=seed
    )
    session = ground.table.settings
    substrate = CPPNOptions().substrate_for(
        len(session.names), EMBEDDING_SIZE - session.n_statistics
    )
    until = ground.until_ms - VALIDATE_DAYS * DAY_MS
    data = ProbeData.of_sessions(ground.train, until, substrate.stride)
    run = Evolution.begin(settings, substrate, data.fingerprint())
    while not run.finished:
        run.advance({g.key: evaluate(g, substrate, data, settings) for g in run.pending()})
    champion = champion_json(run, [run.front[knee(run.front, substrate.weights)]], until)
    return {"genome": champion["genome"], "substrate": champion["substrate"]}


def epoch_cpu_s(ground: Ground, encoder: str, options: dict[str, Any]) -> float:
    """CPU seconds of one epoch of pretraining, validation included."""
    names = ground.table.settings.names
    torch.manual_seed(0)
    width = EMBEDDING_SIZE - ground.table.settings.n_statistics
    net = build_encoder(encoder, len(names), options, width)
    objective = build_objective("contrastive", net, ground.table.settings.table)
    began = 0.0
    for _ in range(2):  # the first round warms up
        began = time.process_time()
        pretrain(net, objective, ground.train, ground.validation, PretrainSettings(epochs=3), 0)
    return (time.process_time() - began) / 3


def expressed(ground: Ground, champion: dict[str, Any]) -> int:
    """Connections of a champion."""
    net = build_encoder("cppn", len(ground.table.settings.names), champion)
    return connections(net)


def arms(ground: Ground, seed: int, generations: int) -> dict[str, tuple[dict[str, Any], float]]:
    """For each arm, what replaces the default learning settings, and CPU seconds of MacroNet."""
    began = time.process_time()
    champion = evolve(ground, seed, generations)
    evolving = time.process_time() - began
    tuning = FINE_TUNE_EPOCHS * epoch_cpu_s(ground, "cppn", champion)
    epochs = max(1, round((evolving + tuning) / epoch_cpu_s(ground, "tcn", {})))
    tune = PretrainSettings(epochs=FINE_TUNE_EPOCHS, patience=FINE_TUNE_EPOCHS)
    by_gradient = PretrainSettings(epochs=epochs, patience=epochs)
    cppn = {"encoder": "cppn", "pretrain": FROZEN}
    return {
        "none": ({"use_macro": False}, 0.0),
        "random weights": ({"encoder": "random weights", "pretrain": FROZEN}, 0.0),
        "random weights, as sparse": (
            {
                "encoder": "random weights",
                "encoder_options": {"connections": expressed(ground, champion)},
                "pretrain": FROZEN,
            },
            0.0,
        ),
        "random CPPN": (cppn, 0.0),
        "evolved": ({**cppn, "encoder_options": champion}, evolving),
        "evolved + fine-tuned": (
            {"encoder": "cppn", "encoder_options": champion, "pretrain": tune},
            evolving + tuning,
        ),
        "TCN": ({"encoder": "tcn", "pretrain": by_gradient}, evolving + tuning),
    }


def judge(ground: Ground, bundle: Bundle) -> dict[str, Any]:
    """Probe, hit ratio and sizes of one trained bundle, on the test days."""
    hit = hit_ratio(ground, bundle)
    found: dict[str, Any] = {"hit": hit.hit, "low": hit.low, "high": hit.high, "count": hit.count}
    if bundle.macro is None:
        return {**found, "probe": None, "parameters": 0, "connections": 0}
    encoder = bundle.macro.encoder
    return {
        **found,
        "probe": probe(ground, encoder),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "connections": connections(encoder),
    }


def connections(encoder: Encoder) -> int:
    """Weights that connect something: expressed ones of a painted net, all but biases otherwise."""
    if isinstance(encoder, CPPNEncoder):
        return encoder.connections
    return sum(p.numel() for p in encoder.parameters() if p.dim() > 1)


@torch.no_grad()
def vectors(encoder: Encoder, sessions: SessionSet) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The encoder's pooled vectors, without the scaler's statistics."""
    parts = [
        encoder(sessions.gather(np.arange(i, min(i + 64, len(sessions)))))
        for i in range(0, len(sessions), 64)
    ]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)


def probe(ground: Ground, encoder: Encoder) -> float:
    """Regime accuracy (planted) or R2 of the next day's profile (real), learned before testing."""
    learn, test = vectors(encoder, ground.train), vectors(encoder, ground.test)
    if ground.planted is not None:
        days = [
            (s.start_ms() - ground.planted.settings.start_ms) // DAY_MS
            for s in (ground.train, ground.test)
        ]
        signs = np.concatenate([ground.planted.regime[d] for d in days])
        rows = np.arange(len(signs))
        both = np.concatenate([learn, test])
        return sign_accuracy(both, signs, rows[: len(learn)], rows[len(learn) :])
    until = ground.table.grid.end_ms
    known, wanted = (profile_targets(s, until) for s in (ground.train, ground.test))
    a, b = np.isfinite(known).all(axis=1), np.isfinite(wanted).all(axis=1)
    ridge = fit_ridge(learn[a], known[a])
    spread = known[a].std(axis=0)
    error = (((ridge.predict(test[b]) - wanted[b]) / spread) ** 2).sum()
    return float(1 - error / (((ridge.intercept - wanted[b]) / spread) ** 2).sum())


def hit_ratio(ground: Ground, bundle: Bundle) -> HitRatio:
    """Hits at setups (planted), or of the strongest 30 % of the scores (real)."""
    scored = score_span("MARKET", ground.table.grid, BundleTimeline((bundle,)))
    if ground.planted is not None:
        return hit_at_setups(ground.planted, scored.score, ground.until_ms)
    ahead = ground.label.compute(ground.table.grid).forward_return
    close = ground.table.grid.close_time
    low, high = np.quantile(bundle.score_seed, (0.15, 0.85))
    strong = (scored.score <= low) | (scored.score >= high)
    counted = strong & np.isfinite(ahead) & (ahead != 0) & (close >= ground.until_ms)
    hits = (np.sign(scored.score - (low + high) / 2) == np.sign(ahead))[counted]
    return day_bootstrap(hits, close[counted] // DAY_MS)


def day_bootstrap(hits: Any, day: Any, draws: int = 2000) -> HitRatio:
    """Share of hits with a percentile interval over whole days."""
    _, place = np.unique(day, return_inverse=True)
    total, right = np.bincount(place), np.bincount(place, weights=hits)
    picked = np.random.default_rng(0).integers(0, len(total), (draws, len(total)))
    shares = right[picked].sum(axis=1) / total[picked].sum(axis=1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return HitRatio(float(hits.mean()), float(low), float(high), len(hits))


def compare(ground: Ground, seed: int, generations: int) -> list[dict[str, Any]]:
    """Train and judge every arm with one seed."""
    base = LearnSettings(
        label=ground.label,
        train_days=TRAIN_DAYS,
        validate_days=VALIDATE_DAYS,
        train=TrainSettings(epochs=10, patience=4, initialisations=2),
        # With a clock MicroNet would read the planted marker itself.
        micro_options={"clock": ground.planted is None},
    )
    lines = []
    for arm, (changes, macro_s) in arms(ground, seed, generations).items():
        bundle = learn_bundle([ground.table], ground.until_ms, replace(base, **changes), seed)
        line = {"arm": arm, "seed": seed, "macro_cpu_s": macro_s, **judge(ground, bundle)}
        print(json.dumps(line), flush=True)
        lines.append(line)
    return lines


def table(lines: Sequence[dict[str, Any]], planted: bool) -> str:
    """The comparison in Markdown: means over seeds, range of the probe, interval of the hit ratio.

    The interval is over days. Planted seeds are markets of their own, so theirs are pooled; real
    candles are the same for every seed, so there it is as wide as one seed's. Neither knows how
    far another seed's training would have come out: the seeds beside it show that.
    """
    probe_name = "regime probe" if planted else "next-day R2"
    head = (
        f"| encoder | {probe_name} | hit ratio [95 %] | seeds | parameters | connections | CPU s |"
    )
    rows = [head, "|---|---|---|---|---|---|---|"]
    for arm in ARMS:
        own = [line for line in lines if line["arm"] == arm]
        probes = [line["probe"] for line in own]
        told = (
            "–"
            if None in probes
            else f"{np.mean(probes):.3f} ({min(probes):.3f}-{max(probes):.3f})"
        )
        hits = [line["hit"] for line in own]
        widths = np.array([line["high"] - line["low"] for line in own])
        half = (np.sqrt((widths**2).sum()) / len(own) if planted else widths.mean()) / 2
        hit = f"{100 * np.mean(hits):.1f} [{100 * (np.mean(hits) - half):.1f}, "
        hit += f"{100 * (np.mean(hits) + half):.1f}]"
        each = " ".join(f"{100 * value:.1f}" for value in hits)
        sizes = [
            f"{np.mean([line[k] for line in own]):,.0f}" for k in ("parameters", "connections")
        ]
        cpu = f"{np.mean([line['macro_cpu_s'] for line in own]):.0f}"
        rows.append(f"| {arm} | {told} | {hit} | {each} | {sizes[0]} | {sizes[1]} | {cpu} |")
    return "\n".join(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="10,11,12")
    parser.add_argument("--generations", type=int, default=15)
    parser.add_argument("--test-days", type=int, default=800)
    parser.add_argument("--market", type=Path, help="folder of real candles instead")
    parser.add_argument("--symbol", default="BTCUSDT")
    parser.add_argument("--out", type=Path, help="JSON lines to add to, and to tell the table from")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ENCODERS.register("random weights")(RandomWeights)
    lines: list[dict[str, Any]] = []
    for seed in [int(text) for text in asked.seeds.split(",") if text]:
        if asked.market is None:
            ground = planted_ground(seed, asked.test_days)
        else:
            days = WARMUP_DAYS + TRAIN_DAYS + VALIDATE_DAYS + asked.test_days
            ground = real_ground(asked.market, asked.symbol, days)
        lines += compare(ground, seed, asked.generations)
        if asked.out is not None:
            with asked.out.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines if line["seed"] == seed)
    if asked.out is not None:
        lines = [json.loads(text) for text in asked.out.read_text().splitlines()]
    print(table(lines, planted=asked.market is None))


if __name__ == "__main__":
    main()
