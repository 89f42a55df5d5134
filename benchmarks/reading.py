"""How MicroNet reads an embedding, against the best fixed number of principal components.

Five embeddings of the same planted days: one bit that names the regime among 127 columns of noise;
a CPPN's kernels, the best of 24 drawn genomes by how well they name the regime; a bank of eight
drawn genomes that share out the channels; a temporal CNN with random weights; and the same,
pretrained by contrast. Each is read by its leading 1, 2, 4, 8, 16 and 48 principal components, and
by the four directions that predict the coming days (`models.learning.reading`); the MicroNet behind
every reading learns the same days from the same weights, and is judged on 500 days after them.

    python benchmarks/reading.py --seeds 76-80            hits at setups, a training a cell
    python benchmarks/reading.py --seeds 76-80 --named    days whose regime is named, no MicroNet

One JSON line per cell on stdout, then the table in Markdown, in percent. With `--named`, a linear
fit of the regime on what MicroNet would read takes MicroNet's place: seconds instead of minutes,
and without the luck of a training.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cppncripto_strategy.feeds.clock import DAY_MS
from cppncripto_strategy.feeds.planted import PlantedMarket, PlantedSettings, generate
from cppncripto_strategy.models.inputs.grid import CandleGrid
from cppncripto_strategy.models.inputs.sessions import SessionSet, SessionTable, build_sessions
from cppncripto_strategy.models.judging.probes import sign_accuracy
from cppncripto_strategy.models.labels import LabelSettings
from cppncripto_strategy.models.learning.data import embed_set, micro_data, return_scale
from cppncripto_strategy.models.learning.reading import day_profiles, predictive_reading
from cppncripto_strategy.models.learning.training import MicroData, train_micronet
from cppncripto_strategy.models.macronet import MacroNet, build_macronet
from cppncripto_strategy.models.micronet import CONTEXT_CLIP, MicroNet
from cppncripto_strategy.models.pretraining import build_objective, pretrain
from cppncripto_strategy.models.settings import (
    EMBEDDING_SIZE,
    LearnSettings,
    PretrainSettings,
    TrainSettings,
)

INTERVAL_MS = 300_000
WARMUP_DAYS, TRAIN_DAYS, VALIDATE_DAYS, TEST_DAYS = 7, 360, 60, 500
PARTS = ("train", "validate", "test")
EMBEDDINGS = ("regime bit in noise", "best of 24 genomes", "bank of 8 genomes", "random TCN", "TCN")
COMPONENTS = (1, 2, 4, 8, 16, 48)
PREDICTIVE = "predictive"
HOW = TrainSettings(epochs=10, patience=4, initialisations=2)


@dataclass(frozen=True, eq=False)
class Days:
    """A planted market cut into days to learn from, to stop by and to judge on."""

    market: PlantedMarket
    table: SessionTable
    sets: dict[str, SessionSet]
    data: dict[str, MicroData]
    learn: LearnSettings

    @property
    def split_ms(self) -> int:
        """00:00 UTC after the last day to learn from."""
        return int(self.sets["validate"].start_ms()[0])

    def regime(self, part: str) -> np.ndarray[Any, Any]:
        """The regime of each session, int8 (N,) of +-1."""
        days = (self.sets[part].start_ms() - self.market.settings.start_ms) // DAY_MS
        return self.market.regime[days]


def days_of(seed: int, train: int = TRAIN_DAYS, validate: int = VALIDATE_DAYS) -> Days:
    """The market of one seed; MicroNet sees no clock, or it would read the marker itself."""
    count = WARMUP_DAYS + train + validate + TEST_DAYS
    market = generate(PlantedSettings(days=count, seed=seed, mu=0.8, sigma=0.004))
    label = LabelSettings(horizon=market.settings.horizon, options={"threshold_bps": 50})
    learn = LearnSettings(label=label, micro_options={"clock": False})
    grid = CandleGrid.from_candles(market.candles, INTERVAL_MS)
    table = build_sessions("MARKET", grid, learn.session)
    start = -(-grid.start_ms // DAY_MS) * DAY_MS + WARMUP_DAYS * DAY_MS
    split = start + train * DAY_MS
    until = split + validate * DAY_MS
    sets = {
        "train": SessionSet.between([table], start, split),
        "validate": SessionSet.between([table], split, until),
        "test": SessionSet.between([table], until, grid.end_ms - DAY_MS),
    }
    labels, field = [label.compute(grid)], learn.micro_settings().receptive_field
    scale = return_scale(labels, sets["train"], start, split)
    embargo_ms = (learn.session.table.memory + field) * INTERVAL_MS
    spans = {"train": (0, split), "validate": (split + embargo_ms, until), "test": (until, 2**62)}
    data = {
        part: micro_data(sets[part], labels, None, field, scale, *spans[part], whole=True)
        for part in PARTS
    }
    return Days(market, table, sets, data, learn)


Contexts = dict[str, tuple[Tensor, Tensor]]


def contexts(days: Days, name: str, seed: int) -> Contexts:
    """Embeddings (N, 128) of each part's sessions, and of the mirrored market's."""
    if name == EMBEDDINGS[0]:
        rng, found = np.random.default_rng(seed), {}
        for part in PARTS:
            values = rng.standard_normal((len(days.sets[part]), EMBEDDING_SIZE))
            values[:, 5] = days.regime(part)
            both = torch.from_numpy(values).float()
            found[part] = both, both
        return found
    if name == EMBEDDINGS[1]:
        nets = [drawn(days, "cppn", 1000 * seed + number) for number in range(24)]
        best = max(nets, key=lambda net: accuracy(days, net))
        return standardised(embedded(days, [best]))
    if name == EMBEDDINGS[2]:
        nets = [drawn(days, "cppn", 1000 * seed + 500 + number) for number in range(8)]
        return standardised(embedded(days, nets))
    net = drawn(days, "tcn", seed)
    if name == EMBEDDINGS[4]:
        session = days.learn.session
        objective = build_objective(
            "contrastive", net.encoder, session.table, {}, session.day_candles
        )
        how = PretrainSettings(epochs=12, patience=12)
        pretrain(net.encoder, objective, days.sets["train"], days.sets["validate"], how, seed)
    return standardised(embedded(days, [net]))


def drawn(days: Days, encoder: str, seed: int) -> MacroNet:
    """A MacroNet of random weights."""
    torch.manual_seed(seed)
    session = days.learn.session
    return build_macronet(encoder, len(session.names), session.n_statistics, {}).eval()


def accuracy(days: Days, net: MacroNet) -> float:
    """Share of days whose regime a ridge names, on the last third of the days to learn from."""
    vectors = embed_set(net, days.sets["train"], raw=True).double().numpy()
    rows = np.arange(len(vectors))
    cut = 2 * len(rows) // 3
    return sign_accuracy(vectors, days.regime("train"), rows[:cut], rows[cut + 5 :])


def embedded(days: Days, nets: list[MacroNet]) -> Contexts:
    """Raw embeddings; several networks share out the columns."""
    own = torch.arange(EMBEDDING_SIZE) % len(nets)

    def mixed(part: str, mirrored: bool) -> Tensor:
        every = [embed_set(net, days.sets[part], raw=True, mirrored=mirrored) for net in nets]
        return torch.stack(every)[own, :, torch.arange(EMBEDDING_SIZE)].T.contiguous()

    return {part: (mixed(part, False), mixed(part, True)) for part in PARTS}


def standardised(raw: Contexts) -> Contexts:
    """By the days to learn from, as MacroNet does."""
    known = raw["train"][0]
    center, scale = known.mean(dim=0), known.std(dim=0).clamp(min=1e-6)
    return {part: ((a - center) / scale, (b - center) / scale) for part, (a, b) in raw.items()}


def cell(days: Days, known: Contexts, components: int | None, seed: int) -> float:
    """Share of setups of the test days whose answer MicroNet names; None reads what predicts."""
    data = {
        part: replace(days.data[part], context=a, mirror_context=b)
        for part, (a, b) in known.items()
    }
    shape = replace(days.learn.micro_settings(), components=components or 4)
    reading = predictive(days, known, shape.components) if components is None else None
    trained = train_micronet(data["train"], data["validate"], shape, HOW, seed, reading=reading)
    return hits(days, data["test"], trained.net)


def predictive(days: Days, known: Contexts, components: int) -> np.ndarray[Any, Any] | None:
    """The directions that predict the coming days, of the days to learn from."""
    train = days.sets["train"]
    profiles = day_profiles(train, days.split_ms)
    context = known["train"][0].double().numpy()
    return predictive_reading(context, profiles, train.start_ms(), components)


def named(days: Days, known: Contexts, components: int | None, seed: int) -> float:
    """Share of test days whose regime a linear fit names from what MicroNet would read."""
    net = MicroNet(replace(days.learn.micro_settings(), components=components or 4))
    net.fit_context(known["train"][0])
    reading = predictive(days, known, 4) if components is None else None
    if reading is not None:
        net.set_reading(torch.from_numpy(reading))
    read = {
        part: (known[part][0] @ net.whiten).clamp(-CONTEXT_CLIP, CONTEXT_CLIP).double().numpy()
        for part in ("train", "test")
    }
    inputs = {part: np.c_[values, np.ones(len(values))] for part, values in read.items()}
    weights = np.linalg.lstsq(inputs["train"], days.regime("train").astype(float), rcond=None)[0]
    return float((np.sign(inputs["test"] @ weights) == days.regime("test")).mean())


def hits(days: Days, data: MicroData, net: MicroNet) -> float:
    """Share of right signs where a setup closes."""
    right, setups = per_day(days, data, net)
    return float(right.sum() / setups.sum())


@torch.no_grad()
def per_day(days: Days, data: MicroData, net: MicroNet) -> tuple[Any, Any]:
    """Right signs where a setup closes, and setups, of each test day."""
    parts = [net.probabilities(net(part.inputs, part.context))[..., 0] for part in data.batches(64)]
    score, ahead = torch.cat(parts).numpy(), data.forward_return.numpy()
    sessions = [days.table.session_rows(int(session)) for _, session in days.sets["test"].members]
    first = (days.table.grid.start_ms - days.market.settings.start_ms) // INTERVAL_MS
    closes = np.stack(
        [days.market.direction[first + at.start : first + at.stop] for at in sessions]
    )
    counted = (closes != 0) & np.isfinite(ahead) & (ahead != 0)
    return ((np.sign(score) == np.sign(ahead)) & counted).sum(axis=1), counted.sum(axis=1)


def table(lines: list[dict[str, Any]]) -> str:
    """Means over seeds, in percent; the last column is the reading less the best of the others."""
    names = [*map(str, COMPONENTS), PREDICTIVE]
    rows = [
        f"| embedding | {' | '.join(names)} | against the best |",
        "|---" * (len(names) + 2) + "|",
    ]
    for embedding in dict.fromkeys(line["embedding"] for line in lines):
        means = {
            name: 100
            * np.mean(
                [ln["hit"] for ln in lines if (ln["embedding"], ln["reading"]) == (embedding, name)]
            )
            for name in names
        }
        best = max(means[name] for name in names[:-1])
        cells = " | ".join(f"{means[name]:.1f}" for name in names)
        rows.append(f"| {embedding} | {cells} | {means[PREDICTIVE] - best:+.1f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", default="76-80", help="first-last, planted markets")
    parser.add_argument("--named", action="store_true", help="name regimes instead of training")
    options = parser.parse_args()
    first, last = map(int, options.seeds.split("-"))
    judge = named if options.named else cell
    torch.set_num_threads(1)
    lines = []
    for seed in range(first, last + 1):
        days = days_of(seed)
        for embedding in EMBEDDINGS:
            known = contexts(days, embedding, seed)
            for components in (None, *COMPONENTS):
                began = time.process_time()
                line = {"seed": seed, "embedding": embedding}
                line["hit"] = judge(days, known, components, seed)
                line["reading"] = PREDICTIVE if components is None else str(components)
                line["cpu_s"] = round(time.process_time() - began, 1)
                print(json.dumps(line), flush=True)
                lines.append(line)
    print(table(lines))


if __name__ == "__main__":
    main()
